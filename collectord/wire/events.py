"""Events: their shapes, checked once, here, at the edge. What lies behind this module may trust every element.

Owns the layout of the arrays (docs/protocol.md, "Events"). Knows nothing of which spans are open: that a reference names
an open span is for ``session.ledger`` to say.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import msgpack
from attrs import define, field, frozen

from collectord.errors import PeerError
from collectord.limits import ATTRIBUTES_MAX, EVENTS_PER_MESSAGE_MAX
from collectord.model import SEVERITY_NAMES, Event, EventKind
from collectord.wire.skim import element_offsets
from collectord.wire.values import SCALARS, TIME_MAX, fault_of_attributes, fault_of_value, is_id

SPAN_START: Final = int(EventKind.SPAN_START)
SPAN_UPDATE: Final = int(EventKind.SPAN_UPDATE)
SPAN_END: Final = int(EventKind.SPAN_END)
LOG: Final = int(EventKind.LOG)
_ZERO_ID: Final = bytes(8)


@frozen
class Refusal:
    """One event that was not stored: its index in the batch and the code of the reason."""

    index: int
    code: str


@define
class EventBatch:
    """The events of one ``events`` message.

    Attributes:
        first_sequence: the producer's number of the first event, from 1.
        events: one array an event; where the event could not be decoded, an empty one (it is among the refused).
        raw: the msgpack array as it came.
        refused: what the edge refuses, in order of index.
    """

    first_sequence: int
    events: list[Event] = field(repr=False)
    raw: bytes = field(repr=False)
    refused: list[Refusal]
    _offsets: list[int] | None = field(default=None, repr=False)

    def body(self, start: int, stop: int) -> bytes:
        """The msgpack array of the events ``[start:stop]``, cut from the bytes that came: nothing is encoded again."""
        if start == 0 and stop == len(self.events):
            return self.raw
        if self._offsets is None:
            self._offsets = element_offsets(self.raw)
        header: bytes = msgpack.Packer().pack_array_header(stop - start)
        return header + self.raw[self._offsets[start] : self._offsets[stop]]


def _fault_of_reference(reference: Any) -> str | None:
    """References are a sequence of one's own, or ``[producer, sequence]``."""
    if type(reference) is int:
        return None if reference >= 1 else "span-unknown"
    if type(reference) is list and len(reference) == 2:
        producer, sequence = reference
        if type(producer) is int and type(sequence) is int:
            return None if producer >= 1 and sequence >= 1 else "span-unknown"
    return "event-malformed"


def _fault_of_links(links: Any) -> str | None:
    if type(links) is not list:
        return "event-malformed"
    if len(links) > ATTRIBUTES_MAX:
        return "attributes-too-many"
    for link in links:
        if type(link) is not list or len(link) != 3 or type(link[2]) is not dict:
            return "event-malformed"
        if not is_id(link[0], 16) or not is_id(link[1], 8):
            return "span-id-invalid"
        fault = fault_of_attributes(link[2])
        if fault is not None:
            return fault
    return None


def _fault_of_span_start(event: Event) -> str | None:
    if len(event) not in (7, 8):
        return "event-malformed"
    span_id, parent_id, name, kind, attributes = event[2:7]
    if type(name) is not str or type(kind) is not int or not 1 <= kind <= 5 or type(attributes) is not dict:
        return "event-malformed"
    if type(span_id) is not bytes or (parent_id is not None and type(parent_id) is not bytes):
        return "event-malformed"
    if not is_id(span_id, 8) or (parent_id is not None and not is_id(parent_id, 8)):
        return "span-id-invalid"
    if len(event) == 8:
        fault = _fault_of_links(event[7])
        if fault is not None:
            return fault
    return fault_of_attributes(attributes)


def _fault_of_span_update(event: Event) -> str | None:
    if len(event) != 5:
        return "event-malformed"
    reference, attributes, name = event[2:]
    if type(attributes) is not dict or (name is not None and type(name) is not str):
        return "event-malformed"
    return _fault_of_reference(reference) or fault_of_attributes(attributes)


def _fault_of_span_event(event: Event) -> str | None:
    if len(event) != 5:
        return "event-malformed"
    reference, name, attributes = event[2:]
    if type(name) is not str or type(attributes) is not dict:
        return "event-malformed"
    return _fault_of_reference(reference) or fault_of_attributes(attributes)


def _fault_of_span_end(event: Event) -> str | None:
    if len(event) != 6:
        return "event-malformed"
    reference, status, message, attributes = event[2:]
    if type(status) is not int or status not in (0, 1, 2) or type(attributes) is not dict:
        return "event-malformed"
    if message is not None and type(message) is not str:
        return "event-malformed"
    return _fault_of_reference(reference) or fault_of_attributes(attributes)


def _fault_of_log(event: Event) -> str | None:
    if len(event) != 6:
        return "event-malformed"
    severity, body, attributes, span_id = event[2:]
    if type(severity) is not int or severity not in SEVERITY_NAMES or type(attributes) is not dict:
        return "event-malformed"
    if span_id is not None and not is_id(span_id, 8):
        return "span-id-invalid" if type(span_id) is bytes else "event-malformed"
    return fault_of_value(body) or fault_of_attributes(attributes)


def _fault_of_session_update(event: Event) -> str | None:
    if len(event) != 3 or type(event[2]) is not dict:
        return "event-malformed"
    return fault_of_attributes(event[2])


def _fault_of_kv_set(event: Event) -> str | None:
    if len(event) != 5 or type(event[2]) is not str or type(event[3]) is not str:
        return "event-malformed"
    return fault_of_value(event[4])


def _fault_of_kv_delete(event: Event) -> str | None:
    return None if len(event) == 4 and type(event[2]) is str and type(event[3]) is str else "event-malformed"


def _fault_of_kv_clear(event: Event) -> str | None:
    return None if len(event) == 3 and type(event[2]) is str else "event-malformed"


_FAULT_OF: Final[dict[int, Callable[[Event], str | None]]] = {
    EventKind.SPAN_START: _fault_of_span_start,
    EventKind.SPAN_UPDATE: _fault_of_span_update,
    EventKind.SPAN_EVENT: _fault_of_span_event,
    EventKind.SPAN_END: _fault_of_span_end,
    EventKind.LOG: _fault_of_log,
    EventKind.SESSION_UPDATE: _fault_of_session_update,
    EventKind.KV_SET: _fault_of_kv_set,
    EventKind.KV_DELETE: _fault_of_kv_delete,
    EventKind.KV_CLEAR: _fault_of_kv_clear,
}


def fault_of_event(event: Any) -> str | None:
    """The code that says what is wrong with an event, or None where nothing is."""
    if type(event) is not list or not event or type(event[0]) is not int:
        return "event-malformed"
    check = _FAULT_OF.get(event[0])
    if check is None:
        return "event-unknown"
    if len(event) < 2 or type(event[1]) is not int:
        return "event-malformed"
    if not 0 <= event[1] <= TIME_MAX:
        return "time-invalid"
    return check(event)


def check_events(events: list[Any]) -> list[Refusal]:
    """What is to be refused of a decoded batch.

    The hottest loop of the daemon, and written out for that: events in the plain form in which clients write them (spans
    without links, references to one's own spans, attributes that are not nested) are passed by a short check. Anything else
    goes to ``fault_of_event``, which takes three times as long and whose verdict alone refuses. A test holds the two together.
    """
    refused: list[Refusal] = []
    for index, event in enumerate(events):
        try:
            kind = event[0]
            if kind == SPAN_START:
                if len(event) == 7:
                    kind, time, span_id, parent_id, name, span_kind, attributes = event
                    sound = True
                else:
                    kind, time, span_id, parent_id, name, span_kind, attributes, links = event
                    sound = links == []
                sound = (
                    sound
                    and type(span_id) is bytes
                    and len(span_id) == 8
                    and span_id != _ZERO_ID
                    and (parent_id is None or (type(parent_id) is bytes and len(parent_id) == 8 and parent_id != _ZERO_ID))
                    and type(name) is str
                    and type(span_kind) is int
                    and 1 <= span_kind <= 5
                )
            elif kind == SPAN_END:
                kind, time, reference, status, message, attributes = event
                sound = (
                    type(reference) is int
                    and reference >= 1
                    and type(status) is int
                    and 0 <= status <= 2
                    and (message is None or type(message) is str)
                )
            elif kind == LOG:
                kind, time, severity, body, attributes, span_id = event
                sound = (
                    type(severity) is int
                    and severity in SEVERITY_NAMES
                    and type(body) in SCALARS
                    and (span_id is None or (type(span_id) is bytes and len(span_id) == 8 and span_id != _ZERO_ID))
                )
            elif kind == SPAN_UPDATE:
                kind, time, reference, attributes, name = event
                sound = type(reference) is int and reference >= 1 and (name is None or type(name) is str)
            else:
                sound = False
            if (
                sound
                and type(kind) is int
                and type(time) is int
                and 0 <= time <= TIME_MAX
                and type(attributes) is dict
                and len(attributes) <= ATTRIBUTES_MAX
            ):
                for key, value in attributes.items():
                    if type(value) not in SCALARS or type(key) is not str:
                        break
                else:
                    continue
        except (TypeError, ValueError, IndexError, KeyError):
            pass  # not of a common shape: unpacking it failed
        fault = fault_of_event(event)
        if fault is not None:
            refused.append(Refusal(index, fault))
    return refused


def batch_from(first_sequence: int, events: list[Any], raw: bytes) -> EventBatch:
    """A batch from events that the decoder could make whole.

    Raises:
        PeerError: ``message-malformed`` where there are too many.
    """
    _check_count(len(events))
    return EventBatch(first_sequence, events, raw, check_events(events))


def batch_one_by_one(first_sequence: int, raw: bytes) -> EventBatch:
    """A batch from an array that the decoder refused as a whole: each event is decoded by itself.

    Raises:
        PeerError: where the array itself is not to be read, or holds too many.
    """
    offsets = element_offsets(raw)
    events: list[Event] = []
    refused: list[Refusal] = []
    for index, (start, stop) in enumerate(pairwise(offsets)):
        event: Any = []
        fault: str | None
        try:
            event = msgpack.unpackb(raw[start:stop], unicode_errors="surrogatepass", strict_map_key=True)
        except UnicodeDecodeError:
            fault = "text-not-utf8"
        except msgpack.exceptions.StackError:
            fault = "value-too-deep"
        except (ValueError, TypeError, msgpack.exceptions.UnpackException):
            fault = "value-invalid"
        else:
            fault = fault_of_event(event)
        if fault is not None:
            refused.append(Refusal(index, fault))
            event = []
        events.append(event)
    return EventBatch(first_sequence, events, raw, refused, offsets)


def _check_count(count: int) -> None:
    if count > EVENTS_PER_MESSAGE_MAX:
        raise PeerError("message-malformed", f"{count} events in one message, the most is {EVENTS_PER_MESSAGE_MAX}")
