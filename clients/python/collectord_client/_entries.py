"""What waits to be sent: events, what was lost between them, and requests with whoever waits for their answers."""

from __future__ import annotations

import math
import threading
from typing import Any, Protocol

from collectord_client._codec import pack

OVERHEAD_BYTES = 120
"""What an event in the queue, or a frame that is kept, costs beside its bytes, about."""


def bounded(timeout_s: float | None) -> float:
    """A timeout that a lock takes: a host may say -1, infinity, or what is no number."""
    if not isinstance(timeout_s, int | float) or math.isnan(timeout_s) or timeout_s < 0:
        return 0.0
    return float(min(timeout_s, threading.TIMEOUT_MAX))


class Gate:
    """Opened once; whoever waits goes on.

    One raw lock. A ``threading.Event`` has a lock of its own that is held for moments: a signal handler that runs in such a
    moment and waits for an answer would keep the thread that brings the answer from opening it.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Let everybody through; a second time changes nothing."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it is open

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until it is open; False where it is not by then."""
        is_open = self._lock.acquire(timeout=bounded(timeout_s))
        if is_open:
            self.set()
        return is_open

    @property
    def is_open(self) -> bool:
        """Whether nobody would wait."""
        return not self._lock.locked()


class Referable(Protocol):
    """Something that later events refer to by its sequence."""

    sequence: int


class Event:
    """One event in the queue: its bytes in two parts where a reference stands between them."""

    __slots__ = ("after", "before", "refers_to", "starts")

    def __init__(self, before: bytes, after: bytes, refers_to: Referable | None, starts: Referable | None) -> None:
        self.before = before
        self.after = after
        self.refers_to = refers_to
        self.starts = starts

    def encoded(self) -> bytes | None:
        """The event whole; None where it refers to something that was never sent."""
        if self.refers_to is None:
            return self.before + self.after
        if not self.refers_to.sequence:
            return None
        return self.before + pack(self.refers_to.sequence) + self.after

    @property
    def size_bytes(self) -> int:
        """What it costs while it waits."""
        return len(self.before) + len(self.after) + OVERHEAD_BYTES


class Lost:
    """A stretch of events that the memory had no room for."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count


class Request:
    """A message that is answered, and whoever waits for that.

    Attributes:
        is_last: whether nothing more is wanted of the collector once it is answered: an end, or a departure.
        last_sequence: behind which event it was asked; 0 until it is sent.
    """

    __slots__ = ("_given_up", "answer", "fields", "is_last", "last_sequence", "over")

    def __init__(self, fields: dict[str, Any], is_last: bool = False) -> None:
        self.fields = fields
        self.is_last = is_last
        self.last_sequence = 0
        self.over = Gate()
        self.answer: dict[str, Any] | None = None
        self._given_up = False

    def wait(self, timeout_s: float | None) -> dict[str, Any] | None:
        """The answer, or None where there was none in time."""
        self._given_up = not self.over.wait(timeout_s)
        return self.answer

    @property
    def is_wanted(self) -> bool:
        """Whether it need be asked (again): a flush for which nobody waits any more changes nothing."""
        return not self._given_up or self.fields.get("type") != "flush"

    def abandon_after_fork(self) -> None:
        """In a child: nobody will answer; and the gate may be half open in a thread that is not here."""
        self.over = Gate()
        self.over.set()
