"""Every order of what can happen to a run, against the real owner task (not a model), with the rules of the design checked.

An alphabet of actions; every word of it up to a depth, and longer ones drawn with a printed seed. After each word everything
that waits is let through, and what the connections heard, the journal and the trace file must agree.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator

import msgpack
import pytest
import trio
import trio.testing

from collectord.model import CrashReason, Outcome, RecordType, Verdict
from collectord.session import inputs
from collectord.session.records import unpack
from collectord.session.state import TERMINAL, State
from collectord.wire import messages
from collectord.wire.events import batch_from
from tests.daemon.bench import Listener, World

DEPTH = int(os.environ.get("INTERLEAVING_DEPTH", "4"))
LONG_WORDS = int(os.environ.get("INTERLEAVING_WORDS", "400"))
LONG_DEPTH = 12
SEED = int(os.environ.get("INTERLEAVING_SEED", "20260131"))


class Play:
    """One word, played."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sequence = 0
        self.request_id = 100
        self.asked: list[tuple[Listener, int]] = []
        self.must_crash = False
        self.may_not_crash = False
        self.gone = False
        self.ended_patiently = False

    def _next_id(self) -> int:
        self.request_id += 1
        return self.request_id

    @property
    def _now(self) -> int:
        return next(self.world.clock)

    def _is_open(self) -> bool:
        return not self.world.owner.core.closed and not self.world.owner.finished.is_set()

    def _crash_counts(self) -> bool:
        """Whether a death that is known now must make the run crashed: its outcome has not been handed to the disk."""
        return self.world.handed_over is None and self._is_open()

    # ------------------------------------------------------------ the alphabet

    def events(self) -> None:
        if self.gone or not self._is_open():
            return
        first = self.sequence + 1
        start = [1, self._now, bytes([first % 250 + 1] * 8), None, f"span {first}", 1, {"n": first}]
        batch = [start, [4, self._now, first, 0, None, {}], [5, self._now, 9, "log", {}, None]]
        self.sequence += 3
        self.world.owner.post(inputs.Events(self._now, 1, batch_from(first, batch, msgpack.packb(batch))))

    def end(self, wait: bool = True) -> None:
        if self.gone or not self._is_open():
            return
        request_id = self._next_id()
        self.asked.append((self.world.connection, request_id))
        end = inputs.End(self._now, self.world.connection, request_id, Outcome.COMPLETED, None, None, wait, self.sequence)
        self.world.owner.post(end)
        self.ended_patiently |= not wait

    def end_without_waiting(self) -> None:
        self.end(wait=False)

    def cancel(self) -> None:
        if self.gone or not self._is_open():
            return
        request_id = self._next_id()
        self.asked.append((self.world.connection, request_id))
        self.world.owner.post(inputs.Cancel(self._now, self.world.connection, request_id, "stop", True, self.sequence))

    def crash(self) -> None:
        if not self._is_open():
            return
        other = Listener(self.world)
        request_id = self._next_id()
        self.asked.append((other, request_id))
        self.must_crash |= self._crash_counts()
        verdict = Verdict(CrashReason.REPORTED, f"crash {request_id}")
        self.world.owner.post(inputs.Crash(self._now, other, request_id, verdict, 0, None))

    def owner_gone(self) -> None:
        if self.gone or not self._is_open():
            return
        self.gone = True
        self.must_crash |= self._crash_counts() and not self.ended_patiently
        self.world.owner.mark_owner_gone()
        verdict = Verdict(CrashReason.PROCESS_DIED, "killed", "SIGKILL")
        self.world.owner.post(inputs.ExitInfo(self._now, verdict))

    def step(self) -> None:
        self.world.gates.let("slot", "commit", "publish")

    def rendered(self) -> None:
        self.world.gates.let("render")

    def disk_error(self) -> None:
        """The next call of the journal's or of a rename fails."""
        disk, gates = self.world.disk, self.world.gates
        kinds = {gate.kind for gate in gates.waiting}
        if "commit" in kinds:
            disk.fail_nth("sync", 1, errno.EIO)
            gates.let("commit")
        elif "publish" in kinds:
            gates.let("publish", error=OSError(errno.EIO, "input/output error"))

    def disk_broken(self) -> None:
        """The next commit fails, and so does the fresh segment: the run is stalled until the clock says to try again."""
        if any(gate.kind == "commit" for gate in self.world.gates.waiting):
            self.world.disk.fail_nth("sync", 1, errno.ENOSPC, times=2)
            self.world.gates.let("commit")

    def export_due(self) -> None:
        if self._is_open():
            self.world.owner.post(inputs.ExportDue())


ALPHABET: dict[str, Callable[[Play], None]] = {
    "E": Play.events,
    "N": Play.end,
    "W": Play.end_without_waiting,
    "C": Play.cancel,
    "X": Play.crash,
    "G": Play.owner_gone,
    "S": Play.step,
    "R": Play.rendered,
    "F": Play.disk_error,
    "B": Play.disk_broken,
    "D": Play.export_due,
}
CORE = "ENCXGSRB"
"""What the deepest level is made of: events, end, cancel, crash, owner gone, a step of the disk, an export finished, a disk
error. All letters are tried up to one level less, and in the long words."""


async def play(word: str) -> None:
    """Play one word on a fresh run, let everything through, and check what came of it."""
    world = World()
    game = Play(world)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.owner.run, 1)
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked()
            game.step()
        await trio.testing.wait_all_tasks_blocked()
        assert world.owner.core.state is State.RUNNING
        for letter in word:
            ALPHABET[letter](game)
            await trio.testing.wait_all_tasks_blocked()
        await let_everything_through(world)
        check_in_flight(game)
        if not world.owner.finished.is_set():
            game.must_crash |= world.owner.core.state not in TERMINAL
            game.crash()
            await let_everything_through(world)
        with trio.move_on_after(120):
            await world.owner.finished.wait()
        assert world.owner.finished.is_set(), f"the run did not end: {world.owner.core.state}"
    check_end(game)


async def let_everything_through(world: World) -> None:
    """Until nothing waits: disk retries come by the clock, which jumps."""
    for _ in range(400):
        await trio.testing.wait_all_tasks_blocked()
        if not world.gates.let("slot", "commit", "publish", "render"):
            if world.owner.core.stall_cause is None and not world.owner.is_unsynced:
                return
            await trio.sleep(60)  # the mock clock jumps to the next try
    raise AssertionError("it never comes to rest")


def check_in_flight(game: Play) -> None:
    """At rest, everything that was accepted is durable, and the running file is no crash's."""
    world = game.world
    if world.owner.core.state is State.RUNNING:
        assert world._sequences() == set(range(1, game.sequence + 1))
        assert world.terminal_records() == []


def check_end(game: Play) -> None:
    """The rules, looked at from outside."""
    world = game.world
    terminal = world.terminal_records()
    assert len(terminal) == 1, f"{len(terminal)} terminal records"
    outcome = terminal[0]["outcome"]
    if game.must_crash:
        assert outcome == "crashed", f"a crash came before the hand-over, the outcome is {outcome}"
    for listener, request_id in game.asked:
        answers = listener.answers(request_id)
        assert len(answers) == 1, f"request {request_id} was answered {len(answers)} times"
        assert isinstance(answers[0], messages.Terminal)
        assert answers[0].outcome.value == outcome
    document = world.document()
    assert document is not None
    published = any(m.path is not None for m in world.connection.heard if isinstance(m, messages.Terminal))
    if published:
        assert document["session"]["outcome"] == outcome
        assert document["collectord"]["outcome"] == outcome
    check_books(game, document if published else None)
    assert world.temporary_files() == []
    assert world.disk.open_files() == 0


def check_books(game: Play, document: dict[str, object] | None) -> None:
    """Positions are dense, nothing is stored twice, and the file counts what the journal holds."""
    records = game.world.records()
    position = 0
    stored: list[int] = []
    for record in records:
        if record.type is RecordType.EVENTS:
            assert record.first_position == position + 1
            position += record.count
            stored += range(record.first_sequence, record.first_sequence + record.count)
    assert len(stored) == len(set(stored))
    gaps = sum(unpack(record.body)["count"] for record in records if record.type is RecordType.GAP)
    assert gaps == 0
    if document is not None:
        integrity = document["session"]["integrity"]  # type: ignore[index]
        assert integrity["stored"] == position
        assert integrity["received"] == position


def words(depth: int) -> Iterator[str]:
    """Every word of that length whose first letter does something in a fresh run."""
    alphabet = CORE if depth == DEPTH else "".join(ALPHABET)
    for letters in itertools.product(alphabet, repeat=depth):
        if letters[0] not in "SRFB":
            yield "".join(letters)


@pytest.mark.parametrize("depth", range(1, DEPTH + 1))
async def test_every_order_up_to_the_depth_keeps_the_rules(depth: int, autojump_clock: trio.testing.MockClock) -> None:
    count = 0
    for word in words(depth):
        try:
            await play(word)
        except BaseException as error:
            error.add_note(f"the word was {word!r}")
            raise
        count += 1
    print(f"{count} orders of depth {depth}")


async def test_long_random_orders_keep_the_rules(autojump_clock: trio.testing.MockClock) -> None:
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    for _ in range(LONG_WORDS):
        word = "".join(dice.choices(list(ALPHABET), weights=[3, 1, 1, 1, 1, 1, 6, 2, 1, 1, 1], k=LONG_DEPTH))
        try:
            await play(word)
        except BaseException as error:
            error.add_note(f"seed {SEED}, the word was {word!r}")
            raise
