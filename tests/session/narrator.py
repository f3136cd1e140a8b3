"""A run's life as a text that can be read without reading code: what happened, and what followed from it.

A line that begins with ``>`` is something that happens; ``&`` is something that happens at the same moment, so that both are
handled before anything is done about either. The indented lines below say what followed, in the order in which it was done.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgpack

from collectord.model import CrashReason, Outcome, Record, RecordType, Verdict
from collectord.session import inputs
from collectord.session.core import RunCore
from collectord.session.effects import Effects, ExportOrder
from collectord.session.records import unpack
from collectord.wire import messages
from collectord.wire.events import batch_from
from tests.session.runs import facts, log

PRODUCERS = {"owner": 1, "child": 2}


class Narrator:
    """One run, driven by words."""

    def __init__(self) -> None:
        self.core = RunCore(facts(), "/traces/s.json", "owner")
        self.lines: list[str] = []
        self.disk_fails: str | None = None
        self.requests = 0
        self.happenings: list[tuple[str, Callable[..., Any]]] = [
            (r"owner opens the session", self._opens),
            (r"(owner|child) sends events? (\d+)(?:-(\d+))?( of which the last names no span)?", self._sends),
            (r"(owner|child) flushes( into the file)?, having sent (\d+)", self._flushes),
            (r"owner ends as (completed|failed), having sent (\d+)(, and does not wait)?", self._ends),
            (r"owner vanishes", lambda: self.core.mark(inputs.OwnerGone(6))),
            (r"all it had sent is read; the kernel says: (\w+)", self._verdict),
            (r"(\w+) reports a crash: (.*)", self._crash),
            (r"child joins", self._joins),
            (r"child (vanishes|detaches)", self._leaves),
            (r"(\w+) asks to cancel: (.*)", self._cancels),
            (r"the time to cancel is over", lambda: self.core.handle(inputs.GraceExpired(8))),
            (r"the running file is due", lambda: self.core.handle(inputs.ExportDue())),
            (r"document (\d+) is ready", lambda number: self.core.handle(inputs.Rendered(9, int(number)))),
            (r"document (\d+) fails: (.*)", lambda n, cause: self.core.handle(inputs.ExportFailed(9, int(n), cause))),
            (r"the disk is full", self._disk_fails),
            (r"the disk is tried again", self._disk_tried),
        ]

    def play(self, happening: str, at_once: bool = True) -> None:
        """Let something happen; unless more happens in the same moment, do what follows."""
        for pattern, act in self.happenings:
            found = re.fullmatch(pattern, happening)
            if found is not None:
                act(*found.groups())
                break
        else:
            raise AssertionError(f"nobody knows what this is: {happening}")
        if at_once:
            self._follow()

    # ------------------------------------------------------------ what happens

    def _request(self) -> int:
        self.requests += 1
        return self.requests

    def _opens(self) -> None:
        self.core.open(self._request())

    def _sends(self, who: str, first: str, last: str | None, bad: str | None) -> None:
        events: list[Any] = [log() for _ in range(int(first), int(last or first) + 1)]
        if bad:
            events[-1] = [4, 1, 7_000, 0, None, {}]
        batch = batch_from(int(first), events, msgpack.packb(events))
        self.core.handle(inputs.Events(3, PRODUCERS[who], batch))

    def _flushes(self, who: str, export: str | None, last: str) -> None:
        flush = inputs.Flush(3, who, self._request(), PRODUCERS[who], int(last), export is not None)
        self.core.handle(flush)

    def _ends(self, outcome: str, last: str, impatient: str | None) -> None:
        wait = impatient is None
        self.core.handle(inputs.End(4, "owner", self._request(), Outcome(outcome), None, None, wait, int(last)))

    def _verdict(self, signal: str) -> None:
        verdict = Verdict(CrashReason.PROCESS_DIED, f"the agent was killed by {signal}", signal)
        self.core.handle(inputs.ExitInfo(7, verdict))

    def _crash(self, who: str, text: str) -> None:
        producer = PRODUCERS.get(who, 0)
        report = inputs.Crash(5, who, self._request(), Verdict(CrashReason.REPORTED, text), producer, None)
        self.core.mark(report)
        self.core.handle(report)

    def _joins(self) -> None:
        self.core.handle(inputs.Join(2, "child", self._request(), 99, "worker", {}, b"x" * 16))

    def _leaves(self, how: str) -> None:
        asker, request = ("child", self._request()) if how == "detaches" else (None, 0)
        self.core.handle(inputs.ParticipantGone(3, 2, None, asker, request))

    def _cancels(self, who: str, reason: str) -> None:
        if who == "owner":
            self.core.handle(inputs.Cancel(4, who, self._request(), reason, True, None))
        else:
            self.core.handle(inputs.CancelRequested(4, who, self._request(), reason, 1))

    def _disk_fails(self) -> None:
        self.disk_fails = "no space left on device"

    def _disk_tried(self) -> None:
        self.disk_fails = None
        self._tell("disk: takes all that it had not")
        self.core.handle(inputs.Synced())

    # ------------------------------------------------------------ what follows

    def _tell(self, line: str) -> None:
        self.lines.append(f"    {line}")

    def _follow(self) -> None:
        before = self.core.state
        while (effects := self.core.take()) != Effects():
            self._perform(effects)
        if self.core.state is not before:
            self._tell(f"the run is {self.core.state.value}")

    def _fail(self, cause: str, first: bool) -> None:
        """As the owner task does it: a journal that cannot be begun is given up, any other waits for its disk."""
        if first:
            self.core.give_up(cause)
        else:
            self.core.handle(inputs.SyncFailed(cause))

    def _perform(self, effects: Effects) -> None:
        for record in effects.records:
            self._tell(f"disk: {'takes' if self.disk_fails is None else 'refuses'} {_of_record(record)}")
        spoken = list(effects.say)
        if effects.records and self.disk_fails is not None:
            first = effects.records[0].type is RecordType.OPENED
            self._fail(self.disk_fails, first)
        elif effects.records:
            self.core.handle(inputs.Synced())
        for say in spoken:
            self._tell(f"{say.to} hears: {_of_message(say.message)}")
        for number in effects.drop:
            self._tell(f"document {number} is dropped")
        if effects.rename is not None:
            self._tell(f"document {effects.rename.number} takes the name of the trace file")
            self.core.handle(inputs.Renamed(effects.rename.number))
        if effects.start is not None:
            self._tell(f"document {effects.start.number} is begun: {_of_order(effects.start, self.core)}")
        if effects.grace_s is not None:
            self._tell(f"the owner has {effects.grace_s:g} seconds")
        if effects.close:
            self._tell("the run is closed")


def _of_order(order: ExportOrder, core: RunCore) -> str:
    if order.terminal is not None:
        return f"the final one, as {unpack(order.terminal.body)['outcome']}"
    return "the final one, as crashed" if core.outcome.is_terminal else "of a run that goes on"


def _of_record(record: Record) -> str:
    body = unpack(record.body)
    whose = "owner" if record.producer == 1 else "child"
    first, last = record.first_sequence, record.first_sequence + record.count - 1
    stretch = f"event {first}" if first == last else f"events {first}-{last}"
    match record.type:
        case RecordType.EVENTS:
            return f"{stretch} of the {whose}"
        case RecordType.REFUSED:
            return f"that {stretch} of the {whose} is refused: {body['code']}"
        case RecordType.GAP:
            return f"that {body['count']} events of the {whose} from {first} on were lost on its side"
        case RecordType.DUPLICATES:
            return f"that {stretch} of the {whose} came again"
        case RecordType.END_REQUESTED:
            return f"that the end was asked for: {body['outcome']}"
        case RecordType.CANCEL_REQUESTED:
            return f"that somebody asks to cancel: {body['reason']}"
        case RecordType.TERMINAL:
            wanted = f", though it was to be {body['end_requested']}" if body.get("end_requested") else ""
            why = f" ({body['reason']}: {body['message']})" if "reason" in body else ""
            return f"THE OUTCOME: {body['outcome']}{why}{wanted}"
        case RecordType.NOTE:
            return f"a note: {body['text']}"
        case RecordType.LEFT:
            return f"that the {whose} {'detached' if body['detached'] else 'vanished'}"
        case _:
            return f"that the run was {record.type.name.lower()}"


def _of_message(message: messages.Answer) -> str:
    match message:
        case messages.Ack():
            refused = "".join(f", {count} from {first} on refused: {code}" for first, count, code in message.refused)
            return f"acknowledged up to {message.sequence}{refused}"
        case messages.Flushed():
            return f"flushed up to {message.sequence}"
        case messages.Terminal():
            file = "" if message.export_error is None else f", but there is no file: {message.export_error}"
            return f"the outcome is {message.outcome.value}{file}"
        case messages.Error():
            return f"error {message.code}"
        case messages.Opened():
            return f"opened, you are producer {message.producer}"
        case messages.CancelRequested():
            return f"you are asked to cancel: {message.reason}"
        case messages.CancelAnswer():
            return "the owner was told"
        case messages.Detached():
            return "detached"
        case messages.Stalled():
            return f"stalled: {message.message}"
        case _:
            raise AssertionError(message)


def narrate(script: str) -> str:
    """A transcript played again: its comments and happenings, and what follows from them now."""
    narrator = Narrator()
    lines = [line for line in script.splitlines() if not line.startswith("    ")]
    told: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        told.append(line)
        if line.startswith((">", "&")):
            narrator.play(line[2:], at_once=not following.startswith("&"))
            told += narrator.lines
            narrator.lines.clear()
    return "\n".join(told) + "\n"
