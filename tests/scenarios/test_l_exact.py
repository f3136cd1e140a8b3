"""Scenarios L, to the event: what was acknowledged is compared with what the journal holds, sequence by sequence."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from collectord.model import Outcome
from collectord.wire import messages
from collectord.wire.frames import encode_frame
from collectord.wire.messages import encode_message
from tests.export.otlp import check_document, logs_of, spans_of
from tests.process.client import RawClient, Refused, log, new_id, span_end, span_start
from tests.process.daemon import Daemon, running
from tests.scenarios.journals import stored_of, terminals_of
from tests.scenarios.races import kv_set, raced
from tests.scenarios.support import agent, finish, slow, until, wait_for

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as daemon:
        yield daemon


class Follower:
    """Reads a trace file over and over: it is valid at every moment, and never has fewer spans than before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = threading.Event()
        self.looked = 0
        self.counts: set[int] = set()
        self.fault: BaseException | None = None
        self._thread = threading.Thread(target=self._follow)

    def _follow(self) -> None:
        seen = 0
        try:
            while not self._over.is_set():
                document = orjson.loads(self._path.read_bytes())
                count = len(spans_of(document))
                assert count >= seen, f"the file shrank from {seen} spans to {count}"
                seen = count
                self.counts.add(count)
                self.looked += 1
        except (AssertionError, OSError, orjson.JSONDecodeError) as fault:
            self.fault = fault

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_l1_a_reader_of_the_file_never_sees_the_number_of_spans_fall(daemon: Daemon) -> None:
    with daemon.client() as client:
        path = Path(client.open("l1-followed").path)
        with Follower(path) as follower:
            for _ in range(10):
                for _ in range(5):
                    first = client.sequence + 1
                    client.send_events([span_start("execute_tool bash"), span_end(first)])
                client.send_events([log("idle")])
                client.flush(export=True)
            assert client.end().outcome is Outcome.COMPLETED
            looked = follower.looked
            until(lambda: follower.fault or follower.looked > looked + 1)
    assert follower.fault is None, follower.fault
    assert max(follower.counts) == 50
    assert len(follower.counts) >= 3, "it was seen to grow"


@pytest.mark.parametrize("how", ["completed", "crashed"])
def test_l2_a_straggler_is_refused_from_whichever_connection_it_comes(daemon: Daemon, how: str) -> None:
    name = f"l2-{how}"
    with daemon.client() as owner, daemon.client() as other:
        path = Path(owner.open(name).path)
        other.open(name, join=True)
        for client in (owner, other):
            client.send_events([span_start("in time"), kv_set("s", "k", 1)])
            client.wait_acknowledged()
        assert (owner.end() if how == "completed" else owner.crash("broken")).outcome.value == how
        before, inode = path.read_bytes(), path.stat().st_ino
        for client in (owner, other):
            client.send_events([span_end(1), log("late"), kv_set("s", "k", 2)])
            client.wait_acknowledged()
            assert client.refused == [[3, 3, "session-ended"]]
            assert client.flush(export=True).sequence == 2
        assert (path.read_bytes(), path.stat().st_ino) == (before, inode)
    assert stored_of(daemon, name) == {1: {1, 2}, 2: {1, 2}}


def test_l2_events_right_behind_the_end_are_refused_and_never_taken_back(daemon: Daemon) -> None:
    for number in range(20):
        name = f"l2-behind-{number}"
        with daemon.client() as client:
            client.open(name)
            client.send_events([log("in time")])
            end = client.send_end()
            for _ in range(30):
                client.send_events([log("late")])
            client.wait_acknowledged()  # the client itself refuses an acknowledgement that is taken back
            assert client.terminal(end).outcome is Outcome.COMPLETED
            assert client.stored == {1}
        assert stored_of(daemon, name) == {1: {1}}


def test_l2_events_while_the_final_document_is_renamed_are_each_refused() -> None:
    with running(slow("rename,renameat,renameat2", 100_000)) as daemon:
        for number in range(3):
            name = f"l2-renaming-{number}"
            with daemon.client() as owner, daemon.client() as other:
                owner.open(name)
                other.open(name, join=True)
                end = owner.send_end()
                stop = time.monotonic() + 0.3  # the scenario's: before, while and after the name is being changed
                while time.monotonic() < stop:
                    for client in (owner, other):
                        client.send_events([log("late?")])
                    time.sleep(0.002)
                owner.wait_acknowledged()
                other.wait_acknowledged()
                assert owner.terminal(end).outcome is Outcome.COMPLETED
                stored = stored_of(daemon, name)
                assert (owner.stored, other.stored) == (stored.get(1, set()), stored.get(2, set()))
                assert len(other.refused) > 10, "most of them came late"


def test_l8_a_child_process_that_ends_in_any_way_leaves_the_parents_session_open(daemon: Daemon) -> None:
    script = """
client.open("l8-ways", join=True)
client.send_events([span_start("child"), span_start("tool"), span_end(2)])
client.wait_acknowledged()
how = sys.argv[1]
if how == "detach":
    client.send_events([span_end(1)])
    client.detach()
elif how == "torn":
    client.socket.sendall(b"\\0\\0\\1\\0half")
reached("there")
if how == "exit":
    os._exit(3)
if how == "raise":
    raise SystemExit(1)
sys.stdin.readline()
"""
    ways = ["detach", "exit", "raise", "torn", "kill"]
    with daemon.client() as owner:
        owner.open("l8-ways")
        owner.send_events([span_start("parent")])
        for how in ways:
            child = agent(daemon, script, how)
            wait_for(child, "there")
            child.kill()
            finish(child)
        until(lambda: _left(daemon, "l8-ways", owner) == len(ways), "a participant that left is not seen to have left")
        assert daemon.session("l8-ways")["outcome"] == "running"
        owner.send_events([span_end(1)])
        assert owner.end().outcome is Outcome.COMPLETED
    document = daemon.trace("l8-ways")
    assert [p["detached"] for p in document["session"]["participants"]] == [how == "detach" for how in ways]
    assert document["session"]["counts"] == {"events": 18, "spans": 11, "unfinished": 4, "errors": 0, "logs": 0}
    assert document["session"]["integrity"]["torn_bytes"] == 8


def _left(daemon: Daemon, name: str, owner: RawClient) -> int:
    owner.flush(export=True)
    return sum(p["left_at"] is not None for p in daemon.trace(name)["session"]["participants"])


# ---------------------------------------------------------------- many hands, and an end in their midst


def test_l9_ten_children_write_spans_and_state_while_the_parent_ends(daemon: Daemon) -> None:
    def batch(first: int) -> list[Any]:
        return [span_start("child work"), span_end(first), kv_set("children", str(first), first)]

    totals = []
    for number in range(10):  # 5 ms as in the row, and less: a quick machine is done by then
        took, total = raced(daemon, f"l9-{number}", 10, 20, batch, 0.005 / (1 + number))
        assert took < 10
        totals.append(total)
    assert any(0 < total < 600 for total in totals), f"the end never came in their midst: {totals}"


def test_l10_twenty_writers_flat_out_lose_nothing_that_was_acknowledged(daemon: Daemon) -> None:
    def batch(first: int) -> list[Any]:
        return [log({"n": first + offset}) for offset in range(25)]

    totals = [raced(daemon, f"l10-{number}", 20, 40, batch, 0.01)[1] for number in range(3)]
    assert any(0 < total < 20_000 for total in totals), f"the end never came in their midst: {totals}"


def test_l12_two_hundred_operations_of_every_kind_after_the_end_take_less_than_a_second(daemon: Daemon) -> None:
    def late(client: RawClient, number: int) -> None:
        match number % 5:
            case 0 | 1:
                client.send_events([span_start("late"), kv_set("s", "k", number)])
                client.wait_acknowledged()
            case 2:
                assert client.flush(export=True).sequence == 2
            case 3:
                assert client.end("failed").outcome is Outcome.COMPLETED
            case 4:
                answer = client.cancel("late")
                assert isinstance(answer, messages.Terminal)
                assert answer.outcome is Outcome.COMPLETED

    times = []
    for attempt in range(3):  # a busy machine may take its time once; it must be possible
        with daemon.client() as client:
            client.open(f"l12-{attempt}")
            client.send_events([span_start("in time"), span_end(1)])
            path = Path(client.end().path or "")
            before = path.read_bytes()
            began = time.monotonic()
            for number in range(200):
                late(client, number)
            times.append(time.monotonic() - began)
            assert client.stored == {1, 2}
            assert path.read_bytes() == before
        if times[-1] < 1:
            return
    raise AssertionError(f"200 late operations took {times} s")


def test_l13_cancel_and_end_from_two_connections_at_once_make_one_terminal_record(daemon: Daemon) -> None:
    rng = random.Random(13)
    outcomes = set()
    with daemon.client() as other:
        for number in range(100):
            name = f"l13-{number}"
            with daemon.client() as owner:
                owner.open(name)
                owner.send_events([log("x")])
                wishes: list[messages.Request] = [
                    messages.End(501, "completed", 1),
                    messages.Cancel(502, "stop", 1),
                    messages.End(503, "failed", 1, "broken"),
                ]
                rng.shuffle(wishes)
                owner.socket.sendall(b"".join(map(encode_message, wishes)))
                asked = other.cancel("by somebody else", session_id=name)
                answers = {owner.terminal(request_id).outcome for request_id in (501, 502, 503)}
            assert isinstance(asked, messages.CancelAnswer | messages.Terminal)
            assert len(answers) == 1
            (outcome,) = answers
            assert [terminal["outcome"] for terminal in terminals_of(daemon, name)] == [outcome.value]
            assert daemon.trace(name)["session"]["outcome"] == outcome.value
            if isinstance(asked, messages.Terminal):
                assert asked.outcome is outcome
            outcomes.add(outcome)
    assert outcomes == {Outcome.COMPLETED, Outcome.CANCELLED, Outcome.FAILED}


def test_l15_a_connection_that_dies_in_the_middle_of_a_frame_touches_no_other(daemon: Daemon) -> None:
    with daemon.client() as owner:
        owner.open("l15-torn")
        others = [daemon.client() for _ in range(6)]
        for other in others:
            other.open("l15-torn", join=True)
            other.send_events([span_start("work")])
        dying = others[0]
        dying.send_events([log("its last")])
        dying.socket.sendall(encode_frame(b"x" * 5_000)[:1_000])
        dying.close()
        for other in (owner, *others[1:]):
            for _ in range(20):
                other.send_events([log("goes on")])
            other.wait_acknowledged()
            assert other.refused == []
        for other in others[1:]:
            other.send_events([span_end(1)])
            other.detach()
            other.close()
        assert owner.end().outcome is Outcome.COMPLETED
    document = daemon.trace("l15-torn")
    assert document["session"]["counts"]["unfinished"] == 1
    assert document["session"]["integrity"]["torn_bytes"] == 1_000
    assert len(logs_of(document)) == 6 * 20 + 1
    assert stored_of(daemon, "l15-torn") == {
        1: set(range(1, 21)), 2: {1, 2}, **{producer: set(range(1, 23)) for producer in range(3, 8)},
    }  # fmt: skip


def test_a_reference_across_producers_ends_a_parents_span(daemon: Daemon) -> None:
    with daemon.client() as owner, daemon.client() as child:
        owner.open("across")
        child.open("across", join=True)
        parent = new_id()
        owner.send_events([span_start("parent", span_id=parent)])
        owner.wait_acknowledged()
        child.send_events([span_start("child", parent=parent), span_end(1), [4, time.time_ns(), [1, 1], 1, None, {}]])
        child.send_events([[4, time.time_ns(), [1, 1], 1, None, {}]])
        child.wait_acknowledged()
        assert child.refused == [[4, 1, "span-ended"]]
        owner.send_events([span_end(1)])
        owner.wait_acknowledged()
        assert owner.refused == [[2, 1, "span-ended"]]
        path = owner.end().path
    assert path is not None
    assert check_document(Path(path).read_bytes())["session"]["counts"]["unfinished"] == 0


def test_an_owner_may_not_detach_and_a_stranger_may_not_end(daemon: Daemon) -> None:
    with daemon.client() as owner, daemon.client() as child:
        owner.open("rights")
        child.open("rights", join=True)
        for wish, client in ((owner.detach, owner), (child.end, child), (lambda: child.crash("mine"), child)):
            with pytest.raises(Refused) as refused:
                wish()
            assert refused.value.code == "not-owner"
            client.send_events([log("goes on")])
            client.wait_acknowledged()
        assert owner.end().outcome is Outcome.COMPLETED
    assert stored_of(daemon, "rights") == {1: {1}, 2: {1, 2}}
