"""Scenarios L: what a session may do, and what becomes of it under many hands."""

from __future__ import annotations

import threading
import time
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
        for client in clients:
            client.send_end()
        for client in clients:
            client.close()
        until(lambda: daemon.status().daemon["sessions_running"] == 0, "not all ended")


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


def _write_until_refused(daemon: Daemon, name: str, batches: int, per_batch: int, results: list[Any]) -> None:
    """A participant that writes flat out; notes how many were acknowledged as stored."""
    with daemon.client() as client:
        try:
            client.open(name, join=True)
        except Refused as refused:
            results.append((0, refused.code))
            return
        for number in range(batches):
            client.send_events([log(f"{number}") for _ in range(per_batch)])
        client.wait_acknowledged()
        late = sum(count for _, count, code in client.refused if code == "session-ended")
        assert all(code == "session-ended" for _, _, code in client.refused)
        results.append((client.sequence - late, "written"))


@pytest.mark.parametrize(("scenario", "writers", "batches"), [("l9", 10, 20), ("l10", 20, 50)])
def test_l9_l10_what_was_acknowledged_when_the_end_came_is_what_is_stored(scenario: str, writers: int, batches: int) -> None:
    with running() as daemon, daemon.client() as owner:
        owner.open(scenario)
        results: list[Any] = []
        threads = [
            threading.Thread(target=_write_until_refused, args=(daemon, scenario, batches, 10, results)) for _ in range(writers)
        ]
        for thread in threads:
            thread.start()
        until(lambda: daemon.session(scenario)["events"] > 0, "nobody wrote")
        assert owner.end().outcome is Outcome.COMPLETED
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert len(results) == writers, "every writer returned"
        integrity = daemon.trace(scenario)["session"]["integrity"]
        assert integrity["stored"] == sum(stored for stored, _ in results)
        assert integrity["gaps"] == []


def test_l12_operations_after_the_end_are_refused_at_once() -> None:
    with running() as daemon, daemon.client() as client:
        client.open("l12")
        client.end()
        began = time.monotonic()
        for _ in range(200):
            client.send_events([log("late")])
        client.wait_acknowledged()
        assert sum(count for _, count, _ in client.refused) == 200
        assert client.end("failed").outcome is Outcome.COMPLETED
        assert client.cancel("late").outcome is Outcome.COMPLETED  # type: ignore[union-attr]
        assert time.monotonic() - began < 30


def test_l13_a_cancel_and_an_end_at_once_make_one_outcome() -> None:
    with running() as daemon:
        outcomes = set()
        for number in range(100):
            with daemon.client() as client:
                client.open(f"l13-{number}")
                cancel, end = messages.Cancel(90, "stop", 0), messages.End(91, "completed", 0)
                first, second = (cancel, end) if number % 2 else (end, cancel)
                client.tell(first)
                client.tell(second)
                answers = {client.terminal(90).outcome, client.terminal(91).outcome}
            assert len(answers) == 1
            outcome = answers.pop().value
            assert daemon.trace(f"l13-{number}")["session"]["outcome"] == outcome
            outcomes.add(outcome)
        assert outcomes == {"cancelled", "completed"}


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
