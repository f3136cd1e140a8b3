"""What a journal says about its run as a whole: the first pass of the export.

Pure. Uses the same ledger as the daemon, so that the file cannot count otherwise than `status` did. Memory is bounded by open
spans, producers and the state of the KV spaces; where participants joined, eight bytes a record more, to find each one's.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

from attrs import Factory, define

from collectord.model import OWNER_PRODUCER, Attributes, Event, EventKind, Outcome, Record, RecordType
from collectord.session.ledger import Ledger
from collectord.session.records import RunFacts, facts_from, unpack
from collectord.times import rfc3339

Located = tuple[int, int, Record]
"""A record with its segment's index and its offset."""

_SEGMENT_SHIFT = 48
"""An index and an offset in one 64-bit number: offsets end at 2**40."""


@define
class Participant:
    """One that joined the run."""

    producer: int
    pid: int
    command: str
    resource: Attributes
    joined_at: int
    resume_token: bytes = b""
    left_at: int | None = None
    detached: bool | None = None
    error: Attributes | None = None

    def as_dict(self) -> Attributes:
        """As ``session.participants`` lists it."""
        return {
            "producer": self.producer,
            "pid": self.pid,
            "command": self.command,
            "joined_at": rfc3339(self.joined_at),
            "left_at": None if self.left_at is None else rfc3339(self.left_at),
            "detached": self.detached,
            "error": self.error,
        }


@define
class RunSummary:
    """Everything about a run but its spans and logs."""

    facts: RunFacts
    ledger: Ledger = Factory(Ledger)
    attributes: Attributes = Factory(dict)
    spaces: dict[str, Attributes] = Factory(dict)
    participants: dict[int, Participant] = Factory(dict)
    terminal: Attributes | None = None
    end_requested: Attributes | None = None
    cancel_requested: Attributes | None = None
    resumed: Attributes | None = None
    notes: list[Attributes] = Factory(list)
    seam: int | None = None
    where: dict[int, array[int]] = Factory(dict)

    @property
    def outcome(self) -> str:
        """How the run stands."""
        return Outcome.RUNNING.value if self.terminal is None else str(self.terminal["outcome"])


def fold(located: Iterable[Located]) -> RunSummary | None:
    """Fold a whole journal; None where its first record is missing."""
    summary: RunSummary | None = None
    for segment, offset, record in located:
        if summary is None:
            if record.type is RecordType.OPENED:
                summary = begin(record)
            continue
        take(summary, record, segment << _SEGMENT_SHIFT | offset)
    return summary


def begin(opened: Record) -> RunSummary:
    """What is known of a run after its first record."""
    facts = facts_from(opened.body)
    summary = RunSummary(facts, attributes=dict(facts.attributes))
    summary.ledger.producer(OWNER_PRODUCER)
    return summary


def place(location: int) -> tuple[int, int]:
    """A location as the segment's index and the offset."""
    return location >> _SEGMENT_SHIFT, location & ((1 << _SEGMENT_SHIFT) - 1)


def take(summary: RunSummary, record: Record, location: int) -> None:
    """Take in one more record; ``location`` is where ``place`` leads back to."""
    if record.type is RecordType.EVENTS:
        _take_events(summary, record, location)
    elif record.type in (RecordType.REFUSED, RecordType.GAP, RecordType.DUPLICATES, RecordType.TORN):
        _take_loss(summary, record)
    else:
        _take_control(summary, record, location)


def _take_events(summary: RunSummary, record: Record, location: int) -> None:
    ledger = summary.ledger
    events: list[Event] = unpack(record.body)
    producer = ledger.producer(record.producer)
    ledger.last_position = record.first_position - 1  # further than what we know of, where a record before it was corrupt
    ledger.apply(producer, record.first_sequence, events)
    ledger.last_position = record.first_position + record.count - 1
    _take_state(summary, events)
    if summary.seam is not None:
        summary.where.setdefault(record.producer, array("Q")).append(location)
        for other in _others(events, record.producer):
            summary.where.setdefault(other, array("Q")).append(location)


def _others(events: list[Event], own: int) -> set[int]:
    """The producers whose spans are named by another's events."""
    found = set()
    for event in events:
        if EventKind.SPAN_UPDATE <= event[0] <= EventKind.SPAN_END and type(event[2]) is list:
            found.add(event[2][0])
    return found - {own}


def _take_state(summary: RunSummary, events: list[Event]) -> None:
    for event in events:
        kind = event[0]
        if kind < EventKind.SESSION_UPDATE:
            continue
        if kind == EventKind.SESSION_UPDATE:
            summary.attributes.update(event[2])
        elif kind == EventKind.KV_SET:
            summary.spaces.setdefault(event[2], {})[event[3]] = event[4]
        elif kind == EventKind.KV_DELETE:
            summary.spaces.get(event[2], {}).pop(event[3], None)
        elif kind == EventKind.KV_CLEAR:
            summary.spaces.pop(event[2], None)


def _take_loss(summary: RunSummary, record: Record) -> None:
    ledger, body = summary.ledger, unpack(record.body)
    if record.type is RecordType.TORN:
        ledger.torn_bytes += body["bytes"]
        return
    producer = ledger.producer(record.producer)
    if record.type is RecordType.REFUSED:
        ledger.refuse(producer, body["code"], record.count)
        producer.next_sequence = record.first_sequence + record.count
    elif record.type is RecordType.GAP:
        ledger.miss(producer, record.first_sequence, body["count"], body["reason"])
    else:
        ledger.duplicates += record.count


def _take_control(summary: RunSummary, record: Record, location: int) -> None:
    body: Any = unpack(record.body)
    match record.type:
        case RecordType.JOINED:
            if summary.seam is None:
                summary.seam = location
            summary.ledger.producer(record.producer)
            summary.participants[record.producer] = Participant(
                record.producer, body["pid"], body["command"], body["resource"], body["at"], body["resume_token"]
            )
        case RecordType.LEFT:
            participant = summary.participants.get(record.producer)
            if participant is not None:
                participant.left_at, participant.detached = body["at"], body["detached"]
                participant.error = body["error"]
        case RecordType.END_REQUESTED:
            summary.end_requested = body
        case RecordType.CANCEL_REQUESTED:
            summary.cancel_requested = body
        case RecordType.RESUMED:
            _take_return(summary, record.producer, body)
        case RecordType.TERMINAL:
            summary.terminal = summary.terminal or body
        case RecordType.NOTE:
            summary.notes.append({"at": rfc3339(body["at"]), "kind": body["kind"], "text": body["text"]})
        case _:
            pass


def _take_return(summary: RunSummary, producer: int, body: Attributes) -> None:
    """A restart of the collector is no crash, and no secret either."""
    if producer == OWNER_PRODUCER:
        summary.resumed = body
    who = "the agent" if producer == OWNER_PRODUCER else f"participant {producer}"
    text = f"the collector was restarted, and {who} came back (pid {body['pid']})"
    summary.notes.append({"at": rfc3339(body["at"]), "kind": "resumed", "text": text})
