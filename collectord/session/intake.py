"""From a batch of events to journal records: duplicates trimmed, gaps recorded, refusals kept apart, the rest stored.

Pure. Owns the cutting; what an event means is the ledger's, what is said of it the core's.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import Factory, define

from collectord.model import GapReason, Record, RecordType
from collectord.session import records
from collectord.session.ledger import Ledger, Producer
from collectord.wire.events import EventBatch


@define
class Intake:
    """What one batch came to.

    Attributes:
        records: to be appended, in order.
        refused: stretches ``(first_sequence, count, code)`` to tell the producer.
    """

    records: list[Record] = Factory(list)
    refused: list[tuple[int, int, str]] = Factory(list)


def take_in(ledger: Ledger, producer: Producer, batch: EventBatch, at: int) -> Intake:
    """Store what can be stored of a batch.

    Args:
        ledger: of the run; brought up to date.
        producer: who sent it; its ``next_sequence`` ends behind the batch.
        batch: as the edge decoded it.
        at: Unix nanoseconds, for the records about what was not stored.
    """
    intake = Intake()
    first, count = batch.first_sequence, len(batch.events)
    start = 0
    if first < producer.next_sequence:
        start = min(count, producer.next_sequence - first)
        ledger.duplicates += start
        intake.records.append(records.duplicates(producer.number, first, start, at))
    elif first > producer.next_sequence:
        intake.records.append(skip_to(ledger, producer, first, at))
    for begin, stop, code in _stretches(batch, start):
        if code is None:
            _store(ledger, producer, batch, begin, stop, at, intake)
        else:
            _refuse(ledger, producer, first + begin, stop - begin, code, at, intake)
            producer.next_sequence = first + stop
    return intake


def skip_to(ledger: Ledger, producer: Producer, sequence: int, at: int) -> Record:
    """The producer goes on at ``sequence``: what lies between was lost on its side, which is recorded as a gap."""
    first = producer.next_sequence
    ledger.miss(producer, first, sequence - first, GapReason.CLIENT_LOST.value)
    return records.gap(producer.number, first, sequence - first, at)


def _stretches(batch: EventBatch, start: int) -> Iterator[tuple[int, int, str | None]]:
    """The batch from ``start`` on as stretches ``(begin, stop, code)`` that the edge refused alike, or (None) did not."""
    begin = start
    pending: tuple[int, int, str] | None = None
    for refusal in batch.refused:
        if refusal.index < start:
            continue
        if pending is not None and pending[1] == refusal.index and pending[2] == refusal.code:
            pending = (pending[0], refusal.index + 1, refusal.code)
            continue
        if pending is not None:
            yield pending
            begin = pending[1]
        if refusal.index > begin:
            yield begin, refusal.index, None
        pending = (refusal.index, refusal.index + 1, refusal.code)
    if pending is not None:
        yield pending
        begin = pending[1]
    if begin < len(batch.events):
        yield begin, len(batch.events), None


def _store(ledger: Ledger, producer: Producer, batch: EventBatch, begin: int, stop: int, at: int, intake: Intake) -> None:
    """Store a stretch that is sound in itself; what names no open span is refused one by one."""
    first = batch.first_sequence
    position = ledger.last_position + 1
    whole = begin == 0 and stop == len(batch.events)
    events = batch.events if whole else batch.events[begin:stop]
    offset = begin
    for refusal in ledger.apply(producer, first + offset, events):
        index = offset + refusal.index
        position = _append(producer, batch, begin, index, position, intake)
        _refuse(ledger, producer, first + index, 1, refusal.code, at, intake)
        begin = index + 1
    _append(producer, batch, begin, stop, position, intake)


def _append(producer: Producer, batch: EventBatch, begin: int, stop: int, position: int, intake: Intake) -> int:
    """One record of events, if there are any; returns the position behind them."""
    count = stop - begin
    if count > 0:
        body = batch.body(begin, stop)
        sequence = batch.first_sequence + begin
        intake.records.append(Record(RecordType.EVENTS, body, producer.number, sequence, position, count))
    return position + count


def _refuse(ledger: Ledger, producer: Producer, sequence: int, count: int, code: str, at: int, intake: Intake) -> None:
    ledger.refuse(producer, code, count)
    intake.records.append(records.refused(producer.number, sequence, count, code, at))
    intake.refused.append((sequence, count, code))
