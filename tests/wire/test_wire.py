"""Frames, messages and events: strict, whole, and one kind of error for every way to be wrong."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord.errors import PeerError
from collectord.limits import ATTRIBUTES_MAX, EVENTS_PER_MESSAGE_MAX, FRAME_SIZE_MAX_BYTES, SESSION_ID_SIZE_MAX_BYTES
from collectord.model import EventKind
from collectord.wire import messages
from collectord.wire.connection import ClientConnection, ServerConnection, Stage
from collectord.wire.events import batch_from, batch_one_by_one, check_events, fault_of_event
from collectord.wire.frames import FrameReader, encode_frame
from collectord.wire.messages import ANSWER_TYPES, REQUEST_TYPES, decode_answer, decode_request, encode_message
from collectord.wire.skim import element_offsets, skip_value
from tests.wire.golden import EVENTS, MESSAGES, SPAN, VECTORS, vectors

ID = SPAN


def request(**fields: Any) -> bytes:
    """A payload as a client may send it."""
    packed: bytes = msgpack.packb(fields, unicode_errors="surrogatepass")
    return packed


def refused(*events: Any) -> list[tuple[int, str]]:
    """What the edge refuses of a batch."""
    decoded = decode_request(request(type="events", first_sequence=1, events=list(events)))
    assert isinstance(decoded, messages.Events)
    return [(refusal.index, refusal.code) for refusal in decoded.batch.refused]


# ---------------------------------------------------------------- frames


def test_a_stream_cut_anywhere_gives_the_same_payloads() -> None:
    stream = encode_frame(b"one") + encode_frame(b"") + encode_frame(b"three" * 50)
    for cut in range(len(stream) + 1):
        reader = FrameReader()
        payloads = []
        for part in (stream[:cut], stream[cut:]):
            reader.feed(part)
            while (payload := reader.next_payload()) is not None:
                payloads.append(payload)
        assert payloads == [b"one", b"", b"three" * 50]
        assert reader.torn_bytes == 0


def test_a_frame_at_the_limit_is_taken_and_one_beyond_it_is_refused_before_it_is_read() -> None:
    reader = FrameReader()
    reader.feed(FRAME_SIZE_MAX_BYTES.to_bytes(4, "big"))
    assert reader.next_payload() is None
    reader = FrameReader()
    reader.feed((FRAME_SIZE_MAX_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(PeerError) as error:
        reader.next_payload()
    assert error.value.code == "frame-too-large"


# ---------------------------------------------------------------- messages


def test_the_golden_vectors_are_what_is_encoded_and_decoded() -> None:
    stored = json.loads(VECTORS.read_text())
    assert vectors() == stored, "the wire changed: that takes a new protocol version"
    for name, message in MESSAGES.items():
        payload = encode_message(message)[4:]
        kind = {cls: key for key, cls in (REQUEST_TYPES | ANSWER_TYPES).items()}[type(message)]
        decoded: Any = decode_request(payload) if kind in REQUEST_TYPES else decode_answer(payload)
        assert encode_message(decoded)[4:] == payload, name


def test_every_message_type_and_every_kind_of_event_has_a_golden_vector() -> None:
    assert {type(message) for message in MESSAGES.values()} == set((REQUEST_TYPES | ANSWER_TYPES).values())
    assert {event[0] for event in EVENTS.values()} == set(EventKind)
    assert refused(*EVENTS.values()) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "hello", "id": 1.9, "protocol": 1, "client": "c", "pid": 1}, "integer"),
        ({"type": "hello", "id": True, "protocol": 1, "client": "c", "pid": 1}, "integer"),
        ({"type": "hello", "id": -1, "protocol": 1, "client": "c", "pid": 1}, "integer"),
        ({"type": "hello", "id": 1, "protocol": 1, "client": b"c", "pid": 1}, "text"),
        ({"type": "hello", "id": 1, "protocol": 1, "pid": 1}, "missing"),
        ({"type": "hello", "id": 1, "protocol": 1, "client": "c", "pid": 1, "liveness": "maybe"}, "liveness"),
        ({"type": "hello", "id": 1, "protocol": 1, "client": "c", "pid": 1, "more": 1}, "unknown field"),
        ({"type": "open", "id": 1, "session_id": 5}, "text"),
        ({"type": "open", "id": 1, "session_id": "s", "join": "no"}, "true or false"),
        ({"type": "open", "id": 1, "session_id": "s", "trace_id": 200_000_000}, "trace_id"),
        ({"type": "open", "id": 1, "session_id": "s", "trace_id": bytes(16)}, "trace_id"),
        ({"type": "open", "id": 1, "session_id": "s", "attributes": {"a": msgpack.ExtType(1, b"")}}, "value-invalid"),
        ({"type": "end", "id": 1, "outcome": "crashed", "last_sequence": 0}, "outcome"),
        ({"type": "end", "id": 1, "outcome": "failed", "last_sequence": 0, "exception": {"kind": "x"}}, "exception"),
        ({"type": "events", "first_sequence": 0, "events": []}, "first_sequence"),
        ({"type": "events", "first_sequence": "1", "events": []}, "first_sequence"),
        ({"type": "events", "first_sequence": 1, "events": {}}, "array"),
        ({"type": "events", "first_sequence": 1}, "missing"),
        ({"type": "events", "first_sequence": 1, "events": [], "id": 3}, "unknown field"),
    ],
)
def test_a_malformed_message_is_refused_with_a_sentence_about_it(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(PeerError) as error:
        decode_request(request(**fields))
    assert error.value.code == "message-malformed"
    assert words in error.value.message


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x05", b"\x81\xa4type", msgpack.packb([1]), b"\x81\xa4type\xa1\xff"])
def test_a_payload_that_is_no_map_is_refused(payload: bytes) -> None:
    with pytest.raises(PeerError) as error:
        decode_request(payload)
    assert error.value.code in ("frame-malformed", "message-unknown")


def test_a_type_that_nobody_knows_a_field_twice_and_bytes_behind_the_end_are_refused() -> None:
    for payload, code in (
        (request(type="subscribe"), "message-unknown"),
        (request(type=5), "message-unknown"),
        (b"\x82" + msgpack.packb("type") + msgpack.packb("status") + msgpack.packb("type") + b"\xc0", "message-malformed"),
        (request(type="status", id=1) + b"\0", "frame-malformed"),
    ):
        with pytest.raises(PeerError) as error:
            decode_request(payload)
        assert error.value.code == code


def test_session_ids_have_a_size() -> None:
    for size, fits in ((0, False), (1, True), (SESSION_ID_SIZE_MAX_BYTES, True), (SESSION_ID_SIZE_MAX_BYTES + 1, False)):
        payload = request(type="open", id=1, session_id="x" * size)
        if fits:
            decode_request(payload)
            continue
        with pytest.raises(PeerError) as error:
            decode_request(payload)
        assert error.value.code == "session-id-invalid"


# ---------------------------------------------------------------- events


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ([], "event-malformed"),
        (5, "event-malformed"),
        ([99, 1], "event-unknown"),
        ([True, 1, ID, None, "n", 1, {}], "event-malformed"),
        ([1.0, 1, ID, None, "n", 1, {}], "event-malformed"),
        ([1, -1, ID, None, "n", 1, {}], "time-invalid"),
        ([1, 1 << 63, ID, None, "n", 6, {}], "event-malformed"),
        ([1, 1.5, ID, None, "n", 1, {}], "event-malformed"),
        ([1, 1, bytes(8), None, "n", 1, {}], "span-id-invalid"),
        ([1, 1, b"short", None, "n", 1, {}], "span-id-invalid"),
        ([1, 1, "textid00", None, "n", 1, {}], "event-malformed"),
        ([1, 1, ID, bytes(8), "n", 1, {}], "span-id-invalid"),
        ([1, 1, ID, None, b"n", 1, {}], "event-malformed"),
        ([1, 1, ID, None, "n", 1, []], "event-malformed"),
        ([1, 1, ID, None, "n", 1], "event-malformed"),
        ([1, 1, ID, None, "n", 1, {}, [[b"x" * 16, bytes(8), {}]]], "span-id-invalid"),
        ([1, 1, ID, None, "n", 1, {f"k{n}": 1 for n in range(ATTRIBUTES_MAX + 1)}], "attributes-too-many"),
        ([4, 1, 0, 0, None, {}], "span-unknown"),
        ([4, 1, "1", 0, None, {}], "event-malformed"),
        ([4, 1, [1], 0, None, {}], "event-malformed"),
        ([4, 1, 1, 3, None, {}], "event-malformed"),
        ([4, 1, 1, True, None, {}], "event-malformed"),
        ([4, 1, 1, 0, 7, {}], "event-malformed"),
        ([5, 1, 10, "x", {}, None], "event-malformed"),
        ([5, 1, 9, "x", {}, bytes(8)], "span-id-invalid"),
        ([7, 1, "s", 5, 1], "event-malformed"),
        ([6, 1, {"a": msgpack.ExtType(4, b"x")}], "value-invalid"),
    ],
)
def test_one_bad_event_is_refused_and_the_others_are_not(event: Any, code: str) -> None:
    good = EVENTS["span_start"]
    assert refused(good, event, good) == [(1, code)]


def test_values_that_only_look_dangerous_are_taken() -> None:
    assert refused([6, 1, {"nan": float("nan"), "inf": float("inf"), "nul": "\0", "esc": "\x1b[2J", "lone": "\ud800"}]) == []
    assert refused([6, 1, {"big": (1 << 64) - 1, "small": -(1 << 63), "5 MB": "x" * 5_000_000}]) == []
    assert refused([1, (1 << 64) - 1, ID, None, "", 1, {f"k{n}": n for n in range(ATTRIBUTES_MAX)}]) == []


def test_nesting_has_a_depth() -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    assert refused([6, 1, {"a": nested(63)}]) == []
    assert refused([6, 1, {"a": nested(64)}], EVENTS["log"]) == [(0, "value-too-deep")]


def test_what_the_decoder_refuses_as_a_whole_costs_one_event_all_the_same() -> None:
    good = msgpack.packb(EVENTS["log"])
    for bad, code in (
        (msgpack.packb([5, 1, 9]) [:-1] + b"\x09", "event-malformed"),
        (b"\x96\x05\x01\x09\xa2\xff\xfe\x80\xc0", "text-not-utf8"),
        (b"\x93\x06\x01" + b"\x91" * 10_000 + b"\xc0", "value-too-deep"),
        (b"\x93\x06\x01\x81\x01\x01", "value-invalid"),
    ):  # fmt: skip
        payload = b"\x83\xa4type\xa6events\xa6events\x93" + good + bad + good + b"\xaefirst_sequence\x05"
        decoded = decode_request(payload)
        assert isinstance(decoded, messages.Events)
        batch = decoded.batch
        assert [(refusal.index, refusal.code) for refusal in batch.refused] == [(1, code)]
        assert batch.body(2, 3) == b"\x91" + good
        assert batch.first_sequence == 5


def test_a_batch_is_cut_from_the_bytes_that_came() -> None:
    events = list(EVENTS.values())
    raw = msgpack.packb(events)
    batch = batch_from(1, events, raw)
    assert batch.body(0, len(events)) == raw
    for start in range(len(events)):
        for stop in range(start, len(events) + 1):
            assert msgpack.unpackb(batch.body(start, stop)) == events[start:stop]


def test_a_message_holds_only_so_many_events() -> None:
    payload = request(type="events", first_sequence=1, events=[0] * (EVENTS_PER_MESSAGE_MAX + 1))
    with pytest.raises(PeerError) as error:
        decode_request(payload)
    assert error.value.code == "message-malformed"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=4),
    max_leaves=8,
)
IDS = st.sampled_from([ID, bytes(8), b"x", None, "text"])
ANY_EVENT = st.lists(VALUES | IDS | st.integers(0, 11), max_size=8) | st.builds(
    lambda base, at, value: [*base[:at], value, *base[at + 1 :]],
    st.sampled_from(list(EVENTS.values())), st.integers(0, 7), VALUES | IDS,
)  # fmt: skip


@given(st.lists(ANY_EVENT, max_size=5))
def test_the_short_check_and_the_long_one_agree(events: list[Any]) -> None:
    short = {refusal.index: refusal.code for refusal in check_events(events)}
    for index, event in enumerate(events):
        assert short.get(index) == fault_of_event(event)


@given(st.lists(ANY_EVENT, max_size=5))
def test_decoding_at_once_and_one_by_one_agree(events: list[Any]) -> None:
    raw = msgpack.packb(events)
    one_by_one = batch_one_by_one(1, raw)
    try:
        whole = batch_from(1, msgpack.unpackb(raw, strict_map_key=True), raw)
    except ValueError:
        return  # the case in which one by one is the only way
    assert one_by_one.refused == whole.refused


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_the_stated_errors(payload: bytes) -> None:
    for decode in (decode_request, decode_answer):
        try:
            decode(payload)
        except PeerError:
            pass


@given(st.sampled_from(list(MESSAGES.values())), st.integers(0, 10_000), st.integers(0, 255), st.integers(-3, 3))
def test_mutated_frames_raise_nothing_but_the_stated_errors(
    message: messages.Message, position: int, byte: int, length: int
) -> None:
    payload = bytearray(encode_message(message)[4:])
    payload[position % len(payload)] = byte
    for decode in (decode_request, decode_answer):
        try:
            decode(bytes(payload[: len(payload) + length]) if length < 0 else bytes(payload) + b"\x90" * length)
        except PeerError:
            pass


@given(VALUES)
def test_skimming_finds_the_end_of_every_value(value: Any) -> None:
    raw = msgpack.packb(value)
    assert skip_value(raw + b"rest", 0)[0] == len(raw)
    assert element_offsets(msgpack.packb([value, value])) == [1, 1 + len(raw), 1 + 2 * len(raw)]


def test_a_false_count_does_not_keep_the_skimmer_busy() -> None:
    with pytest.raises(PeerError):
        skip_value(b"\xdd\xff\xff\xff\xff" + b"\xc0" * 100, 0)
    with pytest.raises(PeerError):
        element_offsets(b"\xdd\xff\xff\xff\xff" + b"\xc0" * 100)
    with pytest.raises(PeerError):
        element_offsets(b"\xdd\x00\x00\xff\xff" + b"\xc0" * 100)


def test_deep_events_among_others_are_told_apart_and_cost_themselves_alone() -> None:
    good = msgpack.packb(EVENTS["log"])
    deep = b"\x93\x06\x01" + b"\x81\xa1k" * 3_000 + b"\xc0"
    raw = b"\xdc\x00\x14" + (good + deep) * 10
    batch = batch_one_by_one(1, raw)
    assert [(refusal.index, refusal.code) for refusal in batch.refused] == [(n, "value-too-deep") for n in range(1, 20, 2)]
    assert batch.body(18, 20) == b"\x92" + good + deep
    assert raw.endswith(batch.body(19, 20)[1:])


def test_a_frame_full_of_opening_brackets_is_given_up_soon() -> None:
    head = b"\x83\xa4type\xa6events\xaefirst_sequence\x01\xa6events"
    for events in (b"\x91\x93\x06\x01" + b"\x91" * 8_000_000 + b"\xc0", b"\xdc\x0f\xff" + (b"\x91" * 2_000 + b"\xc0") * 0xFFF):
        with pytest.raises(PeerError) as error:
            decode_request(head + events)
        assert error.value.code == "frame-malformed"
        assert "nest" in error.value.message


# ---------------------------------------------------------------- connections


def test_two_machines_back_to_back_understand_each_other() -> None:
    server, client = ServerConnection(), ClientConnection()
    for name in ("hello", "open", "events", "flush", "end"):
        server.receive(encode_message(MESSAGES[name]))
        got = server.next_request()
        assert type(got) is type(MESSAGES[name])
        if name == "open":
            server.opened()
    for name in ("welcome", "opened", "ack", "flushed", "terminal"):
        client.receive(encode_message(MESSAGES[name]))
        assert client.next_answer() == MESSAGES[name]


@pytest.mark.parametrize("first", ["open", "events", "status", "end"])
def test_nothing_comes_before_hello(first: str) -> None:
    server = ServerConnection()
    server.receive(encode_message(MESSAGES[first]))
    with pytest.raises(PeerError) as error:
        server.next_request()
    assert error.value.code == "message-unexpected"
    assert server.stage is Stage.FAILED
    assert server.next_request() is None


def test_events_come_after_open_and_hello_comes_once() -> None:
    for second in ("events", "flush", "end", "detach", "hello"):
        server = ServerConnection()
        server.receive(encode_message(MESSAGES["hello"]) + encode_message(MESSAGES[second]))
        server.next_request()
        with pytest.raises(PeerError) as error:
            server.next_request()
        assert error.value.code == "message-unexpected"


def test_a_protocol_that_is_not_spoken_is_refused_by_its_number() -> None:
    server = ServerConnection()
    server.receive(encode_message(messages.Hello(1, 99, "c", 1)))
    with pytest.raises(PeerError) as error:
        server.next_request()
    assert error.value.code == "protocol-unsupported"
    assert "99" in error.value.message
