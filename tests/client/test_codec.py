"""The client's own small codec and the daemon's, held to each other in both directions, and to the golden vectors."""

from __future__ import annotations

import json
from typing import Any

import msgpack
from collectord_client import _codec
from collectord_client._values import ENCODED_PREFIX, fit, fit_attributes
from hypothesis import given, settings
from hypothesis import strategies as st

from collectord.limits import VALUE_DEPTH_MAX
from collectord.model import SEVERITY_NAMES, EventKind
from collectord.wire import messages
from collectord.wire.frames import FrameReader
from collectord.wire.messages import ANSWER_TYPES, REQUEST_TYPES, decode_request, encode_message
from collectord.wire.values import fault_of_attributes, fault_of_value
from tests.wire.golden import EVENTS, MESSAGES, VECTORS, plain

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
SCALARS = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | TEXT | st.binary(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
ATTRIBUTES = st.dictionaries(TEXT, VALUES, max_size=6)


def payload_of(frame: bytes) -> bytes:
    """The payload of exactly one frame, as the daemon cuts it."""
    reader = FrameReader()
    reader.feed(frame)
    payload = reader.next_payload()
    assert payload is not None
    assert reader.torn_bytes == 0
    return payload


# ---------------------------------------------------------------- vectors


def test_every_request_of_the_vectors_is_encoded_to_what_the_vector_means() -> None:
    for vector in json.loads(VECTORS.read_text()):
        message = MESSAGES[vector["name"]]
        if type(message) not in REQUEST_TYPES.values():
            continue
        frame = bytes.fromhex(vector["frame"])
        fields = msgpack.unpackb(frame[4:])
        if fields["type"] == "events":
            mine = _codec.encode_events(fields["first_sequence"], [_codec.pack(event) for event in fields["events"]])
        else:
            mine = _codec.encode_message(fields)
        assert plain(msgpack.unpackb(payload_of(mine))) == vector["message"], vector["name"]
        theirs, own = decode_request(frame[4:]), decode_request(payload_of(mine))
        if isinstance(theirs, messages.Events):
            assert isinstance(own, messages.Events)
            assert (own.batch.events, own.batch.raw, own.batch.refused) == (theirs.batch.events, theirs.batch.raw, [])
        else:
            assert own == theirs


def test_every_answer_of_the_vectors_is_read_as_the_vector_says() -> None:
    for vector in json.loads(VECTORS.read_text()):
        if type(MESSAGES[vector["name"]]) in ANSWER_TYPES.values():
            reader = _codec.FrameReader()
            reader.feed(bytes.fromhex(vector["frame"]))
            assert plain(reader.next_message()) == vector["message"], vector["name"]
            assert reader.next_message() is None


def test_the_client_gives_every_kind_severity_and_status_the_number_the_daemon_knows() -> None:
    kinds = {name: getattr(_codec, name) for name in EventKind.__members__}
    assert kinds == {name: int(kind) for name, kind in EventKind.__members__.items()}
    assert {*_codec.SEVERITIES.values()} == {*SEVERITY_NAMES}
    assert all(SEVERITY_NAMES[_codec.SEVERITIES[word.lower()]].lower() == word.lower() for word in SEVERITY_NAMES.values())
    assert {event[0] for event in EVENTS.values()} == {*kinds.values()}


# ---------------------------------------------------------------- differential


@settings(deadline=None, max_examples=50)
@given(st.lists(ATTRIBUTES, max_size=5), st.integers(1, 2**40))
def test_events_that_the_client_encodes_are_what_the_daemon_decodes(attributes: list[dict[str, Any]], first: int) -> None:
    events: list[list[Any]] = [[6, number, item] for number, item in enumerate(attributes)]
    frame = _codec.encode_events(first, [_codec.pack(event) for event in events])
    decoded = decode_request(payload_of(frame))
    assert isinstance(decoded, messages.Events)
    assert decoded.batch.first_sequence == first
    assert decoded.batch.events == events
    assert not decoded.batch.refused


@settings(deadline=None, max_examples=50)
@given(TEXT, ATTRIBUTES, st.integers(0, 2**62), st.none() | TEXT)
def test_requests_that_the_client_encodes_are_what_the_daemon_decodes(
    text: str, attributes: dict[str, Any], number: int, message: str | None
) -> None:
    session_id = text or "x"
    opening = {"type": "open", "id": number, "session_id": session_id, "attributes": attributes, "trace_id": None}
    assert decode_request(payload_of(_codec.encode_message(opening))) == messages.Open(number, session_id, attributes)
    end = {"type": "end", "id": number, "outcome": "failed", "last_sequence": 3, "message": message, "wait": True}
    assert decode_request(payload_of(_codec.encode_message(end))) == messages.End(number, "failed", 3, message)


@settings(deadline=None, max_examples=50)
@given(TEXT, ATTRIBUTES, st.integers(0, 2**62), st.lists(st.integers(1, 2**40), max_size=3))
def test_answers_that_the_daemon_encodes_are_what_the_client_decodes(
    text: str, attributes: dict[str, Any], number: int, sequences: list[int]
) -> None:
    refused = [[sequence, 1, "span-ended"] for sequence in sequences]
    answers: list[messages.Answer] = [
        messages.Ack(number, refused, 2),
        messages.Error("session-busy", text, True, number),
        messages.StatusAnswer(number, attributes, [attributes]),
        messages.Flushed(number, number, 0),
    ]
    reader = _codec.FrameReader()
    reader.feed(b"".join(map(encode_message, answers)))
    assert [reader.next_message() for _ in answers] == [
        {"type": "ack", "sequence": number, "refused": refused, "refused_more": 2},
        {"type": "error", "id": number, "code": "session-busy", "message": text, "retryable": True},
        {"type": "status_answer", "id": number, "daemon": attributes, "sessions": [attributes], "sessions_left_out": 0},
        {"type": "flushed", "id": number, "sequence": number, "refused": 0},
    ]
    assert reader.next_message() is None


def test_answers_cut_anywhere_are_read_the_same() -> None:
    stream = encode_message(messages.Ack(1)) + encode_message(messages.Stalled("disk-failed", "no"))
    for cut in range(len(stream) + 1):
        reader = _codec.FrameReader()
        read = []
        for part in (stream[:cut], stream[cut:]):
            reader.feed(part)
            while (message := reader.next_message()) is not None:
                read.append(message["type"])
        assert read == ["ack", "stalled"]


# ---------------------------------------------------------------- any value


class Strange:
    """Hashable, with a repr that says so."""

    def __repr__(self) -> str:
        return "<strange>"


ANY = st.recursive(
    SCALARS | st.integers() | st.floats() | st.complex_numbers() | st.builds(Strange) | st.just(NotImplemented),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | TEXT | st.none(), inner, max_size=4)
        | st.frozensets(st.integers() | TEXT, max_size=4)
    ),
    max_leaves=15,
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(TEXT | st.integers() | st.none(), ANY, max_size=6))
def test_no_attributes_of_any_kind_are_refused_by_the_daemon(attributes: dict[Any, Any]) -> None:
    fitted = fit_attributes(attributes)
    assert fault_of_attributes(fitted) is None
    decoded = decode_request(payload_of(_codec.encode_events(1, [_codec.pack([6, 1, fitted])])))
    assert isinstance(decoded, messages.Events)
    assert not decoded.batch.refused


@settings(deadline=None, max_examples=50)
@given(ATTRIBUTES)
def test_what_the_collector_takes_as_it_is_stays_as_it_is_and_unmarked(attributes: dict[str, Any]) -> None:
    assert fit_attributes(attributes) == attributes


def test_what_is_changed_is_marked_beside_it() -> None:
    assert fit_attributes({"big": 2**70, "odd": Strange(), "list": (1, 2), "set": {3}, "map": {4: 5}, "nested": [-(2**64)]}) == {
        "big": str(2**70),
        ENCODED_PREFIX + "big": "int",
        "odd": "<strange>",
        ENCODED_PREFIX + "odd": "repr",
        "list": [1, 2],
        "set": [3],
        "map": {"4": 5},
        "nested": [str(-(2**64))],
        ENCODED_PREFIX + "nested": "int",
    }


def test_integers_of_64_bits_with_or_without_a_sign_are_kept() -> None:
    assert fit_attributes({"a": 2**64 - 1, "b": -(2**63)}) == {"a": 2**64 - 1, "b": -(2**63)}


class Hostile:
    """Raises from whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


def test_an_object_whose_repr_raises_is_told_by_its_class() -> None:
    marks: set[str] = set()
    assert "Hostile" in fit(Hostile(), marks)
    assert marks == {"repr"}


def test_what_holds_itself_is_cut_at_the_depth_the_daemon_allows() -> None:
    value: list[Any] = []
    value.append(value)
    marks: set[str] = set()
    fitted = fit(value, marks)
    assert fault_of_value(fitted) is None
    assert marks == {"repr"}


def test_nesting_within_the_daemons_limit_less_a_few_is_kept() -> None:
    value: Any = "deep"
    for _ in range(VALUE_DEPTH_MAX - 5):
        value = [value]
    marks: set[str] = set()
    assert fit(value, marks) == value
    assert not marks


def test_a_text_that_is_too_long_keeps_head_and_tail_and_says_how_much_is_missing() -> None:
    fitted = fit_attributes({"long": "a" * 100_000 + "z"}, 70_000)
    assert fitted["long"].startswith("aaa")
    assert fitted["long"].endswith("z")
    assert "characters left out" in fitted["long"]
    assert fitted[ENCODED_PREFIX + "long"] == "cut"
