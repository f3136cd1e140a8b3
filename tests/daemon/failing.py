"""A whole life of a run on a disk that fails: real owner, real journal, real document, and agents that keep what they heard.

Nothing waits for the test here: every call is carried out at once, and time is trio's mock clock, so that what comes by timer
comes. What each agent was told is kept, and compared with what is on the disk at any moment, after a power cut too.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

import msgpack
import trio
import trio.testing
from attrs import define, frozen

from collectord.daemon.deriver import OwedExports, derive
from collectord.daemon.owner import RunOwner
from collectord.errors import DiskError
from collectord.export.request import RenderRequest, RenderResult
from collectord.model import CrashReason, Outcome, RecordType, Verdict
from collectord.session import inputs
from collectord.session.state import TERMINAL
from collectord.wire import messages
from collectord.wire.events import batch_from
from tests.daemon.bench import Gates, Listener, World
from tests.simulation.disk import Effect, Failure, SimulatedDisk

_ALL = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS)

FAILURES: dict[str, tuple[tuple[int, ...], tuple[Effect, ...]]] = {
    "create": ((*_ALL, errno.EMFILE), (Effect.NOTHING,)),
    "write": (_ALL, (Effect.PART, Effect.NOTHING, Effect.WHOLE)),
    "sync": ((errno.EIO, errno.ENOSPC, errno.EDQUOT), (Effect.LOST, Effect.NOTHING, Effect.WHOLE)),
    "close": ((errno.EIO, errno.ENOSPC, errno.EDQUOT), (Effect.WHOLE,)),
    "write_file": ((*_ALL, errno.EMFILE), (Effect.PART, Effect.NOTHING, Effect.LOST)),
    "rename": (_ALL, (Effect.NOTHING, Effect.WHOLE)),
    "unlink": ((errno.EIO, errno.EROFS), (Effect.NOTHING, Effect.WHOLE)),
    "sync_directory": ((errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE), (Effect.LOST, Effect.NOTHING)),
    "open_append": ((*_ALL, errno.EMFILE), (Effect.NOTHING,)),
    "truncate": ((*_ALL, errno.EMFILE), (Effect.NOTHING, Effect.PART, Effect.WHOLE)),
    "read": ((errno.EIO, errno.EMFILE), (Effect.NOTHING,)),
    "size": ((errno.EIO,), (Effect.NOTHING,)),
}
"""Each operation, how the kernel may let it fail, and how much of it is done all the same."""


class How(Enum):
    """For how long an operation fails."""

    ONCE = "once"
    TWICE = "twice in a row"
    A_WHILE = "until the disk is well again"


FLOOD_MAX = 1_000
"""After so many small batches nothing more may be taken, at a limit of a few kilobytes."""

WELL_AGAIN_S = 100.0
"""After what time a disk that fails for a while works again."""


@frozen
class Trouble:
    """One fault.

    Attributes:
        call: which operation of the life fails, from 0.
        error: the errno.
        effect: how much of it is done all the same.
        how: for how long.
    """

    call: int
    error: int
    effect: Effect
    how: How

    def __str__(self) -> str:
        return f"call {self.call}: {errno.errorcode[self.error]}, {self.effect.value} of it done, {self.how.value}"


@define
class Moment:
    """The disk as a power cut at one moment may leave it, and what had been told by then."""

    disks: list[SimulatedDisk]
    promised: dict[int, int]
    opened: bool
    outcome: Outcome | None


class AtOnce(Gates):
    """Threads and renderer that do at once what they are told."""

    async def _pass(self, kind: str) -> None:
        await trio.lowlevel.checkpoint()

    async def render(self, request: RenderRequest, urgent: bool) -> RenderResult:
        """As a renderer process answers: whatever the disk says becomes ``export-failed``."""
        try:
            return await super().render(request, urgent)
        except OSError as error:
            raise DiskError("export-failed", f"{error.strerror} ({error.filename or 'while writing'})") from None


class Agent(Listener):
    """A connection that keeps what it heard, and can wait for an answer."""

    def __init__(self, world: Stage, producer: int) -> None:
        super().__init__(world)
        self.stage = world
        self.producer = producer
        self.sent = 0
        self.promised = 0
        self._heard = trio.Event()

    def say(self, message: messages.Answer) -> None:
        """Hear, and check at once."""
        self.heard.append(message)
        if isinstance(message, messages.Ack | messages.Flushed | messages.Detached):
            self.stage.check_promise(self, message.sequence)
        else:
            self.stage.check_said(message)
        self._heard.set()
        self._heard = trio.Event()

    async def answer(self, request_id: int) -> messages.Answer:
        """Wait for it."""
        while not self.answers(request_id):
            await self._heard.wait()
        (answer,) = self.answers(request_id)
        return answer

    async def send(self, count: int) -> None:
        """That many logs, as soon as there is room for more, as a connection that is not read would be made to wait."""
        owner = self.stage.owner
        await owner.wait_for_room()
        self.post(count)

    def post(self, count: int) -> None:
        """That many logs, now."""
        first, now = self.sent + 1, self.stage.now
        batch: list[list[Any]] = [[5, now, 9, f"{self.producer}/{first + n}", {}, None] for n in range(count)]
        self.sent += count
        events = inputs.Events(now, self.producer, batch_from(first, batch, msgpack.packb(batch)))
        self.stage.owner.post(events)


class Stage(World):
    """One run, the agents that write to it, and the trouble of its disk."""

    def __init__(self, session_id: str = "s", disk: SimulatedDisk | None = None) -> None:
        super().__init__(session_id, disk, AtOnce())
        self.agent = Agent(self, 1)
        self.owner.core._askers[1] = self.connection = self.agent
        self.agents: dict[int, Agent] = {1: self.agent}
        self.owed = OwedExports()
        self.owner._when_over = self._over
        self.moments: list[Moment] = []
        self.fired: list[tuple[str, ...]] = []
        self.opened = False
        self.told: Outcome | None = None
        self.stalls: list[str] = []
        self.flooded = 0
        self._request_id = 100
        self._words = ""

    @property
    def now(self) -> int:
        """Unix nanoseconds that only grow."""
        return next(self.clock)

    def next_id(self) -> int:
        """Of a request."""
        self._request_id += 1
        return self._request_id

    def _over(self, owner: RunOwner) -> None:
        """As the collector does it: a document that could not be written is owed."""
        if owner.core.state in TERMINAL and owner.core.export_error is not None:
            run = (0, self.stem, 1)
            self.owed.owe(run, partial(derive, self.bench, run, owner.segments))

    async def wait_until_nothing_is_owed(self) -> None:
        """Until every document stands under its name."""
        while self.owed.count:  # noqa: ASYNC110 — as `status` shows it; nobody tells when it is none
            await trio.sleep(1)

    # ------------------------------------------------------------ trouble

    def make_trouble(self, trouble: Trouble) -> None:
        """Let the disk fail so, from the given one of the calls that are still to come."""
        calls, failed = 0, 0
        well_at = 0.0
        self._words = os.strerror(trouble.error)

        def fails(operation: str, arguments: tuple[str, ...]) -> Failure | None:
            nonlocal calls, failed, well_at
            number, calls = calls, calls + 1
            errors, effects = FAILURES.get(operation, ((), ()))
            if number < trouble.call or trouble.error not in errors:
                return None
            if trouble.how is How.A_WHILE:
                well_at = well_at or trio.current_time() + WELL_AGAIN_S
                if trio.current_time() >= well_at:
                    return None
            elif failed >= (1 if trouble.how is How.ONCE else 2):
                return None
            failed += 1
            if failed <= 2:
                self.remember()
            self.fired.append((operation, *arguments))
            return Failure(trouble.error, trouble.effect if trouble.effect in effects else effects[0])

        self.disk.trouble = fails

    def end_trouble(self) -> None:
        """The disk works."""
        self.disk.trouble = None

    def remember(self) -> None:
        """What a power cut now would leave, in three of the legal ways, beside what was told."""
        dice = random.Random(len(self.disk.operations))
        cuts: list[Callable[[list[int]], int]] = [min, max, dice.choice]
        promised = {number: agent.promised for number, agent in self.agents.items()}
        self.moments.append(Moment([self.disk.power_cut(cut) for cut in cuts], promised, self.opened, self.told))

    # ------------------------------------------------------------ what is promised

    def check_promise(self, agent: Agent, sequence: int) -> None:
        """All up to there is durable, and was sent."""
        stored = self.stored().get(agent.producer, Counter())
        missing = set(range(1, sequence + 1)) - set(stored)
        assert not missing, f"{agent.producer} was promised {sequence}, but {sorted(missing)} are not durable"
        assert sequence <= agent.sent
        agent.promised = max(agent.promised, sequence)

    def check_said(self, message: messages.Answer) -> None:
        """As every world does; and what was told is remembered."""
        super().check_said(message)
        if isinstance(message, messages.Opened):
            self.opened = True
        elif isinstance(message, messages.Terminal) and message.outcome.is_terminal:
            assert self.told in (None, message.outcome)
            self.told = message.outcome
        elif isinstance(message, messages.Stalled):
            self.stalls.append(message.message)

    def stored(self) -> dict[int, Counter[int]]:
        """How often each sequence of each producer is stored, durably."""
        found: dict[int, Counter[int]] = {}
        for record in self.records():
            if record.type is RecordType.EVENTS:
                sequences = range(record.first_sequence, record.first_sequence + record.count)
                found.setdefault(record.producer, Counter()).update(sequences)
        return found

    # ------------------------------------------------------------ a life

    async def flood(self) -> None:
        """On a disk that does not answer, send more and more: until nobody reads, which comes soon."""
        await trio.testing.wait_all_tasks_blocked()
        cause = self.owner.core.stall_cause
        if cause is None or self.owner.finished.is_set():
            return
        assert self._words in cause, f"`status` says of a disk that answers {self._words!r}: {cause}"
        for producer, asker in self.owner.core._askers.items():
            heard = [m for m in asker.heard if isinstance(m, messages.Stalled)]
            assert heard, f"producer {producer} was not told that the disk does not answer"
            assert heard[-1].code == "disk-failed"
        before = self.agent.sent
        while not self.owner.is_behind:
            self.agent.post(1)
            assert self.agent.sent - before < FLOOD_MAX, "it takes more and more into memory"
        self.flooded += 1


class Ending(Enum):
    """How a life ends."""

    ENDS = "the owner ends it"
    CRASHES = "somebody else reports its crash"
    GOES = "the owner vanishes"


async def live(stage: Stage, ending: Ending) -> None:
    """Open, some groups, a running export, a participant, a flush with export, more groups, the end.

    Every request is waited for, events only for room; where the disk does not answer, more is sent.
    """
    owner, agent = stage.owner, stage.agent
    first = await agent.answer(1)
    if isinstance(first, messages.Error):
        return
    await agent.send(3)
    await stage.flood()
    await agent.send(1)
    await trio.sleep(2)  # a running export comes by timer
    await stage.flood()
    helper = await _join(stage)
    await helper.send(2)
    await agent.send(1)
    await _flush(stage, agent)
    await agent.send(2)
    await stage.flood()
    await _leave(stage, helper)
    await _end(stage, ending)
    await owner.finished.wait()


async def _join(stage: Stage) -> Agent:
    helper, request_id = Agent(stage, 2), stage.next_id()
    stage.agents[2] = helper
    stage.owner.post(inputs.Join(stage.now, helper, request_id, 77, "helper", {}, b"h" * 16))
    await stage.flood()
    assert isinstance(await helper.answer(request_id), messages.Opened)
    return helper


async def _flush(stage: Stage, agent: Agent) -> None:
    request_id = stage.next_id()
    stage.owner.post(inputs.Flush(stage.now, agent, request_id, agent.producer, agent.sent, True))
    await stage.flood()
    answer = await agent.answer(request_id)
    if isinstance(answer, messages.Error):
        assert answer.code == "export-failed"
        assert answer.retryable
    else:
        assert isinstance(answer, messages.Flushed)
        assert answer.sequence >= 5


async def _leave(stage: Stage, helper: Agent) -> None:
    request_id = stage.next_id()
    left = inputs.ParticipantGone(stage.now, helper.producer, helper.sent, helper, request_id)
    stage.owner.post(left)
    await stage.flood()
    assert isinstance(await helper.answer(request_id), messages.Detached)
    assert helper.promised == helper.sent


async def _end(stage: Stage, ending: Ending) -> None:
    agent, owner, request_id = stage.agent, stage.owner, stage.next_id()
    if ending is Ending.ENDS:
        owner.post(inputs.End(stage.now, agent, request_id, Outcome.COMPLETED, None, None, True, agent.sent))
    elif ending is Ending.CRASHES:
        reporter = Agent(stage, 0)
        stage.agents[0] = reporter
        verdict = Verdict(CrashReason.REPORTED, "it broke")
        owner.post(inputs.Crash(stage.now, reporter, request_id, verdict, 0, None))
        await reporter.answer(request_id)
    else:
        owner.mark_owner_gone()
        owner.post(inputs.ExitInfo(stage.now, Verdict(CrashReason.PROCESS_DIED, "killed", "SIGKILL")))
    if ending is Ending.ENDS:
        answer = await agent.answer(request_id)
        assert isinstance(answer, messages.Terminal)
        assert answer.outcome is Outcome.COMPLETED


def count_calls(stage: Stage) -> list[str]:
    """Note which operations that may fail there are from now on; the list fills as they are made."""
    made: list[str] = []

    def note(operation: str, _: tuple[str, ...]) -> None:
        made.append(operation)

    stage.disk.trouble = note
    return made
