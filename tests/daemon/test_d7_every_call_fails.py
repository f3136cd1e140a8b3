"""D7: each call that a life makes of the disk fails in turn, in every way, once, twice, and for a while.

Nothing is acknowledged that a power cut in that moment would take back; somebody is told, and why; no more is taken into memory
than the limit; and when the disk works again, so does the run: by timer, with the outcome that was asked for and every event
stored once. What a power cut at the fault leaves is recovered, and holds all that was promised by then.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from collectord.daemon import owner as owner_module
from collectord.journal.reader import JournalReader
from collectord.journal.recovery import recover_run
from collectord.journal.store import Store
from collectord.limits import EXPORT_RETRY_MAX_S, STALL_RETRY_MAX_S
from collectord.model import Outcome, RecordType
from collectord.session.records import unpack
from collectord.wire import messages
from tests.daemon.failing import FAILURES, WELL_AGAIN_S, Ending, How, Moment, Stage, Trouble, count_calls, live
from tests.faults import figures
from tests.simulation.disk import Effect, SimulatedDisk

BED = "each call of a life fails (D7, simulated disk)"
JOURNALS = ("create", "write", "sync")
"""What is done to journals alone."""

LIMIT_BYTES = 4_096
PATIENCE_S = WELL_AGAIN_S + STALL_RETRY_MAX_S + 10
OUTCOMES = {Ending.ENDS: Outcome.COMPLETED, Ending.CRASHES: Outcome.CRASHED, Ending.GOES: Outcome.CRASHED}


class Log(logging.Handler):
    """What the collector has said since it was cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.lines.append(record.getMessage())


@pytest.fixture
def log() -> Iterator[Log]:
    """The log, kept away from everybody else: thousands of lives say a lot."""
    kept, logger = Log(), logging.getLogger("collectord")
    logger.addHandler(kept)
    logger.propagate = False
    yield kept
    logger.removeHandler(kept)
    logger.propagate = True


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is sent to a disk that does not answer reaches the limit soon."""
    monkeypatch.setattr(owner_module, "PENDING_MAX_BYTES", LIMIT_BYTES)


async def calls_of(ending: Ending) -> list[str]:
    """The operations of a life in which nothing fails."""
    stage = Stage()
    made = count_calls(stage)
    await play(stage, ending)
    stage.end_trouble()
    check_over(stage, ending)
    assert stage.stalls == []
    return made


async def play(stage: Stage, ending: Ending) -> None:
    """A life, to its end, and until its document is there."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.owner.run, 1)
        nursery.start_soon(stage.owed.run)
        with trio.fail_after(PATIENCE_S):
            await live(stage, ending)
            await stage.owner.finished.wait()
        with trio.fail_after(PATIENCE_S + EXPORT_RETRY_MAX_S):
            await stage.wait_until_nothing_is_owed()
        nursery.cancel_scope.cancel()


def troubles(calls: list[str], thin: int) -> Iterator[Trouble]:
    """Every way in which each call can fail; or, of each call, one of so many, another one each time."""
    turn = itertools.count()
    for number, operation in enumerate(calls):
        if operation not in FAILURES:
            continue
        errors, effects = FAILURES[operation]
        for error, effect, how in itertools.product(errors, effects, How):
            if (next(turn) + number) % thin == 0:
                yield Trouble(number, error, effect, how)


# ---------------------------------------------------------------- what must be so


def check_over(stage: Stage, ending: Ending) -> None:
    """The right outcome, once; every event once; nothing left open or lying about."""
    (terminal,) = stage.terminal_records()
    outcome = OUTCOMES[ending]
    assert terminal["outcome"] == outcome.value
    assert stage.told in (outcome, None if ending is Ending.GOES else outcome)
    stored = stage.stored()
    for producer, agent in stage.agents.items():
        assert stored.get(producer, Counter()) == Counter(range(1, agent.sent + 1)), "all that was sent is stored, once"
    assert stage.owner.core.stall_cause is None
    assert stage.disk.open_files() == 0
    document = stage.document()
    assert document is not None
    assert document["session"]["outcome"] == outcome.value
    assert document["session"]["integrity"]["stored"] == sum(agent.sent for agent in stage.agents.values())
    assert len([m for m in stage.agent.heard if isinstance(m, messages.Terminal)]) == 1


def check_told(stage: Stage, trouble: Trouble, logged: list[str]) -> None:
    """Somebody knows of the fault, and what the kernel called it.

    Of a journal that failed, those who write to it, or its next segment; of a document that did not come, whoever waited for it,
    or the log where nobody did. Of a file that could not be removed, the log.
    """
    words = os.strerror(trouble.error)
    told = list(stage.stalls)
    for agent in stage.agents.values():
        told += [m.message for m in agent.heard if isinstance(m, messages.Error)]
        told += [m.export_error for m in agent.heard if isinstance(m, messages.Terminal) and m.export_error]
    told += [unpack(record.body)["cause"] for record in stage.records() if record.type is RecordType.SEGMENT]
    if not any(operation in JOURNALS for operation, *_ in stage.fired):
        told += logged
    quiet = {operation for operation, *_ in stage.fired} <= {"close"}  # nothing depends on it: all was synced before
    assert quiet or any(words in sentence for sentence in told), f"nobody was told of {stage.fired}"


def check_moment(moment: Moment) -> None:
    """After a power cut in that moment, and the recovery: what was promised is there, once; a second time changes nothing."""
    for disk in moment.disks:
        store = Store(disk, "/state", 0)
        for found in store.runs_found():
            recover_run(disk, store, found, itertools.count(1_000).__next__, lambda: 7)
        after = everything(disk)
        stored: dict[int, Counter[int]] = {}
        outcomes = []
        for found in store.runs_found():
            reader = JournalReader(disk, found.segment_paths, [None] * len(found.segment_paths))
            for record in reader:
                if record.type is RecordType.EVENTS:
                    sequences = range(record.first_sequence, record.first_sequence + record.count)
                    stored.setdefault(record.producer, Counter()).update(sequences)
                elif record.type is RecordType.TERMINAL:
                    outcomes.append(unpack(record.body)["outcome"])
            assert reader.damage.corrupt_records == 0, reader.damage.faults
        assert not moment.opened or list(store.runs_found()), "it was told to be open"
        for producer, promised in moment.promised.items():
            counts = stored.get(producer, Counter())
            assert set(counts.values()) <= {1}, "an event is there twice"
            assert set(range(1, promised + 1)) <= set(counts), f"{promised} were promised, {len(counts)} are there"
        assert len(outcomes) <= 1
        assert moment.outcome is None or outcomes == [moment.outcome.value]
        for found in store.runs_found():
            recover_run(disk, store, found, itertools.count(2_000).__next__, lambda: 8)
        assert everything(disk) == after, "a second recovery changes something"


def everything(disk: SimulatedDisk) -> dict[str, bytes]:
    """All files and what is in them."""
    found = {}
    for directory in ("/state/journals", "/state/traces", "/state/quarantine"):
        for name in disk.list_directory(directory):
            path = f"{directory}/{name}"
            found[path] = disk.read(path, 0, disk.size(path))
    return found


async def try_one(ending: Ending, trouble: Trouble, log: Log) -> Stage:
    """One life with one fault, and everything looked at."""
    log.lines.clear()
    stage = Stage()
    stage.make_trouble(trouble)
    await play(stage, ending)
    assert stage.fired, "the fault never fired"
    check_told(stage, trouble, log.lines)
    refused = [m for m in stage.agent.heard if isinstance(m, messages.Error) and m.id == 1]
    if refused:
        await open_again(stage, ending, trouble, refused[0])
    else:
        stage.end_trouble()
        check_over(stage, ending)
        if any(operation == "unlink" for operation, *_ in stage.fired):
            stage.store.sweep_temporary_files()  # as the next start does
        assert stage.temporary_files() == []
    stage.remember()
    for moment in stage.moments:
        check_moment(moment)
    return stage


async def open_again(stage: Stage, ending: Ending, trouble: Trouble, refused: messages.Error) -> None:
    """A run that could not be opened has never been: the next one, when the disk works, is as any other."""
    assert (refused.code, refused.retryable) == ("disk-failed", True)
    assert not stage.opened
    assert stage.disk.open_files() == 0
    if trouble.how is How.A_WHILE:
        await trio.sleep(WELL_AGAIN_S)
    stage.end_trouble()
    after = Stage("next", stage.disk)
    await play(after, ending)
    check_over(after, ending)


@pytest.mark.parametrize("ending", Ending, ids=lambda ending: ending.name.lower())
@pytest.mark.parametrize("thin", [13, pytest.param(1 if figures.is_full() else 3, marks=pytest.mark.bed)], ids=["some", "many"])
async def test_each_call_fails_in_turn_and_nothing_acknowledged_is_lost(
    ending: Ending, thin: int, autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    calls = await calls_of(ending)
    tried, fired, stalled, flooded, late, hit = 0, 0, 0, 0, 0, set()
    for trouble in troubles(calls, thin):
        try:
            stage = await try_one(ending, trouble, log)
        except BaseException as error:
            error.add_note(f"{trouble} ({calls[trouble.call]})")
            raise
        tried += 1
        fired += len(stage.fired)
        stalled += bool(stage.stalls)
        flooded += stage.flooded
        late += stage.owner.core.export_error is not None
        hit.add(trouble.call)
    print(f"{len(hit)} of {len(calls)} calls, {tried} faults, {fired} calls failed", end=", ")
    print(f"{stalled} stalls, {flooded} floods, {late} late files")
    assert thin > 3 or len(hit) == sum(operation in FAILURES for operation in calls), "every call was hit"
    assert stalled > tried / 20
    assert flooded > tried / 20
    assert late > tried / 20
    figures.record(BED, "faults", tried)
    figures.record(BED, "calls that failed", fired)
    figures.record(BED, "runs that stalled", stalled)
    figures.record(BED, "trace files that came later", late)


@pytest.mark.parametrize("operation", ["size", "read", "write_file", "rename"])
async def test_a_running_document_that_could_not_be_written_comes_by_timer(
    operation: str, autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    """Nobody asks for it, and nothing more is sent."""
    stage = Stage()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.owner.run, 1)
        await stage.agent.answer(1)
        await stage.agent.send(3)
        stage.disk.fail_nth(operation, 1, errno.ENOSPC, times=3)
        await trio.sleep(10)
        assert stage.disk.faults_left == 0
        document = stage.document()
        assert document is not None
        assert document["session"]["integrity"]["stored"] == 3
        nursery.cancel_scope.cancel()
    assert len([line for line in log.lines if os.strerror(errno.ENOSPC) in line]) == 1, "said once"


async def test_a_sync_that_failed_and_lost_its_bytes_is_not_believed_the_second_time(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    """As Linux has it: the pages count as clean, reads see them, the next sync succeeds, and the disk does not have them."""
    syncs = (await calls_of(Ending.ENDS)).count("sync")
    for number in range(2, syncs + 1):
        stage = Stage()
        stage.disk.fail_nth("sync", number, errno.EIO, effect=Effect.LOST)
        await play(stage, Ending.ENDS)
        assert stage.disk.fired == {("sync", "EIO", "lost"): 1}
        check_over(stage, Ending.ENDS)
    assert syncs > 5
