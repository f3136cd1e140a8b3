"""Spans and logs as lines of OTLP/JSON, from a producer's batches.

Pure. Owns the fields of a span and of a log record. Holds open spans only; which batches there are is ``render``'s to find.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from collectord.export.values import ENCODED_PREFIX, any_value, attribute_list, clean_attributes, clean_text, mark_of
from collectord.model import SEVERITY_NAMES, Attributes, Event, EventKind
from collectord.wire.events import SPAN_END, SPAN_START

Batches = Iterable[tuple[int, int, list[Event]]]
"""Whose, the first sequence, and the events."""

UNFINISHED = "collectord.span.unfinished"
MESSAGE = "collectord.span.message"
"""A message that came without a status: OTLP has no place for it."""

_SPAN_UPDATE = int(EventKind.SPAN_UPDATE)
_SPAN_EVENT = int(EventKind.SPAN_EVENT)
_LOG = int(EventKind.LOG)
_BODY = "log.body"


class _Open:
    """A span while it is open."""

    __slots__ = ("attributes", "events", "name", "start")

    def __init__(self, start: Event) -> None:
        self.start = start
        self.name: str = start[4]
        self.attributes: Attributes = start[6]
        self.events: list[Event] = []


class SpanLines:
    """The spans of one producer.

    Args:
        producer: whose.
        trace_id: in hex.
    """

    def __init__(self, producer: int, trace_id: str) -> None:
        self._producer = producer
        self._trace_id = trace_id
        self._open: dict[int, _Open] = {}

    def lines(self, batches: Batches) -> Iterator[bytes]:
        """One line a span: those that ended, in that order, then those that did not, in the order of their start."""
        for producer, first_sequence, events in batches:
            own = producer == self._producer
            for sequence, event in enumerate(events, first_sequence):
                kind = event[0]
                if kind == SPAN_START:
                    if own:
                        self._open[sequence] = _Open(event)
                elif kind <= SPAN_END:
                    reference = self._mine(event[2], own)
                    if reference is None:
                        continue
                    if kind == SPAN_END:
                        span = self._open.pop(reference, None)
                        if span is not None:
                            yield self._line(span, event)
                    else:
                        self._add(reference, event)
        for span in self._open.values():
            yield self._line(span, None)

    def _mine(self, reference: Any, own: bool) -> int | None:
        """The sequence that a reference names, if it is one of this producer's spans."""
        if type(reference) is int:
            return reference if own else None
        return reference[1] if reference[0] == self._producer else None

    def _add(self, reference: int, event: Event) -> None:
        span = self._open.get(reference)
        if span is None:
            return  # its start was in a corrupt record: the damage is counted, and there is no span to add to
        if event[0] == _SPAN_UPDATE:
            span.attributes.update(event[3])
            if event[4] is not None:
                span.name = event[4]
        else:
            span.events.append(event)

    def _line(self, span: _Open, end: Event | None) -> bytes:
        try:
            return orjson.dumps(self._span(span, end))
        except TypeError:  # some text is not Unicode: clean it all, and say where
            return orjson.dumps(self._span(*_cleaned(span, end)))

    def _span(self, span: _Open, end: Event | None) -> dict[str, Any]:
        start = span.start
        document: dict[str, Any] = {"traceId": self._trace_id, "spanId": start[2].hex()}
        if start[3] is not None:
            document["parentSpanId"] = start[3].hex()
        document["name"] = span.name
        document["kind"] = start[5]
        document["startTimeUnixNano"] = str(start[1])
        attributes = span.attributes
        if end is not None:
            document["endTimeUnixNano"] = str(end[1])
            if end[5]:
                attributes.update(end[5])
            if end[4] is not None and not end[3]:
                attributes[MESSAGE] = end[4]
        else:
            attributes[UNFINISHED] = True
        document["attributes"] = attribute_list(attributes)
        if span.events:
            document["events"] = [
                {"timeUnixNano": str(event[1]), "name": event[3], "attributes": attribute_list(event[4])} for event in span.events
            ]
        if len(start) == 8 and start[7]:
            document["links"] = [
                {"traceId": link[0].hex(), "spanId": link[1].hex(), "attributes": attribute_list(link[2])} for link in start[7]
            ]
        if end is not None and end[3]:
            document["status"] = {"code": end[3]} if end[4] is None else {"code": end[3], "message": end[4]}
        return document


def _cleaned(span: _Open, end: Event | None) -> tuple[_Open, Event | None]:
    """A copy of a span and its end whose text is Unicode, with a mark beside each attribute that was not.

    The span holds the attributes of its end already: there was a first try.
    """
    start = list(span.start)
    if len(start) == 8:
        start[7] = [[link[0], link[1], clean_attributes(link[2])] for link in start[7]]
    copy = _Open(start)
    copy.name = clean_text(span.name)
    copy.attributes = clean_attributes(span.attributes)
    if copy.name != span.name:
        copy.attributes.setdefault(f"{ENCODED_PREFIX}span.name", "surrogates")
    copy.events = [_cleaned_event(event) for event in span.events]
    if end is None:
        return copy, None
    message = None if end[4] is None else clean_text(end[4])
    if message != end[4] and end[3]:
        copy.attributes.setdefault(f"{ENCODED_PREFIX}span.status.message", "surrogates")
    return copy, [*end[:4], message, {}]


def _cleaned_event(event: Event) -> Event:
    name, attributes = clean_text(event[3]), clean_attributes(event[4])
    if name != event[3]:
        attributes.setdefault(f"{ENCODED_PREFIX}event.name", "surrogates")
    return [*event[:3], name, attributes]


class LogLines:
    """The logs of one producer.

    Args:
        producer: whose.
        trace_id: in hex.
    """

    def __init__(self, producer: int, trace_id: str) -> None:
        self._producer = producer
        self._trace_id = trace_id

    def lines(self, batches: Batches) -> Iterator[bytes]:
        """One line a log record, in order."""
        for producer, _, events in batches:
            if producer != self._producer:
                continue
            for event in events:
                if event[0] == _LOG:
                    yield self._line(event)

    def _line(self, event: Event) -> bytes:
        body, attributes = event[3], event[4]
        try:
            return orjson.dumps(self._record(event, body, attributes, mark_of(body)))
        except TypeError:
            told = clean_attributes({_BODY: body})
            mark = told.get(ENCODED_PREFIX + _BODY) or mark_of(body)
            return orjson.dumps(self._record(event, told[_BODY], clean_attributes(attributes), mark))

    def _record(self, event: Event, body: Any, attributes: Attributes, mark: str | None) -> dict[str, Any]:
        if mark is not None:
            attributes = {ENCODED_PREFIX + _BODY: mark, **attributes}
        document: dict[str, Any] = {
            "timeUnixNano": str(event[1]),
            "severityNumber": event[2],
            "severityText": SEVERITY_NAMES[event[2]],
            "body": any_value(body),
            "attributes": attribute_list(attributes),
            "traceId": self._trace_id,
        }
        if event[5] is not None:
            document["spanId"] = event[5].hex()
        return document
