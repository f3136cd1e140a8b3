"""A run's core driven by hand, by a driver that keeps its three promises and believes nothing that is said too early."""

from __future__ import annotations

from typing import Any

import msgpack

from collectord.model import CrashReason, Outcome, Record, RecordType, Verdict
from collectord.session import inputs
from collectord.session.absent import Absent
from collectord.session.core import RunCore
from collectord.session.effects import ExportOrder, Say
from collectord.session.ledger import Ledger
from collectord.session.records import RunFacts, unpack
from collectord.wire import messages
from collectord.wire.events import batch_from

OWNER = "owner"


def facts() -> RunFacts:
    """A run like any other."""
    return RunFacts("s", 1, b"t" * 16, 1, 0, 42, 1, "boot", "host", "agent", "process", {}, {}, b"r" * 16)


def start(at: int = 1, name: str = "span", attributes: dict[str, Any] | None = None, parent: bytes | None = None) -> list[Any]:
    """A ``span_start``."""
    return [1, at, at.to_bytes(8, "big"), parent, name, 1, attributes or {}]


def end(reference: Any, attributes: dict[str, Any] | None = None, status: int = 0, at: int = 9) -> list[Any]:
    """A ``span_end``."""
    return [4, at, reference, status, None, attributes or {}]


def log(text: str = "x", at: int = 5) -> list[Any]:
    """A ``log``."""
    return [5, at, 9, text, {}, None]


class Drive:
    """One run, driven."""

    def __init__(self, absent: Absent | None = None, ledger: Ledger | None = None) -> None:
        self.core = RunCore(facts(), "/traces/s.json", OWNER if absent is None else None, ledger)
        self.durable: list[Record] = []
        self.pending: list[Record] = []
        self.said: list[Say] = []
        self.started: list[ExportOrder] = []
        self.renamed: list[ExportOrder] = []
        self.dropped: list[int] = []
        self.grace: list[float] = []
        self.more_time: list[float] = []
        self.ids = 100
        if absent is None:
            self.core.open(1)
        else:
            self.core.wait_for(absent)
        self.settle()

    def settle(self, fail: bool = False) -> None:
        """Perform what is to be done, until nothing is; syncs succeed unless told otherwise."""
        while True:
            effects = self.core.take()
            self.said += effects.say
            self.dropped += effects.drop
            if effects.grace_s is not None:
                self.grace.append(effects.grace_s)
            if effects.resume_again_s is not None:
                self.more_time.append(effects.resume_again_s)
            if effects.records:
                self.pending += effects.records
                if fail:
                    self.core.handle(inputs.SyncFailed("no space left on device"))
                else:
                    self._synced()
            if effects.start is not None:
                self.started.append(effects.start)
            if effects.rename is not None:
                self.renamed.append(effects.rename)
                self.core.handle(inputs.Renamed(effects.rename.number))
            if not (effects.records or effects.start or effects.rename or effects.say or effects.drop):
                return

    def _synced(self) -> None:
        self.durable += self.pending
        self.pending.clear()
        self.core.handle(inputs.Synced())

    def recover(self) -> None:
        """The disk works again: what was pending is durable."""
        self._synced()
        self.settle()

    def do(self, *happened: Any, fail: bool = False) -> None:
        """Let things happen in one group, and perform what follows."""
        for event in happened:
            self.core.handle(event)
        self.settle(fail)

    def rendered(self) -> None:
        """The document ordered last is ready."""
        self.do(inputs.Rendered(9, self.started[-1].number))

    # ------------------------------------------------------------ inputs

    def request(self) -> int:
        """A fresh request id."""
        self.ids += 1
        return self.ids

    def events(self, first: int, *events: list[Any], producer: int = 1) -> inputs.Events:
        """A batch."""
        batch = list(events)
        return inputs.Events(3, producer, batch_from(first, batch, msgpack.packb(batch)))

    def end(self, last: int = 0, wait: bool = True, outcome: Outcome = Outcome.COMPLETED, text: str | None = None) -> inputs.End:
        """The owner's end."""
        return inputs.End(4, OWNER, self.request(), outcome, text, None, wait, last)

    def crash(self, text: str = "boom", asker: Any = "reporter", producer: int = 0) -> inputs.Crash:
        """A report, marked as the connection would."""
        report = inputs.Crash(5, asker, self.request(), Verdict(CrashReason.REPORTED, text), producer, None)
        self.core.mark(report)
        return report

    def gone(self) -> None:
        """The owner vanishes: the mark alone."""
        self.core.mark(inputs.OwnerGone(6))

    def verdict(self) -> inputs.ExitInfo:
        """What is known of its death."""
        return inputs.ExitInfo(7, Verdict(CrashReason.PROCESS_DIED, "killed", "SIGKILL"))

    # ------------------------------------------------------------ what came of it

    def heard(self, to: Any, kind: type) -> list[Any]:
        """What somebody was told."""
        return [say.message for say in self.said if say.to == to and isinstance(say.message, kind)]

    def outcomes(self) -> list[str]:
        """The outcomes of all terminal records."""
        return [unpack(record.body)["outcome"] for record in self.durable if record.type is RecordType.TERMINAL]

    def terminal_body(self) -> Any:
        """The one terminal record."""
        (record,) = (record for record in self.durable if record.type is RecordType.TERMINAL)
        return unpack(record.body)

    def acknowledged(self) -> int:
        """The last sequence that the owner was acknowledged."""
        acks = self.heard(OWNER, messages.Ack)
        return max((ack.sequence for ack in acks), default=0)

    def stored(self) -> list[int]:
        """The sequences of the owner's durable events."""
        found: list[int] = []
        for record in self.durable:
            if record.type is RecordType.EVENTS and record.producer == 1:
                found += range(record.first_sequence, record.first_sequence + record.count)
        return found
