"""Messages: one class each, decoded strictly and once.

Owns the field names and types of everything that crosses the socket (docs/protocol.md lists the same, and a test compares
them). Strict means: exact types (cattrs alone would turn 1.9 into 1 and "no" into True), no unknown fields, no unknown
types, and one kind of error for every way in which msgpack refuses its input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

import cattrs
import msgpack
from attrs import Factory, fields, frozen

from collectord.errors import PeerError
from collectord.limits import FRAME_SIZE_MAX_BYTES, SESSION_ID_SIZE_MAX_BYTES
from collectord.model import Attributes, Outcome
from collectord.wire.events import EventBatch, batch_from, batch_one_by_one
from collectord.wire.frames import encode_frame
from collectord.wire.skim import element_offsets
from collectord.wire.values import fault_of_attributes, is_id

INT64_MAX: Final = (1 << 63) - 1

# ---------------------------------------------------------------- from the client


@frozen
class Hello:
    """The first message of every connection."""

    id: int
    protocol: int
    client: str
    pid: int
    liveness: Literal["process", "connection"] = "process"


@frozen
class Open:
    """Begins, joins or resumes a run."""

    id: int
    session_id: str
    attributes: Attributes = Factory(dict)
    resource: Attributes = Factory(dict)
    trace_id: bytes | None = None
    join: bool = False
    resume_token: bytes | None = None


@frozen
class Events:
    """A batch of events; there is no answer but the cumulative ``Ack``."""

    batch: EventBatch


@frozen
class Flush:
    """Asks to be told when everything sent so far is durable, and with ``export`` in the trace file too."""

    id: int
    last_sequence: int
    export: bool = False


@frozen
class End:
    """The owner ends its run."""

    id: int
    outcome: Literal["completed", "failed"]
    last_sequence: int
    message: str | None = None
    exception: Attributes | None = None
    wait: bool = True


@frozen
class Cancel:
    """Ends the sender's own run as cancelled, or asks the owner of another to stop."""

    id: int
    reason: str
    last_sequence: int | None = None
    session_id: str | None = None
    run: int | None = None
    wait: bool = True


@frozen
class Crash:
    """Reports that a run has crashed: the sender's own, or the one named."""

    id: int
    reason: str
    last_sequence: int | None = None
    exception: Attributes | None = None
    session_id: str | None = None
    run: int | None = None
    pid: int | None = None


@frozen
class Detach:
    """A participant leaves; with ``error`` it says that it leaves because of one."""

    id: int
    last_sequence: int
    error: Attributes | None = None


@frozen
class Status:
    """Asks for the state of the collector."""

    id: int


Request = Hello | Open | Events | Flush | End | Cancel | Crash | Detach | Status

# ---------------------------------------------------------------- from the collector


@frozen
class Welcome:
    """The answer to ``Hello``."""

    id: int
    protocol: int
    server: str
    boot_id: str
    limits: dict[str, int]


@frozen
class Opened:
    """The answer to ``Open``: journal, directory entry and a first trace file exist."""

    id: int
    run: int
    producer: int
    trace_id: bytes
    next_sequence: int
    resume_token: bytes
    path: str


@frozen
class Ack:
    """Everything up to ``sequence`` is durable, but for what is listed as refused since the last one."""

    sequence: int
    refused: list[list[Any]] = Factory(list)
    refused_more: int = 0


@frozen
class Flushed:
    """The answer to ``Flush``; ``refused`` counts the producer's refused events since it began."""

    id: int
    sequence: int
    refused: int


@frozen
class Terminal:
    """The answer to ``End``, ``Crash`` and ``Cancel`` of one's own run; pushed without an id to every other producer."""

    outcome: Outcome
    run: int
    path: str | None = None
    id: int | None = None
    reason: str | None = None
    message: str | None = None
    export_error: str | None = None


@frozen
class Detached:
    """The answer to ``Detach``."""

    id: int
    sequence: int
    path: str


@frozen
class CancelAnswer:
    """The answer to ``Cancel`` of somebody else's run: its owner was told."""

    id: int
    run: int


@frozen
class CancelRequested:
    """Pushed to the owner: somebody wants the run to stop."""

    reason: str
    grace_s: float


@frozen
class Stalled:
    """Pushed to every producer of a run whose disk failed: nothing is acknowledged until it works again."""

    code: str
    message: str


@frozen
class StatusAnswer:
    """The answer to ``Status``."""

    id: int
    daemon: Attributes
    sessions: list[Attributes]
    sessions_left_out: int = 0


@frozen
class Error:
    """What went wrong, whose doing it was, and whether trying again can help. Without an id it ends the connection."""

    code: str
    message: str
    retryable: bool
    id: int | None = None


Answer = Welcome | Opened | Ack | Flushed | Terminal | Detached | CancelAnswer | CancelRequested | Stalled | StatusAnswer | Error
Message = Request | Answer

REQUEST_TYPES: Final[dict[str, type[Any]]] = {
    "hello": Hello,
    "open": Open,
    "events": Events,
    "flush": Flush,
    "end": End,
    "cancel": Cancel,
    "crash": Crash,
    "detach": Detach,
    "status": Status,
}
ANSWER_TYPES: Final[dict[str, type[Any]]] = {
    "welcome": Welcome,
    "opened": Opened,
    "ack": Ack,
    "flushed": Flushed,
    "terminal": Terminal,
    "detached": Detached,
    "cancel_answer": CancelAnswer,
    "cancel_requested": CancelRequested,
    "stalled": Stalled,
    "status_answer": StatusAnswer,
    "error": Error,
}
_NAMES: Final = {cls: name for name, cls in (REQUEST_TYPES | ANSWER_TYPES).items()}


# ---------------------------------------------------------------- encoding


def encode_message(message: Message) -> bytes:
    """A message as one frame. Fields that are None are left out."""
    body: dict[str, Any] = {"type": _NAMES[type(message)]}
    if isinstance(message, Events):
        body["first_sequence"] = message.batch.first_sequence
        body["events"] = message.batch.events
    else:
        for field in fields(type(message)):
            value = getattr(message, field.name)
            if value is not None:
                body[field.name] = value.value if isinstance(value, Outcome) else value
    payload: bytes = msgpack.packb(body, unicode_errors="surrogatepass")
    return encode_frame(payload)


# ---------------------------------------------------------------- decoding

T = TypeVar("T")


def _exactly(expected: type[T], words: str) -> Callable[[Any, Any], T]:
    def check(value: Any, _: Any) -> T:
        if type(value) is not expected:
            raise ValueError(f"{words} expected, not {type(value).__name__}")
        return value

    return check


def _int64(value: Any, _: Any) -> int:
    if type(value) is not int or not 0 <= value <= INT64_MAX:
        raise ValueError("an integer from 0 to 2**63-1 expected")
    return value


def _attributes(value: Any, _: Any) -> Attributes:
    if type(value) is not dict:
        raise ValueError(f"a map expected, not {type(value).__name__}")
    fault = fault_of_attributes(value)
    if fault is not None:
        raise ValueError(f"a map of attributes expected ({fault})")
    return value


def _strict_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    for expected, words in ((str, "text"), (bytes, "bin"), (bool, "true or false")):
        converter.register_structure_hook(expected, _exactly(expected, words))
    converter.register_structure_hook(float, _exactly(float, "a float"))
    converter.register_structure_hook(int, _int64)
    converter.register_structure_hook_func(lambda kind: kind == Attributes, _attributes)
    return converter


_CONVERTER: Final = _strict_converter()


def decode_request(payload: bytes) -> Request:
    """A client's message.

    Raises:
        PeerError: ``frame-malformed``, ``message-malformed`` or ``message-unknown``. Bad events in a sound ``events``
            message raise nothing: they are in ``EventBatch.refused``.
    """
    request: Request = _decode(payload, REQUEST_TYPES)
    if isinstance(request, Open):
        _check_open(request)
    elif isinstance(request, Crash | End | Detach):
        _check_exception(request.error if isinstance(request, Detach) else request.exception)
    return request


def decode_answer(payload: bytes) -> Answer:
    """A collector's message, for clients written with this package.

    Raises:
        PeerError: as ``decode_request``.
    """
    answer: Answer = _decode(payload, ANSWER_TYPES)
    return answer


def _decode(payload: bytes, types: dict[str, type[Any]]) -> Any:
    body, raw_events = _unpack(payload)
    name = body.pop("type", None)
    cls = types.get(name) if type(name) is str else None
    if cls is None:
        raise PeerError("message-unknown", f"no message has the type {name!r:.100}")
    if cls is Events:
        return _events_from(body, raw_events)
    try:
        return _CONVERTER.structure(body, cls)
    except (cattrs.BaseValidationError, ValueError, TypeError, KeyError) as error:
        reasons = "; ".join(cattrs.transform_error(error, path="", format_exception=_sentence))
        raise PeerError("message-malformed", f"{name}: {reasons:.500}") from None


def _sentence(error: BaseException, _: type | None) -> str:
    if isinstance(error, KeyError):
        return f"the field {error.args[0]} is missing"
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return f"unknown field {', '.join(sorted(map(repr, error.extra_fields)))}"
    return str(error) or type(error).__name__


def _unpack(payload: bytes) -> tuple[dict[str, Any], bytes | None]:
    """The fields of a message, and the bytes of its ``events`` where it has that field.

    The value under ``events`` is the decoded list, or None where it could not be decoded as a whole.
    """
    unpacker = msgpack.Unpacker(unicode_errors="surrogatepass", strict_map_key=True, max_buffer_size=FRAME_SIZE_MAX_BYTES)
    unpacker.feed(payload)
    body: dict[str, Any] = {}
    raw_events: bytes | None = None
    try:
        for _ in range(unpacker.read_map_header()):
            key = unpacker.unpack()
            if type(key) is not str or key in body:
                raise PeerError("message-malformed", "a message is a map of fields, each named once by text")
            start = unpacker.tell()
            if key != "events":
                body[key] = unpacker.unpack()
                continue
            try:
                body[key] = unpacker.unpack()
                stop = unpacker.tell()
            except (ValueError, TypeError, msgpack.exceptions.UnpackException):
                body[key] = None
                stop = element_offsets(payload, start)[-1]
                unpacker = msgpack.Unpacker(unicode_errors="surrogatepass", max_buffer_size=FRAME_SIZE_MAX_BYTES)
                unpacker.feed(payload)
                unpacker.read_bytes(stop)
            raw_events = payload[start:stop]
        if unpacker.tell() != len(payload):
            raise PeerError("frame-malformed", "bytes are left over behind the message")
    except PeerError:
        raise
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise PeerError("frame-malformed", f"the payload is no msgpack map ({type(error).__name__})") from None
    return body, raw_events


def _events_from(body: dict[str, Any], raw: bytes | None) -> Events:
    first_sequence = body.pop("first_sequence", None)
    events = body.pop("events", None)
    if body:
        raise PeerError("message-malformed", f"events: unknown field {', '.join(sorted(map(repr, body))):.500}")
    if type(first_sequence) is not int or not 1 <= first_sequence <= INT64_MAX - (1 << 32):
        raise PeerError("message-malformed", "events: first_sequence must be an integer from 1")
    if raw is None:
        raise PeerError("message-malformed", "events: the field events is missing")
    if events is None:
        return Events(batch_one_by_one(first_sequence, raw))
    if type(events) is not list:
        raise PeerError("message-malformed", "events: `events` must be an array")
    return Events(batch_from(first_sequence, events, raw))


def _check_open(request: Open) -> None:
    size = len(request.session_id.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= SESSION_ID_SIZE_MAX_BYTES:
        raise PeerError("session-id-invalid", f"a session id of {size} bytes; 1 to {SESSION_ID_SIZE_MAX_BYTES} are allowed")
    if request.trace_id is not None and not is_id(request.trace_id, 16):
        raise PeerError("message-malformed", "open: trace_id must be 16 bytes that are not all zero")


def _check_exception(exception: Attributes | None) -> None:
    """Exceptions are ``{"type", "message", "stack"}``, each text or nil."""
    for key, value in (exception or {}).items():
        if key not in ("type", "message", "stack") or not (value is None or type(value) is str):
            raise PeerError("message-malformed", "an exception has type, message and stack, each text or nil")
