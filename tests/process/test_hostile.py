"""Scenario D18: hostile input, kind by kind. A stated error, a neighbour that notices nothing, and every file valid.

(Every trace file is read by two OTLP parsers when the daemon of this module is stopped: see ``running``.)
"""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collectord.errors import CODES
from collectord.limits import (
    ATTRIBUTES_MAX,
    EVENTS_PER_MESSAGE_MAX,
    FRAME_SIZE_MAX_BYTES,
    HELLO_TIMEOUT_S,
    REPORT_TEXT_MAX_BYTES,
    SESSION_ID_SIZE_MAX_BYTES,
    VALUE_DEPTH_MAX,
)
from collectord.model import Outcome
from collectord.wire import messages
from collectord.wire.connection import ClientConnection
from tests.export.otlp import attributes_of, logs_of, spans_of, value_of
from tests.process.client import Event, RawClient, Refused, log, span_end, span_start
from tests.process.daemon import Daemon, running
from tests.process.encoding import Pairs, Raw, framed, nested, pack
from tests.scenarios.support import until

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def silent(daemon: Daemon) -> Iterator[tuple[RawClient, float]]:
    """A connection that has said nothing since then."""
    with RawClient(str(daemon.socket)) as client:
        yield client, time.monotonic()


@pytest.fixture(autouse=True)
def neighbour(daemon: Daemon, silent: object, request: pytest.FixtureRequest) -> Iterator[RawClient]:
    """A session beside each test: nothing of it is refused, nothing lost, and the daemon has nothing to say."""
    name = f"neighbour-{request.node.name}"
    with daemon.client() as client:
        client.open(name)
        client.send_events([log(f"before {n}") for n in range(20)])
        client.flush()
        yield client
        client.send_events([log(f"after {n}") for n in range(20)])
        assert client.flush().refused == 0
        assert client.pushed == []
        answer = client.end()
        assert answer.outcome is Outcome.COMPLETED
        bodies = [record["body"]["stringValue"] for record in logs_of(document_at(answer.path))]
        assert bodies == [f"before {n}" for n in range(20)] + [f"after {n}" for n in range(20)]
    assert "Traceback" not in daemon.said()


def document_at(path: str | None) -> Any:
    from tests.export.otlp import check_document

    assert path is not None
    return check_document(Path(path).read_bytes())


def raw_events(client: RawClient, *events: Any) -> None:
    """A batch that no sound encoder would make."""
    body = {"type": "events", "first_sequence": client.sequence + 1, "events": list(events)}
    client.sequence += len(events)
    client.socket.sendall(framed(pack(body)))


def last_words(client: RawClient) -> messages.Error:
    """The error that ends a connection, and the end of it."""
    answer = client.receive()
    assert isinstance(answer, messages.Error), answer
    assert answer.id is None
    assert client.receive() is None
    assert CODES[answer.code].whose == "client"
    assert len(answer.message) < 1_000, "a sentence for a person"
    return answer


def crash_of(daemon: Daemon, path: str) -> dict[str, Any]:
    """What the trace file of a run says once it has crashed."""
    until(lambda: b'"outcome":"running"' not in Path(path).read_bytes()[:4096], "the run did not end")
    session: dict[str, Any] = document_at(path)["session"]
    assert session["outcome"] == "crashed"
    return session


# ---------------------------------------------------------------- frames


def test_d18_a_conversation_cut_at_every_byte_keeps_what_came_whole(daemon: Daemon) -> None:
    def frames(number: int) -> list[bytes]:
        return [
            framed(pack({"type": "hello", "id": 1, "protocol": 1, "client": "c", "pid": 1, "liveness": "connection"})),
            framed(pack({"type": "open", "id": 2, "session_id": f"cut-{number:04}"})),
            framed(pack({"type": "events", "first_sequence": 1, "events": [[5, 1, 9, "a", {}, None], [6, 2, {}]]})),
            framed(pack({"type": "end", "id": 3, "outcome": "completed", "last_sequence": 2, "wait": False})),
        ]

    borders = [sum(map(len, frames(0)[:count])) for count in range(5)]
    for cut in range(borders[-1] + 1):
        with RawClient(str(daemon.socket)) as client:
            client.socket.sendall(b"".join(frames(cut))[:cut])
            client.socket.shutdown(socket.SHUT_WR)
            while (answer := client.receive()) is not None:
                assert not isinstance(answer, messages.Error), answer
    until(lambda: daemon.status().daemon["sessions_running"] == 1, "runs are left open")
    for cut in range(borders[-1] + 1):
        path = daemon.trace_path(f"cut-{cut:04}")
        assert path.exists() == (cut >= borders[2])
        if path.exists():
            session = document_at(str(path))["session"]
            whole = sum(cut >= border for border in borders) - 1
            assert session["outcome"] == ("completed" if whole == 4 else "crashed")
            assert session["counts"]["events"] == (2 if whole >= 3 else 0)
            assert session["integrity"]["torn_bytes"] == cut - borders[whole]


@pytest.mark.parametrize("size", [FRAME_SIZE_MAX_BYTES + 1, 1 << 31, (1 << 32) - 1])
def test_d18_an_oversize_frame_is_refused_by_its_header_and_what_came_before_is_kept(daemon: Daemon, size: int) -> None:
    with daemon.client() as client:
        opened = client.open(f"oversize-{size}")
        client.send_events([log("before")])
        client.wait_acknowledged()
        client.socket.sendall(struct.pack(">I", size) + b"x" * 100)
        error = last_words(client)
    assert error.code == "frame-too-large"
    assert str(FRAME_SIZE_MAX_BYTES) in error.message
    session = crash_of(daemon, opened.path)
    assert session["crash"]["reason"] == "protocol-error"
    assert session["counts"]["logs"] == 1


def test_d18_a_frame_of_the_largest_size_is_taken_and_kept_exactly(daemon: Daemon) -> None:
    with daemon.client() as client:
        opened = client.open("largest")
        around = len(pack({"type": "events", "first_sequence": 1, "events": [log("")]}))
        text = "ü" + "x" * (FRAME_SIZE_MAX_BYTES - around - 2)
        raw_events(client, log(text))
        client.wait_acknowledged()
        assert client.refused == []
        client.end()
    assert logs_of(document_at(opened.path))[0]["body"] == {"stringValue": text}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "frame-malformed"),
        (b"\xc1", "frame-malformed"),
        (b"\x01", "frame-malformed"),
        (pack({"type": "status", "id": 1}) + b"\x00", "frame-malformed"),
        (pack({"type": "status", "id": 1})[:-1], "frame-malformed"),
        (pack({"type": "status", "id": nested(10_000)}), "frame-malformed"),
        (pack({"type": "status", "id": Raw(b"\xdd\xff\xff\xff\xff")}), "frame-malformed"),
        (pack({"type": "status", "id": Raw(b"\xa2\xff\xfe")}), "frame-malformed"),
        (pack(Pairs([("type", "status"), ("id", 1), ("id", 2)])), "message-malformed"),
        (pack(Pairs([(1, "status"), ("id", 1)])), "message-malformed"),
        (pack({"id": 1}), "message-unknown"),
        (pack({"type": "obey", "id": 1}), "message-unknown"),
        (pack({"type": ["status"], "id": 1}), "message-unknown"),
        (pack({"type": "status"}), "message-malformed"),
        (pack({"type": "status", "id": True}), "message-malformed"),
        (pack({"type": "status", "id": 1.0}), "message-malformed"),
        (pack({"type": "status", "id": -1}), "message-malformed"),
        (pack({"type": "status", "id": 1 << 63}), "message-malformed"),
        (pack({"type": "status", "id": 1, "x" * 3_000_000: 1}), "message-malformed"),
        (pack({"type": "x" * 3_000_000, "id": 1}), "message-unknown"),
        (pack({"type": "open", "id": 1, "session_id": b"bytes"}), "message-malformed"),
        (pack({"type": "open", "id": 1, "session_id": "s", "join": 1}), "message-malformed"),
        (pack({"type": "open", "id": 1, "session_id": "s", "trace_id": b"\0" * 16}), "message-malformed"),
        (pack({"type": "open", "id": 1, "session_id": "s", "attributes": {"k": nested(100)}}), "message-malformed"),
        (pack({"type": "open", "id": 1, "session_id": ""}), "session-id-invalid"),
        (pack({"type": "open", "id": 1, "session_id": "x" * (SESSION_ID_SIZE_MAX_BYTES + 1)}), "session-id-invalid"),
        (pack({"type": "events", "first_sequence": 1, "events": []}), "message-unexpected"),
        (pack({"type": "flush", "id": 1, "last_sequence": 0}), "message-unexpected"),
        (pack({"type": "hello", "id": 1, "protocol": 1, "client": "", "pid": 1}), "message-unexpected"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)}B-{value[:40].hex()}",
)
def test_d18_a_message_that_makes_no_sense_is_answered_with_its_code_and_ends_the_connection(
    daemon: Daemon, payload: bytes, code: str
) -> None:
    with daemon.client() as client:
        client.socket.sendall(framed(payload))
        assert last_words(client).code == code


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "events", "first_sequence": 0, "events": []}, "message-malformed"),
        ({"type": "events", "first_sequence": 1 << 63, "events": []}, "message-malformed"),
        ({"type": "events", "first_sequence": True, "events": []}, "message-malformed"),
        ({"type": "events", "first_sequence": 1, "events": {}}, "message-malformed"),
        ({"type": "events", "first_sequence": 1}, "message-malformed"),
        ({"type": "events", "first_sequence": 1, "events": [], "x" * 3_000_000: 1}, "message-malformed"),
        ({"type": "events", "first_sequence": 1, "events": Raw(b"\xdd\x00\x00\x00\x05\xc0")}, "frame-malformed"),
        ({"type": "events", "first_sequence": 1, "events": [None] * (EVENTS_PER_MESSAGE_MAX + 1)}, "message-malformed"),
        ({"type": "end", "id": 1, "outcome": "crashed", "last_sequence": 0}, "message-malformed"),
        ({"type": "end", "id": 1, "outcome": "completed"}, "message-malformed"),
        ({"type": "crash", "id": 1, "reason": "r", "exception": {"type": 1}}, "message-malformed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(str(part)[:20] for part in value.values()),
)
def test_d18_a_writer_that_breaks_the_protocol_has_crashed_and_keeps_what_it_had_sent(
    daemon: Daemon, request: pytest.FixtureRequest, message: dict[str, Any], code: str
) -> None:
    with daemon.client() as client:
        opened = client.open(request.node.name)
        client.send_events([span_start("before")])
        client.socket.sendall(framed(pack(message)))
        assert last_words(client).code == code
    session = crash_of(daemon, opened.path)
    assert session["crash"]["reason"] == "protocol-error"
    assert session["counts"]["unfinished"] == 1
    assert session["integrity"]["torn_bytes"] == 0, "nothing was torn: it was wrong"


def test_d18_no_hello_is_answered_in_time(daemon: Daemon) -> None:
    with RawClient(str(daemon.socket)) as client:
        client.socket.sendall(framed(pack({"type": "status", "id": 1})))
        assert last_words(client).code == "message-unexpected"
    with RawClient(str(daemon.socket)) as client:
        client.socket.sendall(framed(pack({"type": "hello", "id": 1, "protocol": 99, "client": "", "pid": 1})))
        error = last_words(client)
        assert error.code == "protocol-unsupported"
        assert "1" in error.message


# ---------------------------------------------------------------- events


def attributes(**given: Any) -> Event:
    """A ``span_start`` with these attributes."""
    return span_start("span", given)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (attributes(k=Raw(b"\xa4\xff\xfe\xfd\xfc")), "text-not-utf8"),
        (attributes(k=nested(10_000)), "value-too-deep"),
        (attributes(k=nested(10_000, b"\x81\xa1k")), "value-too-deep"),
        (attributes(k=nested(VALUE_DEPTH_MAX)), "value-too-deep"),
        (attributes(k=Raw(b"\xd4\x00\x00")), "value-invalid"),
        (attributes(k=Raw(b"\xd6\xff\x65\x43\x21\x00")), "value-invalid"),
        (attributes(k=Raw(b"\x81\x01\x02")), "value-invalid"),
        (attributes(**{f"k{n}": n for n in range(10_000)}), "attributes-too-many"),
        ([1, -1, b"12345678", None, "n", 1, {}], "time-invalid"),
        ([1, 1 << 63, b"\0" * 8, None, "n", 1, {}], "span-id-invalid"),
        ([1, 1, b"1234567", None, "n", 1, {}], "span-id-invalid"),
        ([1, 1, b"12345678", b"\0" * 8, "n", 1, {}], "span-id-invalid"),
        ([1, 1, "12345678", None, "n", 1, {}], "event-malformed"),
        ([1, 1, b"12345678", None, "n", 6, {}], "event-malformed"),
        ([1, 1, b"12345678", None, "n", True, {}], "event-malformed"),
        ([1, 1.0, b"12345678", None, "n", 1, {}], "event-malformed"),
        ([1, True, b"12345678", None, "n", 1, {}], "event-malformed"),
        ([True, 1, b"12345678", None, "n", 1, {}], "event-malformed"),
        ([1, 1, b"12345678", None, b"n", 1, {}], "event-malformed"),
        ([1, 1, b"12345678", None, "n", 1, {}, [[b"", b"", {}]]], "span-id-invalid"),
        ([4, 1, 999, 0, None, {}], "span-unknown"),
        ([4, 1, 0, 0, None, {}], "span-unknown"),
        ([4, 1, -1, 0, None, {}], "span-unknown"),
        ([4, 1, [9, 1], 0, None, {}], "span-unknown"),
        ([4, 1, 1, 3, None, {}], "event-malformed"),
        ([5, 1, 10, "body", {}, None], "event-malformed"),
        ([0, 1], "event-unknown"),
        ([10, 1], "event-unknown"),
        ([], "event-malformed"),
        (None, "event-malformed"),
        ("event", "event-malformed"),
        ({"kind": 1}, "event-malformed"),
    ],
    ids=lambda value: value if isinstance(value, str) and "-" in value else repr(value)[:40].encode("ascii", "replace").decode(),
)
def test_d18_a_bad_event_is_refused_with_its_reason_and_its_neighbours_are_stored(
    daemon: Daemon, request: pytest.FixtureRequest, bad: Any, code: str
) -> None:
    with daemon.client() as client:
        opened = client.open(request.node.name)
        raw_events(client, log("one"), bad, log("three"))
        client.wait_acknowledged()
        assert client.refused == [[2, 1, code]]
        assert client.end().outcome is Outcome.COMPLETED
    document = document_at(opened.path)
    assert [value_of(record["body"]) for record in logs_of(document)] == ["one", "three"]
    assert spans_of(document) == []
    integrity = document["session"]["integrity"]
    assert (integrity["received"], integrity["stored"], integrity["refused"]) == (3, 2, {code: 1})


@pytest.mark.parametrize(
    "value",
    [
        "\0", "a\0b", "x" * 5_000_000, "\U0001f4a5", "\u202e\x1b[31m\n", "", 0, -(2**63), 2**63 - 1, 1e308, -0.0, True, None,
        b"", b"\0\xff" * 1000, [], {}, [None, [None]], {"": ""}, {"k": {"\0": [1, 2.5, "x", None, False]}}, ["x"] * 20_000,
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_d18_an_odd_value_is_kept_exactly(daemon: Daemon, request: pytest.FixtureRequest, value: Any) -> None:
    with daemon.client() as client:
        opened = client.open(request.node.name)
        client.send_events([span_start("span", {"value": value, "k": 1})])
        client.send_events([log(value)])
        client.wait_acknowledged()
        assert client.refused == []
        client.end()
    document = document_at(opened.path)
    assert attributes_of(spans_of(document)[0])["value"] == value
    assert value_of(logs_of(document)[0]["body"]) == value


def test_d18_numbers_that_are_none_are_kept(daemon: Daemon) -> None:
    with daemon.client() as client:
        opened = client.open("nan")
        client.send_events([span_start("s", {"nan": math.nan, "up": math.inf, "down": -math.inf, "in": [math.nan]})])
        client.end()
    found = attributes_of(spans_of(document_at(opened.path))[0])
    assert math.isnan(found["nan"])
    assert math.isnan(found["in"][0])
    assert (found["up"], found["down"]) == (math.inf, -math.inf)


def test_d18_what_is_at_a_limit_is_taken(daemon: Daemon) -> None:
    deepest: Any = None
    for _ in range(VALUE_DEPTH_MAX - 1):
        deepest = [deepest]
    with daemon.client() as client:
        opened = client.open("limits")
        client.send_events([span_start("s", {f"k{n}": n for n in range(ATTRIBUTES_MAX)}), log(deepest)])
        client.send_events([log("x")] * EVENTS_PER_MESSAGE_MAX)
        client.wait_acknowledged()
        assert client.refused == []
        client.end()
    document = document_at(opened.path)
    assert len(attributes_of(spans_of(document)[0])) == ATTRIBUTES_MAX + 1, "and the mark that it is unfinished"
    assert len(logs_of(document)) == EVENTS_PER_MESSAGE_MAX + 1
    found, levels = value_of(logs_of(document)[0]["body"]), 0
    while found is not None:
        found = json.loads(found) if isinstance(found, str) else found[0]  # beyond OTLP's depth: as text, docs/trace-format.md
        levels += isinstance(found, list)
    assert levels == VALUE_DEPTH_MAX - 2, "it was stored to its innermost"


# ---------------------------------------------------------------- ids

ODD_IDS = [
    ".", "..", "...", "/", "//", "/etc/passwd", "../../../../tmp/x", "a/../b", ".hidden", "-rf", "a b", "a\nb", "\0", "a\0b",
    "%2F", "%", "~", "x~2", "x~h00000000000000000000000000000000", "x.json", "x~1.0.journal", ".x~1.0.tmp", "uid-0", "lock",
    "\U0001f4a5", "\ud800", "\u00e9", "e\u0301", "CON", "a" * 150, "a" * 151, "a" * 10_000, "/" * 10_000, "\U0001f4a5" * 10_000,
    "x" * SESSION_ID_SIZE_MAX_BYTES,
]  # fmt: skip


def test_d18_whatever_an_id_holds_its_files_are_its_own_and_in_their_directory(daemon: Daemon) -> None:
    before = sorted(path for path in daemon.directory.rglob("*") if "neighbour" not in path.name)
    paths = {}
    for session_id in ODD_IDS:
        with daemon.client() as client:
            paths[session_id] = client.open(session_id).path
            assert client.run == 1, ascii(session_id)
            client.send_events([log(ascii(session_id))])
            assert client.end().outcome is Outcome.COMPLETED
    assert len(set(paths.values())) == len(ODD_IDS)
    for session_id, path in paths.items():
        assert not Path(path).name.startswith("."), "it would be taken for a file that is being written"
        assert os.path.dirname(os.path.realpath(path)) == os.path.realpath(daemon.state_dir / "traces")
        document = document_at(path)
        shown = document["session"]["id"]
        assert shown == (session_id if session_id != "\ud800" else "\ufffd")
        assert [value_of(record["body"]) for record in logs_of(document)] == [ascii(session_id)]
    after = sorted(path for path in daemon.directory.rglob("*") if "neighbour" not in path.name)
    made = set(after) - set(before)
    journals = [path for path in made if path.parent == daemon.state_dir / "journals"]
    assert len(journals) == len(ODD_IDS)
    assert made == {Path(path) for path in paths.values()} | set(journals), "and nothing else, anywhere"


# ---------------------------------------------------------------- floods of words


HUGE = "w" * 2_000_000
ALMOST_A_FRAME = "w" * (FRAME_SIZE_MAX_BYTES - 110)
"""A message with nothing but that fits; the answer would not, since it names a path as well."""


def test_d18_the_text_of_a_report_is_kept_up_to_a_stated_size(daemon: Daemon) -> None:
    stack = "first line\n" + HUGE + "\nlast line"
    with daemon.client() as client:
        opened = client.open("huge-crash")
        answer = client.crash("begins" + HUGE + "ends", exception={"type": "E", "message": HUGE, "stack": stack})
    assert answer.outcome is Outcome.CRASHED
    crash = document_at(opened.path)["session"]["crash"]
    for text in (crash["message"], crash["exception"]["message"], crash["exception"]["stack"], answer.message):
        assert text is not None
        assert len(text) <= REPORT_TEXT_MAX_BYTES + 100
        assert "bytes left out" in text
    assert crash["message"].startswith("begins")
    assert crash["message"].endswith("ends")
    assert crash["exception"]["stack"].startswith("first line\n")
    assert crash["exception"]["stack"].endswith("\nlast line")


@pytest.mark.parametrize("how", ["end", "cancel", "crash"])
def test_d18_a_reason_as_long_as_a_frame_can_be_answered(daemon: Daemon, how: str) -> None:
    with daemon.client() as client:
        client.open(f"long-{how}")
        if how == "end":
            outcome = client.end("failed", ALMOST_A_FRAME).outcome
        elif how == "cancel":
            answer = client.cancel(ALMOST_A_FRAME)
            assert isinstance(answer, messages.Terminal)
            outcome = answer.outcome
        else:
            outcome = client.crash(ALMOST_A_FRAME).outcome
    assert outcome is {"end": Outcome.FAILED, "cancel": Outcome.CANCELLED, "crash": Outcome.CRASHED}[how]


def test_d18_a_request_to_cancel_as_long_as_a_frame_can_be_told_to_the_owner(daemon: Daemon) -> None:
    with daemon.client() as owner, daemon.client() as other:
        owner.open("long-wish")
        assert isinstance(other.cancel(ALMOST_A_FRAME, session_id="long-wish"), messages.CancelAnswer)
        told = owner.receive()
        assert isinstance(told, messages.CancelRequested)
        assert owner.end().outcome is Outcome.COMPLETED
        late = other.crash(ALMOST_A_FRAME, session_id="long-wish")
        assert late.outcome is Outcome.COMPLETED


def test_d18_a_client_that_asks_and_never_reads_is_not_read_and_loses_no_answer(daemon: Daemon) -> None:
    frame = framed(pack({"type": "cancel", "id": 5, "reason": "of nothing"}))
    stream = memoryview(frame * 100_000)
    with daemon.client() as client, daemon.client() as other:
        before = other.status().daemon["memory_bytes"]
        client.socket.setblocking(False)
        sent = still = 0
        while sent < len(stream) and still < 100:
            try:
                sent += client.socket.send(stream[sent : sent + 65_536])
                still = 0
            except BlockingIOError:
                still += 1
                other.status()  # what time it takes the daemon to answer others, it had for reading
        assert sent < len(stream), "its questions wait in its own socket, not in our memory"
        assert other.status().daemon["memory_bytes"] - before < 16 << 20
        client.socket.settimeout(60)
        machine, answers = ClientConnection(), 0
        while answers < sent // len(frame):
            machine.receive(client.socket.recv(1 << 16))
            while machine.next_answer() is not None:
                answers += 1


def test_d18_a_flush_with_export_right_behind_the_open_is_answered_though_nothing_was_sent(daemon: Daemon) -> None:
    with daemon.client() as client:
        said: list[messages.Request] = [messages.Open(81, "nothing sent"), messages.Flush(82, 0, export=True)]
        client.socket.sendall(b"".join(map(messages.encode_message, said)))
        assert isinstance(client.answer(81), messages.Opened)
        assert isinstance(client.answer(82), messages.Flushed)
        client.end()


def test_d18_messages_of_megabytes_that_are_refused_leave_no_memory_behind(daemon: Daemon) -> None:
    wrong = framed(pack({"type": "status", "id": 1, "what": b"x" * 5_000_000, "text": Raw(b"\xa2\xff\xfe")}))
    with daemon.client() as watcher:
        sizes = []
        for _ in range(40):
            with daemon.client() as client:
                client.socket.sendall(wrong)
                assert last_words(client).code == "frame-malformed"
            sizes.append(watcher.status().daemon["memory_bytes"])
        assert max(sizes[20:]) < sizes[0] + (40 << 20), sizes


def test_d18_what_is_said_all_at_once_is_answered_in_order(daemon: Daemon) -> None:
    with daemon.client() as client:
        said: list[messages.Request] = [messages.Open(71, "at once"), messages.Flush(72, 0, export=True)]
        client.socket.sendall(b"".join(map(messages.encode_message, said)))
        client.send_events([log("right behind")])
        client.tell(messages.Flush(73, 1, export=True))
        client.tell(messages.End(74, "completed", 1))
        heard: list[str] = []
        while "Terminal" not in heard:
            chunk = client.socket.recv(1 << 16)
            assert chunk, heard
            client._machine.receive(chunk)
            while (answer := client._machine.next_answer()) is not None:
                heard.append(type(answer).__name__)
                assert not isinstance(answer, messages.Error)
    assert heard[0] == "Opened"
    assert sorted(heard) == ["Ack", "Flushed", "Flushed", "Opened", "Terminal"]


def test_d18_a_storm_of_connections_that_say_nothing_leaves_nothing(daemon: Daemon) -> None:
    with daemon.client() as watcher:
        before = watcher.status().daemon
        for _ in range(5):
            storm = [socket.socket(socket.AF_UNIX) for _ in range(200)]
            for connection in storm:
                connection.connect(str(daemon.socket))
            for connection in storm:
                connection.close()
        for name in ("descriptors", "tasks"):
            until(lambda: watcher.status().daemon[name] == before[name], f"{name} are kept")  # noqa: B023


def test_d18_errors_about_runs_have_their_codes(daemon: Daemon) -> None:
    def code_of(client: RawClient, call: Any) -> str:
        with pytest.raises(Refused) as refused:
            call()
        assert client.status().daemon["pid"], "the connection goes on"
        return refused.value.code

    with daemon.client() as owner, daemon.client() as other:
        owner.open("coded")
        assert code_of(other, lambda: other.open("coded")) == "session-busy"
        assert code_of(other, lambda: other.open("never opened", join=True)) == "session-unknown"
        assert code_of(other, lambda: other.open("coded", resume_token=b"x" * 16)) == "resume-refused"
        assert code_of(other, lambda: other.crash("r", session_id="never opened")) == "session-unknown"
        assert code_of(other, lambda: other.crash("r", session_id="coded", run=7)) == "run-unknown"
        assert code_of(other, lambda: other.crash("r", session_id="coded", run=0)) == "run-unknown"
        assert code_of(owner, lambda: owner.open("another")) == "connection-used"
        assert code_of(owner, owner.detach) == "not-owner"
        other.open("coded", join=True)
        assert code_of(other, other.end) == "not-owner"
        assert code_of(other, lambda: other.crash("r")) == "not-owner"
        owner.send_events([span_start("a"), span_end(1)])
        assert owner.end().outcome is Outcome.COMPLETED
        assert code_of(owner, lambda: owner.open("coded")) == "connection-used"


def test_d18_a_connection_that_never_speaks_is_told_so_and_closed(silent: tuple[RawClient, float]) -> None:
    client, since = silent
    error = last_words(client)
    assert error.code == "hello-timeout"
    assert time.monotonic() - since >= HELLO_TIMEOUT_S - 0.5
