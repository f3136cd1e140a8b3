"""How events and requests get to the collector: one small interface, and a socket with one background thread behind it.

Owns the connection, the sequences, and what is not acknowledged yet. Knows nothing of spans. Whoever submits never waits for
the collector: it appends to a queue, whose order is the order of the events.
"""

from __future__ import annotations

import itertools
import math
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from collectord_client import _codec
from collectord_client._limits import (
    BATCH_EVENTS_MAX,
    BATCH_SIZE_MAX_BYTES,
    MEMORY_MAX_BYTES,
    PROTOCOL_VERSION,
    RECONNECT_FIRST_S,
    RECONNECT_GIVE_UP_S,
    RECONNECT_MAX_S,
)

_RECEIVE_SIZE_BYTES = 1 << 16
_OVERHEAD_BYTES = 120
"""What an event in the queue costs beside its bytes, about."""


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


class Lost:
    """A stretch of events that the memory had no room for."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count


class Request:
    """A message that is answered, and whoever waits for that."""

    __slots__ = ("answer", "fields", "over")

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self.over = Gate()
        self.answer: dict[str, Any] | None = None

    def wait(self, timeout_s: float | None) -> dict[str, Any] | None:
        """The answer, or None where there was none in time."""
        self.over.wait(timeout_s)
        return self.answer


class Transport(Protocol):
    """What a session needs of the way to the collector. Nothing here raises, and only ``Request.wait`` waits."""

    def submit(self, event: Event) -> None:
        """Send an event in its turn."""

    def request(self, fields: dict[str, Any]) -> Request:
        """Send a message in its turn; ``fields`` lacks ``id`` and ``last_sequence``, which are put in."""

    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is queued."""

    def close(self) -> None:
        """Send what is queued if that is possible at once, and let go of the connection."""

    def abandon_after_fork(self) -> None:
        """In a child: give up the parent's connection without a word to the collector."""

    def statistics(self) -> dict[str, Any]:
        """What was sent, acknowledged, refused and lost."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing reaches the collector any more."""


class SocketTransport:
    """A Unix socket, and a daemon thread that sends and receives.

    Args:
        path: of the collector's socket.
        opening: the fields of the ``open`` message.
        on_push: called in the background thread with each message that answers nothing.
        memory_max_bytes: how much may wait.
    """

    def __init__(
        self,
        path: str,
        opening: dict[str, Any],
        on_push: Callable[[dict[str, Any]], None],
        memory_max_bytes: int = MEMORY_MAX_BYTES,
    ) -> None:
        self._path = path
        self._opening = opening
        self._on_push = on_push
        self._memory_max_bytes = memory_max_bytes
        self._ids = itertools.count(1)
        self._lock = threading.RLock()  # a signal handler or a finaliser may submit in the middle of a submit
        self._queue: deque[Event | Lost | Request] = deque()
        self._queued_bytes = 0  # all that was ever put in: written under the lock, which the sender never takes
        self._taken_bytes = 0  # all that was ever taken out: written by the sender alone
        self._lost_untold = 0
        self._lost_inside = 0
        self._kept: deque[tuple[int, bytes]] = deque()
        self._kept_bytes = 0
        self._sequence = 0
        self._waiting: dict[int, Request] = {}
        self._socket: socket.socket | None = None
        self._reader = _codec.FrameReader()
        self._unsent = b""
        self._wake = -1
        self._idle = False
        self._closing = False
        self._quiet = ""
        self._thread: threading.Thread | None = None
        self._settled = threading.Event()
        self.opened: dict[str, Any] | None = None
        self._counts = {"accepted": 0, "sent": 0, "acknowledged": 0, "lost": 0, "reconnects": 0}
        self._refused: dict[str, int] = {}
        self._acknowledged_to = 0
        self.last_error = ""

    # ------------------------------------------------------------ opening

    def open(self, timeout_s: float) -> bool:
        """Connect, say hello and open; then start the thread. False where that cannot be done in time."""
        deadline = time.monotonic() + timeout_s
        try:
            self._connect(deadline, self._opening)
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            _check_opened(self.opened)
        except Exception as error:  # noqa: BLE001 — whatever the host or the collector gave us: there is no session then
            self._go_quiet(f"{self._path}: {error}")
            self.opened = None
            self._drop_socket()
            self._close_wake()
            return False
        self._thread = threading.Thread(target=self._run, name="collectord-sender", daemon=True)
        self._thread.start()
        return True

    def _connect(self, deadline: float, opening: dict[str, Any]) -> None:
        """A connection that has been opened; raises ``OSError`` or ``ValueError`` with the reason."""
        self._drop_socket()
        self._reader = _codec.FrameReader()
        connection = self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        connection.connect(self._path)
        hello = {
            "type": "hello",
            "id": next(self._ids),
            "protocol": PROTOCOL_VERSION,
            "client": "collectord-client-python/0.1.0",
            "pid": os.getpid(),
        }
        self._ask_now(hello, deadline)
        self.opened = self._ask_now({**opening, "type": "open", "id": next(self._ids)}, deadline)
        connection.setblocking(False)

    def _ask_now(self, fields: dict[str, Any], deadline: float) -> dict[str, Any]:
        """A request and its answer, before there is a thread."""
        assert self._socket is not None
        self._socket.sendall(_codec.encode_message(fields), socket.MSG_NOSIGNAL)
        while True:
            message = self._reader.next_message()
            if message is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("the collector does not answer")
                self._socket.settimeout(left)
                chunk = self._socket.recv(_RECEIVE_SIZE_BYTES)
                if not chunk:
                    raise ConnectionError("the collector closed the connection")
                self._reader.feed(chunk)
            elif message["type"] == "error":
                kind = ConnectionError if message.get("retryable") else ValueError
                raise kind(f"{message.get('message')} ({message.get('code')})")
            elif message.get("id") == fields["id"]:
                return message

    # ------------------------------------------------------------ what sessions call

    def submit(self, event: Event) -> None:
        """As ``Transport.submit``."""
        size = len(event.before) + len(event.after) + _OVERHEAD_BYTES
        with self._lock:
            if self._quiet or self._closing:
                self._counts["lost"] += 1
                return
            if self._queued_bytes - self._taken_bytes + self._kept_bytes + size > self._memory_max_bytes:
                self._counts["lost"] += 1
                self._lost_untold += 1
                return
            self._counts["accepted"] += 1
            self._queued_bytes += size
            self._tell_lost()
            self._queue.append(event)
        self._nudge()

    def _tell_lost(self) -> None:
        """What was lost since the last entry goes in front of the next one: the gap is where it happened."""
        count, self._lost_untold = self._lost_untold, 0
        if count:
            self._queue.append(Lost(count))

    def request(self, fields: dict[str, Any]) -> Request:
        """As ``Transport.request``."""
        request = Request(fields)
        with self._lock:
            if self._quiet or self._closing:
                request.over.set()
                return request
            self._tell_lost()
            self._queue.append(request)
        self._nudge()
        return request

    def settle(self, timeout_s: float) -> bool:
        """As ``Transport.settle``."""
        deadline = time.monotonic() + bounded(timeout_s)
        while self._queue or self._unsent:
            self._settled.clear()
            if self._quiet or not (self._queue or self._unsent):
                break
            self._nudge()
            if not self._settled.wait(max(0.0, deadline - time.monotonic())):
                return False
        return not self._quiet

    def close(self) -> None:
        """As ``Transport.close``."""
        with self._lock:
            self._closing = True
        self._nudge(always=True)

    def abandon_after_fork(self) -> None:
        """As ``Transport.abandon_after_fork``."""
        self._lock = threading.RLock()
        self._settled = threading.Event()
        self._quiet = "this process was forked from the one that opened the session: join it to add to it"
        self._thread = None
        self._queue.clear()
        self._drop_socket()
        self._close_wake()
        for request in self._waiting.values():
            request.over = Gate()
            request.over.set()
        self._waiting = {}

    def statistics(self) -> dict[str, Any]:
        """As ``Transport.statistics``."""
        return {
            **self._counts,
            "lost": self._counts["lost"] + self._lost_inside,
            "queued": len(self._queue),
            "unacknowledged_bytes": self._kept_bytes,
            "refused": dict(self._refused),
            "state": self._state(),
            "last_error": self._quiet or self.last_error,
        }

    @property
    def is_quiet(self) -> bool:
        """Whether nothing reaches the collector any more."""
        return bool(self._quiet)

    def _state(self) -> str:
        if self._quiet:
            return "quiet"
        if self._closing:
            return "closed"
        return "connected" if self._socket is not None else "reconnecting"

    def _nudge(self, always: bool = False) -> None:
        if self._idle or always:
            self._idle = False
            with self._lock:  # so that the descriptor is not closed, and given to somebody else, in between
                if self._wake >= 0:
                    os.eventfd_write(self._wake, 1)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            while not self._quiet:
                try:
                    if not self._turn():
                        return
                except (OSError, ValueError) as error:
                    self.last_error = str(error) or type(error).__name__
                    if self._closing or not self._reconnect():
                        return
                except Exception as error:  # noqa: BLE001 — the thread's boundary: a collector's nonsense is not the host's
                    self._go_quiet(f"the collector's answer makes no sense: {type(error).__name__}: {error}")
        finally:
            self._finish()

    def _turn(self) -> bool:
        """Send what waits, take in what comes; False when there is nothing left to do for good."""
        self._fill()
        if self._unsent:
            self._send()
        if not self._unsent and not self._queue:
            self._settled.set()
            if self._closing:
                return False
        self._wait()
        self._receive()
        return True

    def _wait(self) -> None:
        """Until the collector says something, takes something, or something is submitted."""
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        poll.register(self._wake, select.POLLIN)
        self._idle = True
        if (self._queue and not self._unsent) or self._closing:
            self._idle = False
            poll.poll(0 if not self._unsent else 1000)
        else:
            poll.poll()
        self._idle = False
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass

    def _fill(self) -> None:
        """Make the next frames of what waits, while nothing is half sent."""
        if self._unsent:
            return
        frames: list[bytes] = []
        size = 0
        while self._queue and size < BATCH_SIZE_MAX_BYTES:
            frame = self._next_frame()
            if frame:
                frames.append(frame)
                size += len(frame)
        self._unsent = b"".join(frames)

    def _next_frame(self) -> bytes:
        """The frame of the next request, or of as many events as stand in a row."""
        first = self._queue[0]
        if isinstance(first, Request):
            self._queue.popleft()
            return self._frame_of(first)
        if isinstance(first, Lost):
            self._queue.popleft()
            self._sequence += first.count
            return b""
        return self._frame_of_events()

    def _frame_of(self, request: Request) -> bytes:
        number = next(self._ids)
        self._waiting[number] = request
        return _codec.encode_message({**request.fields, "id": number, "last_sequence": self._sequence})

    def _frame_of_events(self) -> bytes:
        events: list[bytes] = []
        size = taken = 0
        start = self._sequence + 1
        while self._queue and len(events) < BATCH_EVENTS_MAX:
            event = self._queue[0]
            if not isinstance(event, Event):
                break
            raw = self._encoded(event)
            if events and (raw is None or size + len(raw) > BATCH_SIZE_MAX_BYTES):
                break  # a hole in the sequence begins another frame, and so does what makes this one too long
            self._queue.popleft()
            taken += len(event.before) + len(event.after) + _OVERHEAD_BYTES
            if raw is None:
                self._lost_inside += 1  # it refers to a span whose start was lost: it leaves its number behind as a gap
                self._sequence += 1
                start = self._sequence + 1
                continue
            self._sequence += 1
            if event.starts is not None:
                event.starts.sequence = self._sequence
            events.append(raw)
            size += len(raw)
        self._taken_bytes += taken
        if not events:
            return b""
        frame = _codec.encode_events(start, events)
        self._kept.append((self._sequence, frame))
        self._kept_bytes += len(frame)
        self._counts["sent"] += len(events)
        return frame

    @staticmethod
    def _encoded(event: Event) -> bytes | None:
        if event.refers_to is None:
            return event.before + event.after
        if not event.refers_to.sequence:
            return None
        return event.before + _codec.pack(event.refers_to.sequence) + event.after

    def _send(self) -> None:
        assert self._socket is not None
        try:
            sent = self._socket.send(self._unsent, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        self._unsent = self._unsent[sent:]

    def _receive(self) -> None:
        assert self._socket is not None
        while True:
            try:
                chunk = self._socket.recv(_RECEIVE_SIZE_BYTES)
            except BlockingIOError:
                return
            if not chunk:
                raise ConnectionError("the collector closed the connection")
            self._reader.feed(chunk)
            while (message := self._reader.next_message()) is not None:
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "ack":
            self._acknowledged(message)
            return
        request = self._waiting.pop(message.get("id", 0), None)
        if request is not None:
            request.answer = message
            request.over.set()
        elif message["type"] == "error":
            self.last_error = f"{message.get('message')} ({message.get('code')})"
        else:
            self._on_push(message)

    def _acknowledged(self, message: dict[str, Any]) -> None:
        sequence = message.get("sequence", 0)
        for _, count, code in message.get("refused", ()):
            self._refused[code] = self._refused.get(code, 0) + count
            self._counts["acknowledged"] -= count
        more = message.get("refused_more", 0)
        if more:
            self._refused["not-listed"] = self._refused.get("not-listed", 0) + more
            self._counts["acknowledged"] -= more
        self._counts["acknowledged"] += max(0, sequence - self._acknowledged_to)
        self._acknowledged_to = max(self._acknowledged_to, sequence)
        while self._kept and self._kept[0][0] <= sequence:
            self._kept_bytes -= len(self._kept.popleft()[1])

    # ------------------------------------------------------------ losing the collector

    def _reconnect(self) -> bool:
        """Come back to the same run with its token and send again what was not acknowledged."""
        token = (self.opened or {}).get("resume_token")
        opening = {"session_id": self._opening["session_id"], "resume_token": token}
        give_up = time.monotonic() + RECONNECT_GIVE_UP_S
        pause = RECONNECT_FIRST_S
        while not self._closing and time.monotonic() < give_up:
            try:
                self._connect(time.monotonic() + RECONNECT_MAX_S, opening)
            except ValueError as error:
                self._go_quiet(f"the collector does not take the session up again: {error}")
                return False
            except OSError as error:
                self.last_error = str(error) or type(error).__name__
                select.select([self._wake], [], [], pause)
                pause = min(2 * pause, RECONNECT_MAX_S)
                continue
            self._counts["reconnects"] += 1
            self._send_again()
            return True
        self._go_quiet(self.last_error or "the collector is gone")
        return False

    def _send_again(self) -> None:
        following = (self.opened or {}).get("next_sequence", 1)
        while self._kept and self._kept[0][0] < following:
            self._kept_bytes -= len(self._kept.popleft()[1])
        self._unsent = b"".join(frame for _, frame in self._kept)
        for request in list(self._waiting.values()):
            self._unsent += self._frame_of(request)

    def _go_quiet(self, why: str) -> None:
        self._quiet = why
        self._settled.set()

    def _finish(self) -> None:
        """Nobody waits for a thread that is gone, and what it did not send is counted."""
        if not self._closing and not self._quiet:
            self._quiet = self.last_error or "the sender stopped"
        self._closing = True
        self._let_go()
        with self._lock:  # nobody waits for us any more: whoever comes now sees that it is over
            self._let_go()
            self._close_wake()
        self._drop_socket()

    def _let_go(self) -> None:
        while self._queue:
            entry = self._queue.popleft()
            if isinstance(entry, Request):
                entry.over.set()
            else:
                self._lost_inside += isinstance(entry, Event)
        for request in self._waiting.values():
            request.over.set()
        self._waiting.clear()
        self._settled.set()

    def _close_wake(self) -> None:
        if self._wake >= 0:
            wake, self._wake = self._wake, -1
            os.close(wake)

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _check_opened(opened: dict[str, Any] | None) -> None:
    """Whether an answer to an ``open`` has what a session needs; raises ``ValueError``."""
    wanted = {"run": int, "path": str, "trace_id": bytes, "next_sequence": int, "resume_token": bytes}
    for name, kind in wanted.items():
        if opened is None or not isinstance(opened.get(name), kind):
            raise ValueError(f"the collector's answer lacks {name}")
