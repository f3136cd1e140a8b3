"""D7: each call that a life makes of the disk fails in turn, in every way, once, twice, and for a while.

Nothing is acknowledged that a power cut in that moment would take back; somebody is told, and why; no more is taken into memory
than the limit; and when the disk works again, so does the run: by timer, with the outcome that was asked for and every event
stored once. What a power cut at the fault leaves is recovered, and holds all that was promised by then.
"""

from __future__ import annotations

import errno
import os

import pytest
import trio
import trio.testing

from collectord.limits import EXPORT_RETRY_MAX_S
from collectord.wire import messages
from tests.daemon.failing import FAILURES, WELL_AGAIN_S, Ending, How, Stage, Trouble, count_calls, live
from tests.daemon.judging import PATIENCE_S, Log, check_moment, check_over, check_told, troubles
from tests.faults import figures
from tests.simulation.disk import Effect

pytestmark = pytest.mark.usefixtures("little_memory")

BED = "each call of a life fails (D7, simulated disk)"


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
