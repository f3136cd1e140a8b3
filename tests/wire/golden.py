"""Golden messages: one of each type and one event of each kind, as values. `python -m tests.wire.golden` writes the vectors.

The vectors under tests/vectors tie this decoder, the client's codec, and whoever writes another. They change only with the
protocol version.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack

from collectord.model import Outcome
from collectord.wire import messages
from collectord.wire.events import batch_from
from collectord.wire.messages import encode_message

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "messages.json"

SPAN = bytes(range(1, 9))
TRACE = bytes(range(1, 17))
TOKEN = bytes(range(16, 32))

EVENTS: dict[str, list[Any]] = {
    "span_start": [1, 1_700_000_000_000_000_000, SPAN, None, "chat gpt-5", 3, {"gen_ai.request.model": "gpt-5"}],
    "span_start with a parent and a link": [1, 2, SPAN, bytes(range(2, 10)), "x", 1, {}, [[TRACE, SPAN, {"k": 1}]]],
    "span_update": [2, 3, 1, {"gen_ai.usage.input_tokens": 812}, None],
    "span_event": [3, 4, 1, "first token", {"index": 0}],
    "span_end": [4, 5, [1, 1], 2, "it failed", {"error.type": "TimeoutError"}],
    "log": [5, 6, 13, "retrying", {"attempt": 2}, SPAN],
    "session_update": [6, 7, {"team": "ci", "nested": {"a": [1, 2.5, True, None, b"bytes"]}}],
    "kv_set": [7, 8, "memory", "goal", {"done": False}],
    "kv_delete": [8, 9, "memory", "goal"],
    "kv_clear": [9, 10, "memory"],
}

EXCEPTION = {"type": "ValueError", "message": "boom", "stack": "Traceback …"}

MESSAGES: dict[str, messages.Message] = {
    "hello": messages.Hello(1, 1, "stranger/1", 4242, "process"),
    "open": messages.Open(2, "nightly-42", {"team": "ci"}, {"service.name": "agent"}, TRACE),
    "open to join": messages.Open(2, "nightly-42", join=True),
    "open to resume": messages.Open(2, "nightly-42", resume_token=TOKEN),
    "events": messages.Events(batch_from(1, list(EVENTS.values()), msgpack.packb(list(EVENTS.values())))),
    "flush": messages.Flush(3, 10, True),
    "end": messages.End(4, "failed", 10, "it failed", EXCEPTION, False),
    "cancel": messages.Cancel(5, "too expensive", 10),
    "cancel of another": messages.Cancel(5, "too expensive", session_id="nightly-42", run=2),
    "crash": messages.Crash(6, "out of memory", 10, EXCEPTION),
    "crash of another": messages.Crash(6, "out of memory", session_id="nightly-42", run=1, pid=7),
    "detach": messages.Detach(7, 3, EXCEPTION),
    "status": messages.Status(8),
    "welcome": messages.Welcome(1, 1, "collectord/0.1.0", "boot", {"frame_size_max_bytes": 8_388_608}),
    "opened": messages.Opened(2, 1, 1, TRACE, 1, TOKEN, "/var/lib/collectord/traces/nightly-42.json"),
    "ack": messages.Ack(10, [[4, 1, "span-ended"], [7, 2, "event-malformed"]], 3),
    "flushed": messages.Flushed(3, 10, 3),
    "terminal": messages.Terminal(Outcome.CRASHED, 1, "/t.json", 4, "process-died", "killed"),
    "terminal that is pushed": messages.Terminal(Outcome.COMPLETED, 1, "/t.json"),
    "detached": messages.Detached(7, 3, "/t.json"),
    "cancel_answer": messages.CancelAnswer(5, 1),
    "cancel_requested": messages.CancelRequested("too expensive", 30.0),
    "stalled": messages.Stalled("disk-failed", "no space left on device"),
    "status_answer": messages.StatusAnswer(8, {"pid": 1}, [{"id": "nightly-42"}], 2),
    "error": messages.Error("session-busy", "it is running", True, 2),
    "error that ends the connection": messages.Error("frame-too-large", "too large", False),
}


def plain(value: Any) -> Any:
    """A value as JSON can hold it: bytes in hex behind a mark."""
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def vectors() -> list[dict[str, Any]]:
    """Every message with its frame in hex and what a msgpack reader makes of the payload."""
    made = []
    for name, message in MESSAGES.items():
        frame = encode_message(message)
        made.append({"name": name, "frame": frame.hex(), "message": plain(msgpack.unpackb(frame[4:]))})
    return made


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n")
