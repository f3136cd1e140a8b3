"""What a run's events add up to: open spans, counts, usage, and per producer what comes next.

Pure. The same fold serves the daemon (each batch as it comes) and the export (each record as it is read), so that `status`,
the acknowledgement and the trace file cannot disagree. Memory is bounded by open spans and producers, not by events.
"""

from __future__ import annotations

from typing import Any, Final

from collectord.limits import OPEN_SPAN_NAME_MAX_CHARACTERS, OPEN_SPANS_MAX
from collectord.model import Event, EventKind
from collectord.session.usage import KEYS, Usage, relevant
from collectord.wire.events import Refusal

SPAN_START: Final = int(EventKind.SPAN_START)
SPAN_UPDATE: Final = int(EventKind.SPAN_UPDATE)
SPAN_EVENT: Final = int(EventKind.SPAN_EVENT)
SPAN_END: Final = int(EventKind.SPAN_END)
LOG: Final = int(EventKind.LOG)

_GAPS_LISTED_MAX: Final = 1_000
"""Why: a client that skips at every batch must not fill our memory; what comes beyond widens the last gap listed."""


OpenSpan = list[Any]
"""What must be known of a span while it is open (its attributes are in the journal). A list and not an object, since one is
made for every span that starts, in the daemon's hottest loop; the names of its elements follow."""

NAME: Final = 0
SPAN_ID: Final = 1
PARENT_ID: Final = 2
STARTED_AT: Final = 3
POSITION: Final = 4
USAGE: Final = 5
"""The attributes that ``usage`` reads, or None."""
BELOW: Final = 6
"""Whether a span below it reports usage, so that its own is a roll-up."""


class Producer:
    """One writing connection of the run."""

    __slots__ = ("next_sequence", "number", "open", "refused")

    def __init__(self, number: int) -> None:
        self.number = number
        self.next_sequence = 1
        self.refused = 0
        self.open: dict[int, OpenSpan] = {}


class Ledger:
    """The sums of one run."""

    __slots__ = (
        "_by_id",
        "client_lost",
        "corrupt_records",
        "duplicates",
        "errors",
        "gaps",
        "last_event_at",
        "last_position",
        "logs",
        "open_spans",
        "producers",
        "refused",
        "spans",
        "torn_bytes",
        "usage",
    )

    def __init__(self) -> None:
        self.producers: dict[int, Producer] = {}
        self.last_position = 0
        self.last_event_at: int | None = None
        self.spans = 0
        self.errors = 0
        self.logs = 0
        self.open_spans = 0
        self.duplicates = 0
        self.client_lost = 0
        self.torn_bytes = 0
        self.corrupt_records = 0
        self.refused: dict[str, int] = {}
        self.gaps: list[dict[str, Any]] = []
        self.usage = Usage()
        self._by_id: dict[bytes | None, OpenSpan] = {}

    # ------------------------------------------------------------ events

    def apply(self, producer: Producer, first_sequence: int, events: list[Event]) -> list[Refusal]:
        """Take in events that are sound in themselves; those that name no open span are refused.

        Args:
            producer: whose events; ``next_sequence`` is advanced over all of them, the refused ones too.
            first_sequence: of the first event.
            events: checked by ``wire.events``.

        Returns:
            What was refused, by index. Positions are given to the others only, in order.
        """
        refused: list[Refusal] = []
        own = producer.open
        by_id = self._by_id
        reports_nothing = KEYS.isdisjoint
        position = self.last_position
        room = OPEN_SPANS_MAX - self.open_spans
        started = 0
        last: Event | None = None
        sequence = first_sequence - 1
        for sequence, event in enumerate(events, first_sequence):
            kind = event[0]
            if kind == SPAN_START:
                if room <= 0:
                    refused.append(Refusal(sequence - first_sequence, "spans-too-many"))
                    continue
                room -= 1
                started += 1
                position += 1
                last = event
                span_id, name, attributes = event[2], event[4], event[6]
                if len(name) > OPEN_SPAN_NAME_MAX_CHARACTERS:
                    name = name[:OPEN_SPAN_NAME_MAX_CHARACTERS]
                usage = None if reports_nothing(attributes) else relevant(attributes)
                own[sequence] = by_id[span_id] = [name, span_id, event[3], event[1], position, usage, False]
                continue
            if kind == SPAN_END:
                reference = event[2]
                found = own.pop(reference, None) if type(reference) is int else self._pop(reference)
                if found is None:
                    refused.append(Refusal(sequence - first_sequence, self._why_not_open(reference, sequence)))
                    continue
                room += 1
                position += 1
                last = event
                span_id = found[SPAN_ID]
                named = by_id.pop(span_id, None)
                if named is not found and named is not None:
                    by_id[span_id] = named  # another open span has the same id, and was started later
                if event[3] == 2:
                    self.errors += 1
                attributes = event[5]
                if not reports_nothing(attributes):
                    _keep_usage(found, attributes)
                if found[USAGE] is not None or found[BELOW]:
                    self._count_usage(found)
                continue
            if kind in (SPAN_UPDATE, SPAN_EVENT):
                reference = event[2]
                found = own.get(reference) if type(reference) is int else self._get(reference)
                if found is None:
                    refused.append(Refusal(sequence - first_sequence, self._why_not_open(reference, sequence)))
                    continue
                if kind == SPAN_UPDATE:
                    if event[4] is not None:
                        found[NAME] = event[4][:OPEN_SPAN_NAME_MAX_CHARACTERS]
                    if not reports_nothing(event[3]):
                        _keep_usage(found, event[3])
            elif kind == LOG:
                self.logs += 1
            position += 1
            last = event
        self.open_spans = OPEN_SPANS_MAX - room
        self.spans += started
        if last is not None:
            self.last_position = position
            self.last_event_at = last[1]
        producer.next_sequence = sequence + 1
        return refused

    def refuse(self, producer: Producer, code: str, count: int) -> None:
        """Count refused events; the producer's sequence is advanced by whoever refuses."""
        producer.refused += count
        self.refused[code] = self.refused.get(code, 0) + count

    def miss(self, producer: Producer, first_sequence: int, count: int, reason: str) -> None:
        """Count a stretch of events that will never come, and go on behind it."""
        self.client_lost += count
        producer.next_sequence = first_sequence + count
        if len(self.gaps) < _GAPS_LISTED_MAX:
            gap = {"producer": producer.number, "first_sequence": first_sequence, "count": count, "reason": reason}
            self.gaps.append(gap)
        else:
            self.gaps[-1]["count"] += count

    # ------------------------------------------------------------ what others ask

    def producer(self, number: int) -> Producer:
        """The producer of that number, new or known."""
        found = self.producers.get(number)
        if found is None:
            found = self.producers[number] = Producer(number)
        return found

    @property
    def stored(self) -> int:
        """How many events have a position."""
        return self.last_position

    @property
    def refused_total(self) -> int:
        """How many events were refused, for all reasons."""
        return sum(self.refused.values())

    def innermost(self) -> OpenSpan | None:
        """The open span that was started last, or None."""
        latest: OpenSpan | None = None
        for producer in self.producers.values():
            if producer.open:
                span = producer.open[next(reversed(producer.open))]
                if latest is None or span[POSITION] > latest[POSITION]:
                    latest = span
        return latest

    # ------------------------------------------------------------ inside

    def _get(self, reference: list[int]) -> OpenSpan | None:
        producer = self.producers.get(reference[0])
        return None if producer is None else producer.open.get(reference[1])

    def _pop(self, reference: list[int]) -> OpenSpan | None:
        producer = self.producers.get(reference[0])
        return None if producer is None else producer.open.pop(reference[1], None)

    def _why_not_open(self, reference: int | list[int], sequence: int) -> str:
        if type(reference) is list:
            producer = self.producers.get(reference[0])
            known = producer is not None and reference[1] < producer.next_sequence
        else:
            known = reference < sequence  # type: ignore[operator]
        return "span-ended" if known else "span-unknown"

    def _count_usage(self, span: OpenSpan) -> None:
        """Count an ended span if it is a leaf, and tell those above it that they are none."""
        if not (span[BELOW] or self.usage.count(span[USAGE])):
            return
        above = self._by_id.get(span[PARENT_ID])
        while above is not None and not above[BELOW]:  # ends at a loop too: it meets a span that it has told already
            above[BELOW] = True
            above = self._by_id.get(above[PARENT_ID])


def _keep_usage(span: OpenSpan, attributes: dict[str, Any]) -> None:
    if span[USAGE] is None:
        span[USAGE] = relevant(attributes)
    else:
        span[USAGE].update(relevant(attributes))
