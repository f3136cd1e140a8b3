"""D7 behind a restart: each call of the recovery, of the resume and of the rest of the life fails in turn.

A life is cut short in one of several ways; the real recovery takes it up on a disk that fails, the agents come back with their
tokens as often as it takes, send again what they are asked for, and go on to the end. Everything is as in
``test_d7_every_call_fails``: nothing that was ever acknowledged is lost or doubled, on either side of the restart.
"""

from __future__ import annotations

import os
import random
from enum import Enum

import pytest
import trio
import trio.testing
from attrs import evolve

from collectord.daemon.owner import RunOwner
from collectord.daemon.revival import Revivalist, Revived
from collectord.errors import RefusedError
from collectord.limits import EXPORT_RETRY_MAX_S
from collectord.model import Outcome
from collectord.session import inputs
from collectord.wire import messages
from tests.daemon.failing import FAILURES, Agent, Ending, Stage, Trouble, count_calls
from tests.daemon.judging import PATIENCE_S, Log, check_moment, check_over, check_told, troubles
from tests.faults import figures
from tests.simulation.disk import SimulatedDisk

pytestmark = pytest.mark.usefixtures("little_memory")

BED = "each call behind a restart fails (D7, simulated disk)"
TOKENS = {1: b"r" * 16, 2: b"h" * 16}


class Cut(Enum):
    """How the first life is cut short."""

    DRAINED = "drained"
    KILLED = "killed"
    TORN = "killed in the middle of a record"
    POWER = "power cut"


async def first_life(cut: Cut) -> Stage:
    """A run with a participant, some of it acknowledged, some perhaps not; returns the stage of the next one."""
    stage = Stage()
    stage.owner.core.facts = evolve(stage.owner.core.facts, liveness="connection")  # nobody can say whether it is dead
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.owner.run, 1)
        await stage.agent.answer(1)
        await stage.agent.send(3)
        await trio.sleep(2)
        helper = Agent(stage, 2)
        stage.agents[2] = helper
        stage.owner.post(inputs.Join(stage.now, helper, stage.next_id(), 77, "helper", {}, TOKENS[2]))
        await helper.send(2)
        await trio.testing.wait_all_tasks_blocked()
        await stage.agent.send(2)
        if cut is Cut.DRAINED:
            stage.owner.drain()
            await stage.owner.finished.wait()
        elif cut is not Cut.POWER:
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    disk = stage.disk
    disk.close_all()
    if cut is Cut.POWER:
        disk = disk.power_cut(random.Random(3).choice)
    elif cut is Cut.TORN:
        (path,) = stage.store.segments_of(0, stage.stem, 1)
        fd = disk.open_append(path)
        disk.write(fd, [b"half a record"])
        disk.sync(fd)
        disk.close(fd)
    return next_stage(stage, disk)


def next_stage(before: Stage, disk: SimulatedDisk) -> Stage:
    """The same session on what is left, with agents that know what they knew."""
    stage = Stage("s", disk)
    for number, agent in before.agents.items():
        again = Agent(stage, number)
        again.sent, again.promised = agent.sent, agent.promised
        stage.agents[number] = again
    stage.agent = stage.agents[1]
    stage.opened = before.opened
    assert stage.agent.promised
    stage.store.sweep_temporary_files()
    return stage


class Restarted:
    """The next collector, as far as one session goes."""

    def __init__(self, stage: Stage, nursery: trio.Nursery) -> None:
        self._stage = stage
        self._nursery = nursery
        self.refused: RefusedError | None = None
        self.owner: RunOwner | None = None

    def adopt(self, revived: Revived) -> None:
        """Take in the run, as ``Collector.adopt``."""
        assert self.owner is None, "one owner a run"
        owner = RunOwner(revived.core, revived.stem, self._stage.bench, self._stage._over, revived.found)
        self.owner = self._stage.owner = owner
        self._nursery.start_soon(owner.run, None)

    def refuse(self, uid: int, stem: str, run: int, error: RefusedError | None) -> None:
        """Let nobody in, or let them again."""
        assert (uid, stem, run) == (0, self._stage.stem, 1)
        assert error is None or (error.code, error.retryable) == ("disk-failed", True), error
        self.refused = error

    async def come_back(self, agent: Agent) -> None:
        """As a client does: again and again while it is told to try again; then the rest of what it has sent."""
        while True:
            if self.owner is not None:
                request_id = self._stage.next_id()
                resume = inputs.Resume(self._stage.now, agent, request_id, TOKENS[agent.producer])
                self.owner.post(resume)
                answer = await agent.answer(request_id)
                if isinstance(answer, messages.Opened):
                    break
                assert isinstance(answer, messages.Error)
                assert (answer.code, answer.retryable) == ("disk-failed", True), answer
            await trio.sleep(1)
        assert (answer.producer, answer.run) == (agent.producer, 1)
        assert agent.promised < answer.next_sequence <= agent.sent + 1
        agent.promised = answer.next_sequence - 1
        self._stage.check_promise(agent, agent.promised)
        rest, agent.sent = agent.sent, answer.next_sequence - 1
        if rest > agent.sent:
            await agent.send(rest - agent.sent)


async def second_life(stage: Stage) -> None:
    """Recovery, resume, some more of everything, the end, and the document."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.owed.run)
        restarted = Restarted(stage, nursery)
        with trio.fail_after(PATIENCE_S + EXPORT_RETRY_MAX_S):
            await Revivalist(stage.bench, stage.owed, "boot", restarted.adopt, restarted.refuse).revive_all()
            agent, helper = stage.agents[1], stage.agents[2]
            await restarted.come_back(helper)
            await restarted.come_back(agent)
            await agent.send(1)
            await stage.flood()
            await helper.send(1)
            await stage.flood()
            await _leave(stage, helper)
            await stage.flood()
            request_id = stage.next_id()
            stage.owner.post(inputs.End(stage.now, agent, request_id, Outcome.COMPLETED, None, None, True, agent.sent))
            answer = await agent.answer(request_id)
            assert isinstance(answer, messages.Terminal)
            assert answer.outcome is Outcome.COMPLETED
            await stage.owner.finished.wait()
        with trio.fail_after(PATIENCE_S + EXPORT_RETRY_MAX_S):
            await stage.wait_until_nothing_is_owed()
        nursery.cancel_scope.cancel()


async def _leave(stage: Stage, helper: Agent) -> None:
    request_id = stage.next_id()
    stage.owner.post(inputs.ParticipantGone(stage.now, helper.producer, helper.sent, helper, request_id))
    assert isinstance(await helper.answer(request_id), messages.Detached)
    assert helper.promised == helper.sent


async def calls_of(cut: Cut) -> list[str]:
    """The operations from a restart to the end in which nothing fails."""
    stage = await first_life(cut)
    made = count_calls(stage)
    await second_life(stage)
    stage.end_trouble()
    check_over(stage, Ending.ENDS)
    return made


def check_told_at_a_start(stage: Stage, trouble: Trouble, logged: list[str]) -> None:
    """As in a life, but that before anybody is connected only the log can be told.

    Nobody is of a checkpoint that failed, nor of a trace file that could not be read by who looks for runs that are over.
    """
    words = os.strerror(trouble.error)
    quiet = {operation for operation, *_ in stage.fired} <= {"close", "write", "sync", "truncate"} and not stage.stalls
    quiet |= stage.fired == [("read", stage.store.trace_path(0, stage.stem, 1))]
    if not quiet and not any(words in line for line in logged):
        check_told(stage, trouble, logged)


async def try_one(cut: Cut, trouble: Trouble, log: Log) -> Stage:
    """One restart with one fault, and everything looked at."""
    log.lines.clear()
    stage = await first_life(cut)
    stage.make_trouble(trouble)
    await second_life(stage)
    assert stage.fired, "the fault never fired"
    stage.end_trouble()
    check_told_at_a_start(stage, trouble, log.lines)
    check_over(stage, Ending.ENDS)
    if any(operation == "unlink" for operation, *_ in stage.fired):
        stage.store.sweep_temporary_files()  # as the next start does
    assert stage.temporary_files() == []
    stage.remember()
    for moment in stage.moments:
        check_moment(moment)
    return stage


@pytest.mark.parametrize("cut", Cut, ids=lambda cut: cut.name.lower())
@pytest.mark.parametrize("thin", [41, pytest.param(1 if figures.is_full() else 7, marks=pytest.mark.bed)], ids=["some", "many"])
async def test_each_call_behind_a_restart_fails_in_turn_and_nothing_acknowledged_is_lost(
    cut: Cut, thin: int, autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    calls = await calls_of(cut)
    tried, fired, stalled, late = 0, 0, 0, 0
    for trouble in troubles(calls, thin):
        try:
            stage = await try_one(cut, trouble, log)
        except BaseException as error:
            error.add_note(f"{trouble} ({calls[trouble.call]})")
            raise
        tried += 1
        fired += len(stage.fired)
        stalled += bool(stage.stalls)
        late += stage.owner.core.export_error is not None
    print(f"{len(calls)} calls, {tried} faults, {fired} calls failed, {stalled} stalls, {late} late files")
    assert {operation for operation in calls if operation in FAILURES} >= {"write", "sync", "read", "rename"}
    assert tried > 500 / thin
    figures.record(BED, "faults", tried)
    figures.record(BED, "calls that failed", fired)
