"""Spans: started and ended by the host, told to the collector as they happen."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from contextvars import ContextVar, Token
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from collectord_client import _codec
from collectord_client._harmless import harmless
from collectord_client._values import as_text

if TYPE_CHECKING:
    from collectord_client._session import Session


class _Root:
    """The parent of a span that has none."""

    def __repr__(self) -> str:
        return "ROOT"


ROOT: Final = _Root()
"""Pass as ``parent`` to start a span at the top, whatever the current span is."""

current: ContextVar[Span | None] = ContextVar("collectord_current_span", default=None)


class Span:
    """One timed operation. As a context manager it is the current span inside, and ends with the block.

    Made by ``Session.span`` and ``Session.start_span``.
    """

    __slots__ = ("_ended", "_message", "_session", "_status", "_token", "id", "name", "sequence")

    def __init__(self, session: Session, span_id: bytes, name: str) -> None:
        self._session = session
        self._ended = False
        self._status = 0
        self._message: str | None = None
        self._token: Token[Span | None] | None = None
        self.id = span_id
        self.name = name
        self.sequence = 0

    @property
    def span_id(self) -> str:
        """The id as 16 hex digits."""
        return self.id.hex()

    @property
    def session(self) -> Session:
        """The session that the span belongs to."""
        return self._session

    @property
    def is_recording(self) -> bool:
        """Whether something may still be added."""
        return not self._ended

    def blame(self, call: str, error: Exception) -> None:
        """A call of the host's raised: its session tells of it."""
        self._session.blame(call, error)

    def void(self) -> Self:
        """The span of a call that went wrong: it takes nothing, and nobody is told of it."""
        self._ended = True
        return self

    @harmless(None)
    def set_attribute(self, key: str, value: Any) -> None:
        """Set one attribute; the collector has it at once, not only when the span ends."""
        self.set_attributes({key: value})

    @harmless(None)
    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        self._tell(_codec.SPAN_UPDATE, lambda longest: _codec.pack_parts(self._session.fit(attributes, longest), None))

    @harmless(None)
    def update_name(self, name: str) -> None:
        """Give the span another name."""
        self.name = as_text(name)
        self._tell(_codec.SPAN_UPDATE, lambda _: _codec.pack_parts({}, self.name))

    @harmless(None)
    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Something happened in the span; ``timestamp`` in Unix nanoseconds, now if left out."""
        self._tell(
            _codec.SPAN_EVENT,
            lambda longest: _codec.pack_parts(as_text(name), self._session.fit(attributes, longest)),
            timestamp,
        )

    @harmless(None)
    def record_exception(self, exception: BaseException, attributes: Mapping[str, Any] | None = None) -> None:
        """An exception, as an event with its type, message and stack."""
        own = exception_attributes(exception)
        self.add_event("exception", {**own, **attributes} if isinstance(attributes, Mapping) else own)

    @harmless(None)
    def set_status(self, status: str, message: str | None = None) -> None:
        """What the end of the span will say: "unset", "ok" or "error"."""
        self._status = _codec.STATUSES.get(as_text(status), 0)
        self._message = None if message is None else as_text(message)

    @harmless(None)
    def end(self, status: str | None = None, message: str | None = None, end_time: int | None = None) -> None:
        """End the span; a second time is ignored, and counted.

        Args:
            status: "unset", "ok" or "error"; what ``set_status`` said if left out.
            message: of an error.
            end_time: Unix nanoseconds, now if left out.
        """
        if self._ended:
            self._session.count("ended_twice")
            return
        if status is not None:
            self.set_status(status, message)
        elif message is not None:
            self._message = as_text(message)
        code, words = self._status, self._message
        self._tell(_codec.SPAN_END, lambda _: _codec.pack_parts(code, words, {}), end_time)
        self._ended = True

    def _tell(self, kind: int, make: Any, at: int | None = None) -> None:
        if self._ended:
            self._session.count("after_end")
            return
        self._session.emit(kind, at, make, refers_to=self)

    def __enter__(self) -> Self:
        self._token = current.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None) -> None:
        if self._token is not None:
            try:
                current.reset(self._token)
            except ValueError:  # left in another context than it was entered in: that context keeps its own current span
                if current.get() is self:
                    current.set(None)
            self._token = None
        if self._ended:
            return
        if error is not None and not isinstance(error, GeneratorExit):
            if not is_cancellation(error):
                self.record_exception(error)
                self.set_status("error", f"{type(error).__name__}: {_text_of(error)}")
            else:
                self.set_attribute("collectord.span.cancelled", True)
        self.end()


def exception_attributes(error: BaseException) -> dict[str, str]:
    """OpenTelemetry's attributes of an exception."""
    return {
        "exception.type": type(error).__qualname__
        if type(error).__module__ == "builtins"
        else f"{type(error).__module__}.{type(error).__qualname__}",
        "exception.message": _text_of(error),
        "exception.stacktrace": stack_of(error),
    }


def stack_of(error: BaseException) -> str:
    """The traceback as text; whatever an exception's own code does."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception as fault:  # noqa: BLE001 — an exception whose text raises must not end the host
        return f"the traceback could not be formatted: {type(fault).__name__}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 — as above
        return ""


def is_cancellation(error: BaseException) -> bool:
    """Whether an exception is how asyncio or trio cancel: known by name, so that neither needs to be imported."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_cancellation(inner) for inner in error.exceptions)
    for cls in type(error).__mro__:
        if cls.__name__ == "CancelledError" and cls.__module__.startswith(("asyncio", "concurrent.futures")):
            return True
        if cls.__name__ == "Cancelled" and cls.__module__.startswith("trio"):
            return True
    return False


def now_ns() -> int:
    """Unix nanoseconds."""
    return time_ns()
