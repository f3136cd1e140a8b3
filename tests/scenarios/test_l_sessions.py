"""Scenarios L: what a session may do. Many hands at once, to the event, are in ``test_l_exact``."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from collectord.model import Outcome
from collectord.wire import messages
from tests.export.otlp import logs_of
from tests.process.client import RawClient, Refused, log, span_end, span_start
from tests.process.daemon import Daemon, running
from tests.scenarios.support import agent, crashed_row, finish, until, wait_for

pytestmark = pytest.mark.process


def stored_bodies(daemon: Daemon, stem: str) -> list[Any]:
    """The texts of all logs in a trace file, in order."""
    return [record["body"]["stringValue"] for record in logs_of(daemon.trace(stem))]


def test_l1_the_number_of_spans_in_the_file_never_falls() -> None:
    with running() as daemon, daemon.client() as client:
        client.open("l1")
        seen = [0]
        for _ in range(10):
            first = client.sequence + 1
            client.send_events([span_start("turn"), span_end(first), log("idle")])
            assert client.flush(export=True).refused == 0
            seen.append(daemon.trace("l1")["session"]["counts"]["spans"])
        assert seen == list(range(11))


def test_l2_a_straggler_after_the_end_is_refused_and_the_file_untouched() -> None:
    with running() as daemon, daemon.client() as client:
        client.open("l2")
        client.send_events([log("in time")])
        assert client.end().outcome is Outcome.COMPLETED
        before = daemon.trace_path("l2").read_bytes()
        client.send_events([log("late")])
        client.wait_acknowledged()
        assert client.refused == [[2, 1, "session-ended"]]
        assert daemon.trace_path("l2").read_bytes() == before
        totals = daemon.status().daemon
        assert totals["events_received"] == totals["events_stored"] + totals["events_refused"] == 2


def test_l4_a_thousand_live_sessions_are_all_running() -> None:
    with running() as daemon:
        clients = [daemon.client() for _ in range(1_000)]
        for number, client in enumerate(clients):
            client.tell(messages.Open(7, f"l4-{number}"))
        for client in clients:
            assert isinstance(client.answer(7), messages.Opened)
        for client in clients:
            client.send_events([log("here")])
        for client in clients:
            client.wait_acknowledged(1)
        answer = daemon.status()
        assert answer.daemon["sessions_running"] == 1_000
        assert {row["outcome"] for row in answer.sessions} == {"running"}
        assert sum(row["events"] for row in answer.sessions) == 1_000
        for number in range(1_000):
            with daemon.trace_path(f"l4-{number}").open("rb") as file:
                assert b'"outcome":"running"' in file.readline()
        daemon.stop(signal.SIGKILL)  # a thousand ends are not this scenario's
        for client in clients:
            client.close()


def test_l6_opening_again_on_the_same_connection_has_no_effect_and_the_same_answer() -> None:
    with running() as daemon, daemon.client() as client:
        first = client.open("l6")
        client.send_events([span_start("turn")])
        client.wait_acknowledged()
        for _ in range(100):
            again = client.open("l6")
            assert (again.run, again.trace_id, again.path, again.producer) == (
                first.run, first.trace_id, first.path, first.producer,
            )  # fmt: skip
            assert again.next_sequence == 2
        with pytest.raises(Refused) as refused:
            client.open("another")
        assert refused.value.code == "connection-used"
        assert daemon.session("l6")["unfinished"] == 1
        assert client.end().outcome is Outcome.COMPLETED


def test_a_running_session_is_busy_for_others_and_can_be_joined() -> None:
    with running() as daemon, daemon.client() as owner, daemon.client() as other:
        owner.open("busy")
        with pytest.raises(Refused) as refused:
            other.open("busy")
        assert refused.value.code == "session-busy"
        assert refused.value.error.retryable
        assert other.open("busy", join=True).producer == 2
        with daemon.client() as stranger, pytest.raises(Refused) as unknown:
            stranger.open("nobody has opened this", join=True)
        assert unknown.value.code == "session-unknown"


def test_l8_participants_come_and_go_and_the_session_stays_open() -> None:
    script = """
client.open("l8", join=True)
client.send_events([span_start("child work"), log("from the child")])
client.wait_acknowledged()
reached("there")
time.sleep(600)
"""
    with running() as daemon, daemon.client() as owner:
        owner.open("l8")
        owner.send_events([span_start("parent")])
        killed = agent(daemon, script)
        wait_for(killed, "there")
        killed.kill()
        finish(killed)
        with daemon.client() as leaver:
            leaver.open("l8", join=True)
            leaver.send_events([span_start("done"), span_end(1)])
            leaver.wait_acknowledged()
            with pytest.raises(Refused) as refused:
                leaver.end()
            assert refused.value.code == "not-owner"
            with pytest.raises(Refused) as refused:
                leaver.crash("not mine")
            assert refused.value.code == "not-owner"
            leaver.detach()
        assert daemon.session("l8")["outcome"] == "running"
        owner.send_events([span_end(1)])
        assert owner.end().outcome is Outcome.COMPLETED
        session = daemon.trace("l8")["session"]
        assert session["counts"]["spans"] == 3
        assert session["counts"]["unfinished"] == 1, "only the killed participant's span"
        assert [p["detached"] for p in session["participants"]] == [False, True]
        assert len(daemon.trace("l8")["resourceSpans"]) == 3


def test_a_cancel_by_somebody_else_is_told_to_the_owner() -> None:
    with running() as daemon, daemon.client() as owner, daemon.client() as other:
        owner.open("c")
        answer = other.cancel("too expensive", session_id="c")
        assert isinstance(answer, messages.CancelAnswer)
        told = owner.receive()
        assert isinstance(told, messages.CancelRequested)
        assert told.reason == "too expensive"
        assert daemon.session("c")["state"] == "cancel-requested"
        assert owner.cancel("as asked").outcome is Outcome.CANCELLED  # type: ignore[union-attr]


def test_l15_the_death_of_one_participant_does_not_touch_the_others() -> None:
    with running() as daemon, daemon.client() as owner:
        owner.open("l15")
        others = [daemon.client() for _ in range(5)]
        for number, other in enumerate(others):
            other.open("l15", join=True)
            other.send_events([log(f"before {number}")])
            other.wait_acknowledged()
        others[0].close()
        for number, other in enumerate(others[1:], 1):
            other.send_events([log(f"after {number}")])
            other.wait_acknowledged()
            assert other.refused == []
            other.detach()
            other.close()
        assert owner.end().outcome is Outcome.COMPLETED
        bodies = set(stored_bodies(daemon, "l15"))
        assert bodies == {f"before {n}" for n in range(5)} | {f"after {n}" for n in range(1, 5)}


def test_the_owner_that_vanishes_leaves_participants_with_the_last_word() -> None:
    with running() as daemon:
        owner = daemon.client()
        owner.open("gone")
        with daemon.client() as other:
            other.open("gone", join=True)
            other.send_events([log("x")])
            other.wait_acknowledged()
            owner.close()
            told = other.receive()
            assert isinstance(told, messages.Terminal)
            assert told.outcome is Outcome.CRASHED
        assert crashed_row(daemon, "gone")["events"] == 1


def test_the_next_run_begins_when_the_one_before_it_is_over() -> None:
    with running() as daemon:
        first: RawClient = daemon.client()
        first.open("again")
        first.send_events([log("one")])
        first.send_end()
        with daemon.client() as second:
            until(lambda: daemon.session("again")["state"] != "running", "the end was not read")
            assert second.open("again").run == 2
            second.end()
        first.close()
        assert daemon.trace("again")["session"]["outcome"] == "completed"
        assert daemon.trace("again", 2)["session"]["outcome"] == "completed"
