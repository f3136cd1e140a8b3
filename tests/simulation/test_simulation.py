"""Plays of the whole daemon core under a simulated clock, on the simulated disk: each seed keeps all rules, and trouble was real.

`make simulate N=1000` plays fresh seeds; one that fails is printed, and belongs into ``seeds.txt`` with what it found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio
import trio.testing

from collectord.limits import FRAME_SIZE_MAX_BYTES, PENDING_MAX_BYTES
from collectord.wire import messages
from collectord.wire.connection import ClientConnection
from collectord.wire.events import batch_from
from collectord.wire.messages import encode_message
from tests.faults.figures import is_full
from tests.simulation import rules
from tests.simulation.play import POWERS_TROUBLE, Kind, Result, Stage, play
from tests.simulation.report import kinds_of
from tests.simulation.rules import Book
from tests.simulation.world import LifeDisk, Machine

STANDARD = range(400 if is_full() else 60)
SAVED = [int(line.split()[0]) for line in Path(__file__).with_name("seeds.txt").read_text().splitlines() if line[:1].isdigit()]


@pytest.fixture(scope="module")
def happened() -> Counter[str]:
    """What happened in all the plays of the standard set, each of which kept the rules."""
    total: Counter[str] = Counter()
    for seed in STANDARD:
        total += play(seed).happened
    print(f"seeds {STANDARD.start} to {STANDARD.stop - 1}")
    return total


@pytest.mark.parametrize("seed", SAVED)
def test_a_seed_that_once_found_something_keeps_the_rules(seed: int) -> None:
    assert play(seed).happened["events acknowledged"] >= 0


def test_the_same_seed_is_the_same_play() -> None:
    def words(result: Result) -> list[str]:
        return result.trace

    for seed in (1, 2, 3):
        first, second = play(seed), play(seed)
        assert words(first) == words(second)
        assert len(first.trace) > 50
    assert play(1).trace != play(2).trace


TROUBLE = (
    "agent killed: process", "agent killed: connection", "agent killed: frame", "agent killed: fork",
    "agent exits without an end", "connection dropped", "stranger: crash", "stranger: cancel",
    "daemon killed", "daemon killed at a call to the disk", "daemon stopped", "power cut", "last power cut",
    "disk full", "quota exhausted", "disk read-only", "descriptors exhausted", "disk slow", "render failed",
    "renderer outlived its daemon",
)  # fmt: skip


@pytest.mark.parametrize("what", TROUBLE)
def test_each_kind_of_trouble_came(happened: Counter[str], what: str) -> None:
    assert happened[what]


@pytest.mark.parametrize(
    "operation", ["create", "write", "sync", "close", "rename", "unlink", "write_file", "sync_directory", "read"]
)
def test_each_call_failed(happened: Counter[str], operation: str) -> None:
    assert kinds_of(happened, operation)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT", "EROFS", "EMFILE"])
def test_each_error_came(happened: Counter[str], error: str) -> None:
    assert sum(times for what, times in happened.items() if f" {error} " in what) > 3


@pytest.mark.parametrize("effect", ["nothing", "part", "whole", "lost"])
def test_calls_failed_before_within_and_after_their_work(happened: Counter[str], effect: str) -> None:
    assert any(what.endswith(f" {effect}") for what in happened)


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled", "crashed"])
def test_each_outcome_came_and_was_told(happened: Counter[str], outcome: str) -> None:
    assert happened[f"ended {outcome}"] > 5
    assert happened[f"told {outcome}"] > 5


@pytest.mark.parametrize("reason", ["reported", "process-died", "connection-closed"])
def test_each_reason_of_a_crash_was_told(happened: Counter[str], reason: str) -> None:
    assert happened[f"told {reason}"]


def test_work_was_done_and_taken_up_again(happened: Counter[str]) -> None:
    assert happened["events acknowledged"] > 50 * len(STANDARD)
    assert happened["owner resumed"] > 10
    assert happened["participant resumed"]
    assert happened["told stalled"]
    assert happened["told of an export that failed"]


# ---------------------------------------------------------------- memory


async def test_on_a_disk_that_is_full_a_flood_waits_in_the_socket_and_not_in_memory(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        machine = Machine(1, nursery)
        with machine.kernel.in_place_of_the_real_one():
            nursery.start_soon(machine.keep_daemon)
            await trio.sleep(1)
            process = machine.kernel.start()
            connection = machine.connect(process, 0)
            assert connection is not None
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
            await stream.send_all(encode_message(messages.Hello(1, 1, "flood", process.pid)))
            await stream.send_all(encode_message(messages.Open(2, "flood")))
            await trio.sleep(1)
            machine.disk.capacity = machine.disk.used_bytes()
            sent = 0
            with trio.move_on_after(600):
                while True:
                    events: list[list[Any]] = [[5, 1, 9, "x" * 100_000, {}, None] for _ in range(5)]
                    await stream.send_all(encode_message(messages.Events(batch_from(sent + 1, events, msgpack.packb(events)))))
                    sent += 5
            machine.watch_memory()
            assert machine.pending_max_bytes > PENDING_MAX_BYTES, "nothing was held back: the flood is too small to show anything"
            assert machine.pending_max_bytes <= PENDING_MAX_BYTES + FRAME_SIZE_MAX_BYTES
            machine.heal()
            await stream.send_all(encode_message(messages.Flush(3, sent)))
            await _acknowledged(stream, sent)
            await stream.aclose()
            process.die("SIGKILL")
            machine.keep_going = False
            assert machine.life is not None
            await trio.sleep(5)
            machine.life.stop.set()
            await machine.life.died.wait()
        machine.close()
        nursery.cancel_scope.cancel()


async def _acknowledged(stream: trio.SocketStream, last: int) -> None:
    heard = messages_heard = 0
    machine = ClientConnection()
    while heard < last:
        machine.receive(await stream.receive_some(65_536))
        while (answer := machine.next_answer()) is not None:
            messages_heard += 1
            if isinstance(answer, messages.Ack):
                heard = max(heard, answer.sequence)
    assert messages_heard


# ---------------------------------------------------------------- the rules can be broken


def broken_by(monkeypatch: pytest.MonkeyPatch, target: object, name: str, value: object, only: Sequence[Kind] = ()) -> str:
    """The first contradiction that is found with something planted; empty where none is."""
    monkeypatch.setattr(target, name, value, raising=False)
    for seed in range(60):
        try:
            play(seed, only)
        except AssertionError as error:
            return str(error)
    return ""


def test_a_journal_that_is_not_synced_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = broken_by(monkeypatch, LifeDisk, "sync", lambda self, fd: self._life.step(), POWERS_TROUBLE)
    assert found


def test_a_directory_that_is_not_synced_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = broken_by(monkeypatch, LifeDisk, "sync_directory", lambda self, path: self._life.step(), POWERS_TROUBLE)
    assert found


def test_a_failed_sync_that_is_tried_again_and_believed_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def believe(self: LifeDisk, fd: int) -> None:
        self._life.step()
        try:
            self._life.machine.disk.sync(fd)
        except OSError:
            self._life.machine.disk.sync(fd)

    found = broken_by(monkeypatch, LifeDisk, "sync", believe, [Stage.fail_a_sync, Stage.fail_a_sync, Stage.cut_power])
    assert found


def test_an_event_that_the_book_does_not_know_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Book.heard

    def forget(self: Book, story: rules.Story, producer: int, answer: messages.Answer) -> None:
        heard(self, story, producer, answer)
        story.producers[producer].made.pop(3, None)

    assert "is not the one that was sent" in broken_by(monkeypatch, Book, "heard", forget)
