"""How events and requests get to the collector: one small interface, and a socket with one background thread behind it.

Owns the thread, and what is done when the collector goes away and comes back. Knows nothing of spans. Whoever submits never
waits for the collector.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from collectord_client._connection import Connection, RefusedError, drain, said
from collectord_client._entries import Event, Request, bounded
from collectord_client._limits import (
    BATCH_SIZE_MAX_BYTES,
    MEMORY_MAX_BYTES,
    RECONNECT_ANSWER_S,
    RECONNECT_FIRST_S,
    RECONNECT_MAX_S,
)
from collectord_client._outbox import Outbox
from collectord_client._patience import Patience

_TERMINAL = ("completed", "failed", "cancelled", "crashed")


class Transport(Protocol):
    """What a session needs of the way to the collector. Nothing here raises, and only ``Request.wait`` waits."""

    def submit(self, event: Event) -> None:
        """Send an event in its turn."""

    def request(self, fields: dict[str, Any], is_last: bool = False) -> Request:
        """Send a message in its turn.

        Args:
            fields: without ``id`` and ``last_sequence``, which are put in.
            is_last: close when it is granted.
        """

    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is queued, and no last request waits for its answer."""

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
        on_push: called in the background thread with each message that answers nothing, and with every outcome.
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
        self._outbox = Outbox(memory_max_bytes)
        self._patience = Patience()
        self._connection: Connection | None = None
        self._connected_at = 0.0
        self._is_connected = False
        self._wake = -1
        self._idle = False
        self._closing = False
        self._quiet = ""
        self._reconnects = 0
        self._stalled = ""
        self._fault = ""
        self._thread: threading.Thread | None = None
        self._settled = threading.Event()
        self.opened: dict[str, Any] | None = None
        self.last_error = ""

    # ------------------------------------------------------------ opening

    def open(self, timeout_s: float) -> bool:
        """Connect, say hello and open; then start the thread. False where that cannot be done in time."""
        deadline = time.monotonic() + timeout_s
        try:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._go_on(self._open_patiently(deadline))
        except Exception as error:  # noqa: BLE001 — whatever the host or the collector gave us: there is no session then
            self._go_quiet(f"{self._path}: {error}")
            self._drop_connection()
            self._close_wake()
            return False
        self._thread = threading.Thread(target=self._run, name="collectord-sender", daemon=True)
        self._thread.start()
        return True

    def _open_patiently(self, deadline: float) -> dict[str, Any]:
        """A collector that says that it stops will be back in a moment: it is waited for, as long as there is time."""
        is_restarting = False
        while True:
            try:
                return self._establish(self._opening, deadline, deadline)
            except (RefusedError, OSError) as error:
                is_restarting = is_restarting or (isinstance(error, RefusedError) and error.code == "collector-draining")
                if not is_restarting or time.monotonic() + RECONNECT_FIRST_S >= deadline:
                    raise
                self._drop_connection()
                self._rest(RECONNECT_FIRST_S)

    def _establish(self, opening: dict[str, Any], connect_by: float, answer_by: float) -> dict[str, Any]:
        """A new connection, and what ``open`` was answered on it."""
        self._drop_connection()
        connection = self._connection = Connection(self._wake, lambda: self._closing)
        connection.connect(self._path, connect_by)
        connection.greet(self._outbox.next_id(), answer_by)
        opened = connection.ask({**opening, "type": "open", "id": self._outbox.next_id()}, answer_by)
        _check_opened(opened)
        return opened

    def _go_on(self, opened: dict[str, Any]) -> None:
        """The collector has taken the session (up again)."""
        self.opened = opened
        self.last_error = ""
        self._stalled = ""
        self._connected_at = time.monotonic()
        self._is_connected = True

    # ------------------------------------------------------------ what sessions call

    def submit(self, event: Event) -> None:
        """As ``Transport.submit``."""
        with self._outbox.lock:
            if self._quiet or self._closing:
                self._outbox.counts["lost"] += 1
                return
            if not self._outbox.put(event):
                return
        self._nudge()

    def request(self, fields: dict[str, Any], is_last: bool = False) -> Request:
        """As ``Transport.request``."""
        request = Request(fields, is_last)
        with self._outbox.lock:
            if self._quiet or self._closing or not self._outbox.ask(request):
                request.over.set()
                return request
        self._nudge()
        return request

    def settle(self, timeout_s: float) -> bool:
        """As ``Transport.settle``."""
        deadline = time.monotonic() + bounded(timeout_s)
        with self._outbox.lock:
            if not self._quiet and not self._closing:
                self._outbox.tell_what_was_lost()
        while not self._is_settled:
            self._settled.clear()
            if self._quiet or self._is_settled:
                break
            self._nudge()
            if not self._settled.wait(max(0.0, deadline - time.monotonic())):
                return False
        return not self._quiet

    @property
    def _is_settled(self) -> bool:
        outbox = self._outbox
        lacks_nothing = self._is_connected or not outbox.has_waiting
        return outbox.is_empty and lacks_nothing and not outbox.waits_for_the_last_word

    def close(self) -> None:
        """As ``Transport.close``."""
        with self._outbox.lock:
            self._closing = True
        self._nudge(always=True)

    def abandon_after_fork(self) -> None:
        """As ``Transport.abandon_after_fork``."""
        self._settled = threading.Event()
        self._quiet = "this process was forked from the one that opened the session: join it to add to it"
        self._thread = None
        self._drop_connection()
        self._outbox.forget_after_fork()
        self._close_wake()

    def statistics(self) -> dict[str, Any]:
        """As ``Transport.statistics``."""
        return {
            **self._outbox.statistics(),
            "reconnects": self._reconnects,
            "state": self._state(),
            "stalled": self._stalled,
            "last_error": self._quiet or self.last_error or self._fault,
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
        return "connected" if self._is_connected else "reconnecting"

    def _nudge(self, always: bool = False) -> None:
        if self._idle or always:
            self._idle = False
            with self._outbox.lock:  # so that the descriptor is not closed, and given to somebody else, in between
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
                    self._note_loss(error)
                    if not self._come_back():
                        return
                except Exception as error:  # noqa: BLE001 — the thread's boundary: a collector's nonsense is not the host's
                    self._go_quiet(f"the collector's answer makes no sense: {type(error).__name__}: {error}")
        finally:
            self._finish()

    def _turn(self) -> bool:
        """Send what waits, take in what comes; False when there is nothing left to do for good."""
        assert self._connection is not None
        outbox, room = self._outbox, BATCH_SIZE_MAX_BYTES  # a host that never rests must not keep us from hearing
        while room > 0 and (unsent := outbox.unsent) is not None and (sent := self._connection.send(unsent)):
            outbox.sent(sent)
            room -= sent
        if self._is_settled:
            self._settled.set()
        if outbox.is_empty and self._closing:
            return False
        self._wait(self._connection)
        self._connection.receive()
        while (message := self._connection.next_message()) is not None:
            self._take(message)
        return True

    def _wait(self, connection: Connection) -> None:
        """Until the collector says something, takes something, or something is submitted."""
        poll = select.poll()
        poll.register(connection, select.POLLIN | (select.POLLOUT if self._outbox.is_half_sent else 0))
        poll.register(self._wake, select.POLLIN)
        self._idle = True
        if not self._outbox.is_half_sent and (not self._outbox.is_empty or self._closing):
            self._idle = False
            poll.poll(0)
        else:
            poll.poll(1000 if self._closing else None)
        self._idle = False
        drain(self._wake)

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "ack":
            self._outbox.acknowledge(message)
            self._stalled = ""
        elif kind == "stalled":
            self._stalled = said(message)
        elif kind == "terminal":
            self._on_push(message)  # before the one who asked goes on: whoever waits for another answer knows it then
        request = self._outbox.answer(message)
        if request is not None:
            if request.is_last and kind != "error":
                self._closing = True
        elif kind == "error":
            self.last_error = said(message)
            if not message.get("retryable"):
                self._fault = self.last_error
        elif kind not in ("ack", "stalled", "terminal"):
            self._on_push(message)
        if request is not None or kind == "ack":
            self._patience.progress()

    # ------------------------------------------------------------ losing the collector

    def _note_loss(self, error: Exception) -> None:
        self._is_connected = False
        self.last_error = self.last_error or str(error) or type(error).__name__
        if time.monotonic() - self._connected_at > RECONNECT_MAX_S:
            self._patience.progress()

    def _come_back(self) -> bool:
        """Look for the collector until it takes the run up again, or says that it never will, or it is enough."""
        while not self._closing:
            pause = self._patience.next_pause()
            if pause is None:
                self._go_quiet(f"the collector is gone: {self.last_error}")
                return False
            self._drop_connection()
            try:
                self._rest(pause)
                self._resume()
            except RefusedError as refusal:
                self.last_error = str(refusal)
                if not refusal.retryable:
                    because = f"; before that: {self._fault}" if self._fault else ""
                    self._go_quiet(f"the collector does not take the session up again: {refusal}{because}")
                    return False
            except OSError as error:
                self.last_error = str(error) or type(error).__name__
            except Exception as error:  # noqa: BLE001 — as in the loop: nonsense is not worth a second try
                self._go_quiet(f"the collector does not take the session up again: {error}")
                return False
            else:
                return True
        return False

    def _resume(self) -> None:
        """Come back to the same run with its token, and have sent again what the collector lacks; raises as its ``ask``."""
        before = self.opened or {}
        opening = {"session_id": self._opening["session_id"], "resume_token": before.get("resume_token")}
        now = time.monotonic()
        try:
            opened = self._establish(opening, now + RECONNECT_MAX_S, now + RECONNECT_ANSWER_S)
        except RefusedError as refusal:
            if refusal.code == "session-ended":
                self._learn_outcome(now + RECONNECT_ANSWER_S)
            raise
        for name in ("run", "producer", "trace_id"):
            if opened.get(name) != before.get(name):
                raise ValueError(f"it answers for another {name}")
        missing = self._outbox.resume(opened["next_sequence"])
        if missing:
            self._fault = f"the collector has lost up to {missing} events that it had acknowledged"
        self._reconnects += 1
        self._go_on(opened)

    def _learn_outcome(self, deadline: float) -> None:
        """How the run stands, which is over: a wish to cancel it changes nothing any more, and is answered with that.

        Raises:
            OSError: the connection is lost, so that it can be asked again on the next.
        """
        assert self._connection is not None
        wish = {
            "type": "cancel",
            "id": self._outbox.next_id(),
            "reason": "",
            "session_id": self._opening["session_id"],
            "run": (self.opened or {}).get("run"),
        }
        try:
            answer = self._connection.ask(wish, deadline)
        except (ValueError, RefusedError):
            return
        if answer["type"] == "terminal" and answer.get("outcome") in _TERMINAL:
            self._on_push(answer)

    def _rest(self, pause_s: float) -> None:
        """Wait; raises ``ConnectionAbortedError`` where we are to close."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        until = time.monotonic() + pause_s
        while (left := until - time.monotonic()) > 0:
            poll.poll(1000 * left)
            drain(self._wake)
            if self._closing:
                raise ConnectionAbortedError("closed while the collector was away")

    def _go_quiet(self, why: str) -> None:
        self._quiet = why
        self._settled.set()

    def _finish(self) -> None:
        """Nobody waits for a thread that is gone, and what it did not send is counted."""
        if not self._closing and not self._quiet:
            self._quiet = self.last_error or "the sender stopped"
        self._closing = True
        self._is_connected = False
        self._outbox.let_go()
        with self._outbox.lock:  # nobody waits for us any more: whoever comes now sees that it is over
            self._outbox.let_go()
            self._close_wake()
        self._drop_connection()
        self._settled.set()

    def _close_wake(self) -> None:
        if self._wake >= 0:
            wake, self._wake = self._wake, -1
            os.close(wake)

    def _drop_connection(self) -> None:
        self._is_connected = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _check_opened(opened: dict[str, Any]) -> None:
    """Whether an answer to an ``open`` has what a session needs; raises ``ValueError``."""
    wanted = {"run": int, "path": str, "trace_id": bytes, "next_sequence": int, "resume_token": bytes}
    for name, kind in wanted.items():
        if not isinstance(opened.get(name), kind):
            raise ValueError(f"the collector's answer lacks {name}")
