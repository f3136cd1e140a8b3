"""Sessions: opened at once, ended once, and never in the way of the program that they trace.

Owns what a host can call on a session. How it reaches the collector is the transport's.
"""

from __future__ import annotations

import os
import platform
import random
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from collectord_client import _codec, _crash
from collectord_client._entries import Event, Request, bounded
from collectord_client._harmless import harmless
from collectord_client._limits import (
    CONNECT_TIMEOUT_S,
    CUT_TEXT_KEPT,
    END_TIMEOUT_S,
    FRAME_SIZE_MAX_BYTES,
)
from collectord_client._paths import default_socket_path
from collectord_client._span import ROOT, Span, _Root, current, exception_attributes, is_cancellation, now_ns
from collectord_client._transport import SocketTransport, Transport
from collectord_client._values import as_text, fit, fit_attributes

UNKNOWN: Final = "unknown"
RUNNING: Final = "running"

_EVENT_SIZE_MAX_BYTES: Final = FRAME_SIZE_MAX_BYTES - 4_096
_CUTS: Final = (CUT_TEXT_KEPT, 8_192, 1_024, 64)
"""Where texts are cut, one step after the other, until an event fits into a frame."""

_random = random.Random(os.urandom(16))
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(16)))


class Ended:
    """What a terminal call came to: the outcome that stands, and where the trace file is."""

    __slots__ = ("message", "outcome", "path")

    def __init__(self, outcome: str, path: str | None, message: str | None = None) -> None:
        self.outcome = outcome
        self.path = path
        self.message = message

    def __repr__(self) -> str:
        return f"Ended(outcome={self.outcome!r}, path={self.path!r})"


def _stands(session: Any) -> Any:
    return session.as_it_stands()


class Space:
    """A named map of values that belongs to a session; the trace shows its last state."""

    __slots__ = ("_name", "_session")

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._name = as_text(name)

    def set(self, key: str, value: Any) -> None:
        """Set a value."""
        self._session.emit(
            _codec.KV_SET, None, lambda longest: _codec.pack_parts(self._name, as_text(key), fit(value, set(), longest))
        )

    def delete(self, key: str) -> None:
        """Remove a value."""
        self._session.emit(_codec.KV_DELETE, None, lambda _: _codec.pack_parts(self._name, as_text(key)))

    def clear(self) -> None:
        """Remove all values."""
        self._session.emit(_codec.KV_CLEAR, None, lambda _: _codec.pack_parts(self._name))


_ELEMENTS: Final = {
    _codec.SPAN_START: 8,
    _codec.SPAN_UPDATE: 5,
    _codec.SPAN_EVENT: 5,
    _codec.SPAN_END: 6,
    _codec.LOG: 6,
    _codec.SESSION_UPDATE: 3,
    _codec.KV_SET: 5,
    _codec.KV_DELETE: 4,
    _codec.KV_CLEAR: 3,
}


class Session:
    """One agent's session with the collector. Made by ``session``; a context manager.

    Attributes:
        id: as given.
        run: which incarnation of the session this is; 0 without a collector.
        trace_id: 32 hex digits.
        path: of the trace file, None without a collector.
    """

    def __init__(self, session_id: str, transport: Transport, opened: dict[str, Any] | None, joined: bool) -> None:
        self.id = session_id
        self.run: int = 0
        self.path: str | None = None
        self.trace_id = _random.getrandbits(128).to_bytes(16, "big").hex()
        self.joined = joined
        self._transport = transport
        self._result: Ended | None = None
        self._pushed: Ended | None = None
        self._asked: dict[str, Request] = {}
        self._is_over = False
        self._connected = opened is not None
        self._local: dict[str, int] = {}
        self._fault = ""
        self._on_cancel: list[Callable[[str], object]] = []
        if opened is not None:
            self.run, self.path = opened["run"], opened["path"]
            self.trace_id = opened["trace_id"].hex()
            _crash.keep(self)

    @property
    def outcome(self) -> str:
        """How the run stands: `running`, one of the terminal four, or `unknown` where the collector cannot be asked."""
        known = self._result or self._pushed
        if known is not None:
            return known.outcome
        return RUNNING if self._connected and not self._transport_is_quiet() else UNKNOWN

    def _transport_is_quiet(self) -> bool:
        return self._transport.is_quiet

    # ------------------------------------------------------------ spans

    def span(
        self,
        name: str,
        parent: Span | _Root | str | None = None,
        kind: str = "internal",
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Any] | None = None,
        start_time: int | None = None,
        span_id: str | None = None,
    ) -> Span:
        """A span to be used with ``with``: current inside the block, ended with it. Arguments as ``start_span``."""
        return self.start_span(name, parent, kind, attributes, links, start_time, span_id)

    @harmless(lambda self: Span(self, _new_id(), "").void())
    def start_span(
        self,
        name: str,
        parent: Span | _Root | str | None = None,
        kind: str = "internal",
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Any] | None = None,
        start_time: int | None = None,
        span_id: str | None = None,
    ) -> Span:
        """Start a span, to be ended by hand.

        Args:
            name: of the operation.
            parent: the current span if None, none if ``ROOT``; a span, or the 16 hex digits of one that may be elsewhere.
            kind: "internal", "server", "client", "producer" or "consumer".
            attributes: any values; what the collector cannot take is changed and marked.
            links: spans, or ``(trace_id, span_id)`` or ``(trace_id, span_id, attributes)`` with ids in hex.
            start_time: Unix nanoseconds, now if None.
            span_id: 16 hex digits, random if None.
        """
        own_id = self._bytes_of(span_id, 8) or _new_id()
        span = Span(self, own_id, as_text(name))
        parent_id = self._parent_id(parent)
        number = _codec.KINDS.get(kind, 1) if isinstance(kind, str) else 1
        listed = self._links(links)
        self.emit(
            _codec.SPAN_START,
            start_time,
            lambda longest: _codec.pack_parts(own_id, parent_id, span.name, number, self.fit(attributes, longest), listed),
            starts=span,
        )
        return span

    def _parent_id(self, parent: Span | _Root | str | None) -> bytes | None:
        if parent is None:
            inside = current.get()
            return inside.id if inside is not None and inside.session is self else None
        if isinstance(parent, Span):
            return parent.id
        return self._bytes_of(parent, 8) if isinstance(parent, str) else None

    def _bytes_of(self, text: str | None, size: int) -> bytes | None:
        """The bytes of an id in hex; what is none is counted and left out."""
        if text is None:
            return None
        try:
            raw = bytes.fromhex(text)
        except (ValueError, TypeError):
            raw = b""
        if len(raw) == size and any(raw):
            return raw
        self.count("ids_invalid")
        return None

    def _links(self, links: Sequence[Any] | None) -> list[Any]:
        listed: list[list[Any]] = []
        if not isinstance(links, list | tuple | None):
            self.count("links_invalid")
            return listed
        for link in links or ():
            if isinstance(link, Span):
                listed.append([bytes.fromhex(link.session.trace_id), link.id, {}])
                continue
            try:
                trace_id, span_id, *rest = link
            except (TypeError, ValueError):
                self.count("links_invalid")
                continue
            trace, span = self._bytes_of(trace_id, 16), self._bytes_of(span_id, 8)
            if trace is not None and span is not None:
                listed.append([trace, span, self.fit(rest[0] if rest else None, None)])
        return listed

    # ------------------------------------------------------------ other events

    @harmless(None)
    def log(self, message: Any, severity: str = "info", attributes: Mapping[str, Any] | None = None) -> None:
        """A levelled message: "trace", "debug", "info", "warn", "error" or "fatal"; belongs to the current span."""
        number = _codec.SEVERITIES.get(as_text(severity).lower(), 9)
        inside = current.get()
        span_id = inside.id if inside is not None and inside.session is self else None
        self.emit(
            _codec.LOG,
            None,
            lambda longest: _codec.pack_parts(number, fit(message, set(), longest), self.fit(attributes, longest), span_id),
        )

    @harmless(None)
    def set_attribute(self, key: str, value: Any) -> None:
        """Set one attribute of the session."""
        self.set_attributes({key: value})

    @harmless(None)
    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes of the session."""
        self.emit(_codec.SESSION_UPDATE, None, lambda longest: _codec.pack_parts(self.fit(attributes, longest)))

    def space(self, name: str) -> Space:
        """A named map of values."""
        return Space(self, name)

    def on_cancel(self, callback: Callable[[str], object]) -> None:
        """Be told, in a thread of its own, when somebody asks the run to stop; the argument is the reason."""
        self._on_cancel.append(callback)

    # ------------------------------------------------------------ durability and the end

    @harmless(False)
    def flush(self, timeout: float = 5.0, export: bool = False) -> bool:
        """Wait until everything so far is durable; with ``export``, until it is in the trace file too.

        Returns:
            True where it is, and nothing was refused. False in every other case, also when the time is over.
        """
        if self._is_over or not self._connected:
            return False
        request = self._transport.request({"type": "flush", "export": bool(export)})
        answer = request.wait(timeout)
        statistics = self._transport.statistics()
        return answer is not None and answer["type"] == "flushed" and not answer["refused"] and not statistics["lost"]

    @harmless(_stands)
    def end(
        self, /, outcome: str = "completed", message: str | None = None, timeout: float = END_TIMEOUT_S, **fields: Any
    ) -> Ended:
        """End the run as "completed" or "failed". Idempotent: answers with the outcome that stands.

        A participant does not end the run it joined: it detaches.
        """
        if self.joined:
            return self.detach(timeout=timeout)
        wanted = outcome if isinstance(outcome, str) and outcome in ("completed", "failed") else "failed"
        fields = {"outcome": wanted, "message": _text_or_none(message), "wait": True, **fields}
        return self._finish({"type": "end", **fields}, timeout)

    @harmless(_stands)
    def crash(self, /, reason: str = "", timeout: float = END_TIMEOUT_S, **fields: Any) -> Ended:
        """Report that the run has crashed. Never waits behind an ``end`` that is waiting."""
        if self.joined:
            return self.detach(error={"type": None, "message": as_text(reason), "stack": None}, timeout=timeout)
        return self._finish({"type": "crash", "reason": as_text(reason), **fields}, timeout)

    @harmless(_stands)
    def cancel(self, reason: str = "", timeout: float = END_TIMEOUT_S) -> Ended:
        """End the run as cancelled. A participant asks the owner to, and the run goes on until that one ends it."""
        if self.joined:
            self._transport.request({"type": "cancel", "reason": as_text(reason)}).wait(timeout)
            return Ended(self.outcome, self.path)
        return self._finish({"type": "cancel", "reason": as_text(reason), "wait": True}, timeout)

    @harmless(_stands)
    def detach(self, error: dict[str, str | None] | None = None, timeout: float = END_TIMEOUT_S) -> Ended:
        """Leave a run that was joined; it goes on. With ``error`` the trace says that we left because of it."""
        if not self.joined:
            return Ended(self.outcome, self.path)
        if self._result is None and self._connected:
            self._is_over = True
            request = self._ask_once({"type": "detach", "error": error})
            answer = request.wait(timeout)
            if answer is not None and answer["type"] == "detached":
                self._result = Ended(self._pushed.outcome if self._pushed else RUNNING, self.path)
                self._transport.close()
        return self._result or self.as_it_stands()

    def _finish(self, fields: dict[str, Any], timeout: float) -> Ended:
        """Send a terminal request and keep the outcome that stands."""
        known = self._result or self._pushed
        if known is not None:
            self._result = known
            self._transport.close()
            return known
        if not self._connected:
            return Ended(UNKNOWN, None)
        return self._conclude(self._ask_once(fields).wait(timeout))

    def _ask_once(self, fields: dict[str, Any]) -> Request:
        """A request after which nothing is wanted any more; one that waits already is waited for, not made again."""
        request = self._asked.get(fields["type"])
        if request is None or request.over.is_open:
            request = self._asked[fields["type"]] = self._transport.request(fields, is_last=True)
        return request

    def _conclude(self, answer: dict[str, Any] | None) -> Ended:
        self._is_over = True
        if answer is not None and answer["type"] == "terminal":
            self._result = _ended(answer)
            self._transport.close()
        elif answer is not None and answer["type"] == "error":
            self._fault = f"{answer.get('message')} ({answer.get('code')})"
        return self._result or self._pushed or Ended(UNKNOWN, self.path)

    # ------------------------------------------------------------ the with block

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None) -> None:
        if self._is_over:
            return
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.end()
        elif self.joined:
            self.detach(_exception_of(error))
        elif isinstance(error, KeyboardInterrupt | GeneratorExit) or is_cancellation(error):
            self.cancel(type(error).__name__)
        elif isinstance(error, SystemExit):
            self.end("failed", f"exited with status {error.code}")
        else:
            exception = _exception_of(error)
            self.end("failed", f"{exception['type']}: {exception['message']}", exception=exception)

    # ------------------------------------------------------------ what the hooks call

    def unhandled(self, error: BaseException) -> Callable[[float], object]:
        """An exception that nobody handled: tell the collector at once; the answer is waited for by what is returned."""
        if self._is_over or not self._connected:
            return lambda timeout: None
        exception = _exception_of(error)
        if self.joined:
            self._is_over = True
            return self._ask_once({"type": "detach", "error": exception}).wait
        reason = f"{exception['type']}: {exception['message']}"
        request = self._transport.request({"type": "crash", "reason": reason, "exception": exception}, is_last=True)
        return lambda timeout: self._conclude(request.wait(timeout))

    def settle(self, timeout: float) -> None:
        """Wait until what is queued is sent, and what was asked last is answered."""
        self._transport.settle(timeout)

    def abandon_after_fork(self) -> None:
        """In a child: go quiet, and leave the parent's connection alone."""
        self._transport.abandon_after_fork()

    def hear(self, message: dict[str, Any]) -> None:
        """What the collector says unasked, and every outcome, in the background thread."""
        if message["type"] == "terminal":
            self._pushed = _ended(message)
        elif message["type"] == "cancel_requested":
            reason = str(message.get("reason", ""))
            threading.Thread(target=self._tell_of_cancel, args=(reason,), name="collectord-cancel", daemon=True).start()

    def _tell_of_cancel(self, reason: str) -> None:
        """In a thread of its own, since a callback may end the session, whose answer the background thread brings."""
        for callback in self._on_cancel:
            try:
                callback(reason)
            except Exception as error:  # noqa: BLE001 — a host's callback must not end our thread
                self._fault = f"a callback of on_cancel raised {type(error).__name__}"

    # ------------------------------------------------------------ emitting

    def emit(
        self,
        kind: int,
        at: int | None,
        make: Callable[[int | None], bytes],
        refers_to: Span | None = None,
        starts: Span | None = None,
    ) -> None:
        """Queue one event. Never raises: what cannot be encoded is counted.

        Args:
            kind: of the event.
            at: Unix nanoseconds, now if None.
            make: gives the elements behind the time (and the reference); its argument says where to cut texts.
            refers_to: the span that the event is about.
            starts: the span that it starts.
        """
        if self._is_over:
            self.count("after_end")
            return
        try:
            time = now_ns() if at is None else int(at)
            before = _codec.array_header(_ELEMENTS[kind]) + _codec.pack_parts(kind, time)
            after = make(None)
            for longest in _CUTS:
                if len(after) <= _EVENT_SIZE_MAX_BYTES:
                    break
                after = make(longest)
            if len(after) > _EVENT_SIZE_MAX_BYTES:
                self.count("too_large")
                return
            self._transport.submit(Event(before, after, refers_to, starts))
        except Exception as error:  # noqa: BLE001 — a value's own code, or a bug of ours: never the host's trouble
            self.count("not_encoded")
            self._fault = f"an event could not be encoded: {type(error).__name__}: {error}"

    def fit(self, attributes: Mapping[str, Any] | None, longest: int | None) -> dict[str, Any]:
        """Attributes as the collector takes them."""
        return fit_attributes(attributes, longest)

    def count(self, what: str) -> None:
        """Count something that the host did and that had no effect."""
        self._local[what] = self._local.get(what, 0) + 1

    def blame(self, call: str, error: Exception) -> None:
        """A call of the host's raised, which is kept here instead."""
        self.count("wrong_calls")
        self._fault = f"{call} was called wrongly: {type(error).__name__}: {as_text(error)}"

    def as_it_stands(self) -> Ended:
        """What a terminal call answers that could not be made."""
        return Ended(self.outcome, self.path)

    def statistics(self) -> dict[str, Any]:
        """What was accepted, sent, acknowledged, refused (by code) and lost; the state of the connection; the last error."""
        found = self._transport.statistics()
        found["ignored"] = dict(self._local)
        if self._fault:
            found["last_error"] = self._fault
        return found


def _ended(message: dict[str, Any]) -> Ended:
    return Ended(str(message.get("outcome")), message.get("path"), message.get("message"))


def _exception_of(error: BaseException) -> dict[str, str | None]:
    found = exception_attributes(error)
    return {
        "type": found["exception.type"],
        "message": found["exception.message"][:CUT_TEXT_KEPT],
        "stack": found["exception.stacktrace"][-CUT_TEXT_KEPT:],
    }


def _text_or_none(text: Any) -> str | None:
    return None if text is None else as_text(text)


def _new_id() -> bytes:
    return (_random.getrandbits(64) or 1).to_bytes(8, "big")


def current_span() -> Span | None:
    """The span whose ``with`` block this code runs in, in this thread, task or context."""
    return current.get()


def _resource() -> dict[str, Any]:
    """What OpenTelemetry calls the resource: this process."""
    name = os.environ.get("OTEL_SERVICE_NAME") or os.path.basename(sys.argv[0] if sys.argv else "") or "python"
    return {
        "service.name": name,
        "process.pid": os.getpid(),
        "process.executable.name": os.path.basename(sys.executable or "python"),
        "process.command_args": list(sys.argv),
        "process.runtime.name": platform.python_implementation().lower(),
        "process.runtime.version": platform.python_version(),
        "host.name": platform.node(),
        "telemetry.sdk.name": "collectord",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": "0.1.0",
    }


def session(
    session_id: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    socket_path: str | None = None,
    join: bool = False,
    trace_id: str | None = None,
    timeout: float = CONNECT_TIMEOUT_S,
) -> Session:
    """Open a session at once.

    Args:
        session_id: any text; a random one if None.
        attributes: of the session.
        socket_path: of the collector; see ``COLLECTORD_SOCKET`` if None.
        join: add to the running session of that name instead of beginning a run.
        trace_id: 32 hex digits, chosen by the collector if None.
        timeout: seconds this may take.

    Returns:
        A session that records, or, without a collector or where it refuses, one that does nothing: its ``path`` is None, its
        ``outcome`` "unknown", and ``statistics()["last_error"]`` says why.
    """
    name = as_text(session_id) if session_id is not None else uuid.uuid4().hex
    opening: dict[str, Any] = {
        "session_id": name,
        "attributes": fit_attributes(attributes),
        "resource": fit_attributes(_resource()),
        "join": bool(join),
    }
    raw_trace = _trace_id(trace_id)
    if raw_trace is not None:
        opening["trace_id"] = raw_trace
    heard: list[Session] = []
    early: list[dict[str, Any]] = []

    def hear(message: dict[str, Any]) -> None:
        if heard:
            heard[0].hear(message)
        else:
            early.append(message)

    path = as_text(socket_path) if socket_path else default_socket_path()
    transport = SocketTransport(path, opening, hear)
    opened = transport.opened if transport.open(bounded(timeout)) else None
    made = Session(name, transport, opened, bool(join))
    if opened is None and raw_trace is not None:
        made.trace_id = raw_trace.hex()
    heard.append(made)
    for message in early:
        made.hear(message)
    if trace_id is not None and raw_trace is None:
        made.count("ids_invalid")
    return made


def _trace_id(text: str | None) -> bytes | None:
    try:
        raw = bytes.fromhex(text or "")
    except (ValueError, TypeError):
        return None
    return raw if len(raw) == 16 and any(raw) else None


def statistics() -> dict[str, Any]:
    """The statistics of every open session of this process, by id."""
    return {session.id: session.statistics() for session in list(_crash.sessions)}


__all__ = ["ROOT", "Ended", "Session", "Space", "Span", "current_span", "session", "statistics"]
