"""One connection to the collector: made, greeted and opened, each within its deadline; then bytes out and messages in.

Owns the socket and the cutting of answers. Knows nothing of events, and nothing of what was on another connection.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from collectord_client import _codec
from collectord_client._limits import PROTOCOL_VERSION

_RECEIVE_SIZE_BYTES: Final = 1 << 16
_FULL_BACKLOG_PAUSE_S: Final = 0.02


class RefusedError(Exception):
    """The collector said no.

    Attributes:
        code: of the error.
        retryable: whether the same may be granted later.
    """

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__(said(message))
        self.code = message.get("code")
        self.retryable = message.get("retryable") is True


def said(error: dict[str, Any]) -> str:
    """An ``error`` message in words."""
    return f"{error.get('message')} ({error.get('code')})"


class Connection:
    """A socket that never blocks.

    Args:
        wake: an eventfd that interrupts waiting.
        is_closing: whether to give up when interrupted.
    """

    def __init__(self, wake: int, is_closing: Callable[[], bool]) -> None:
        self._wake = wake
        self._is_closing = is_closing
        self._reader = _codec.FrameReader()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    # ------------------------------------------------------------ making it

    def connect(self, path: str, deadline: float) -> None:
        """Connect; raises ``OSError``. A full backlog is waited for: a Unix socket says EAGAIN at once."""
        while True:
            try:
                self._socket.connect(path)
            except BlockingIOError:
                self.wait(min(deadline, time.monotonic() + _FULL_BACKLOG_PAUSE_S), 0)
                if time.monotonic() >= deadline:
                    raise TimeoutError("the collector takes no connection") from None
            else:
                return

    def greet(self, request_id: int, deadline: float) -> dict[str, Any]:
        """Say hello; returns the welcome."""
        hello = {
            "type": "hello",
            "id": request_id,
            "protocol": PROTOCOL_VERSION,
            "client": "collectord-client-python/0.1.0",
            "pid": os.getpid(),
        }
        return self.ask(hello, deadline)

    def ask(self, fields: dict[str, Any], deadline: float) -> dict[str, Any]:
        """A request and its answer, while nothing else is under way.

        Raises:
            OSError: the connection is lost, or the deadline is over.
            ValueError: the collector's bytes make no sense.
            RefusedError: it answers with an error.
        """
        unsent = memoryview(_codec.encode_message(fields))
        while unsent:
            sent = self.send(unsent)
            unsent = unsent[sent:]
            if unsent and not sent:
                self._wait_or_give_up(deadline, select.POLLOUT)
        while True:
            message = self.next_message()
            if message is None:  # soon, whoever is talking: so the deadline holds for those too who never come to the point
                self._wait_or_give_up(deadline, select.POLLIN)
                self.receive()
            elif message["type"] == "error":
                raise RefusedError(message)
            elif message.get("id") == fields["id"]:
                return message

    def _wait_or_give_up(self, deadline: float, events: int) -> None:
        if not self.wait(deadline, events):
            raise TimeoutError("the collector does not answer")

    def wait(self, deadline: float, events: int) -> bool:
        """Wait until the socket is ready, the wake-up comes, or the deadline; whether there is time left.

        Raises:
            ConnectionAbortedError: we are to close.
        """
        left = deadline - time.monotonic()
        if left > 0:
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            if events:
                poll.register(self._socket, events)
            poll.poll(1000 * min(left, 60.0))
            drain(self._wake)
        if self._is_closing():
            raise ConnectionAbortedError("closed while it was being opened")
        return left > 0

    # ------------------------------------------------------------ using it

    def fileno(self) -> int:
        """The descriptor, to be polled."""
        return self._socket.fileno()

    def send(self, raw: bytes | memoryview) -> int:
        """Send what the socket takes at once; how many bytes that were."""
        try:
            return self._socket.send(raw, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    def receive(self) -> None:
        """Take in what has come, once: who sends without end does not keep us from sending."""
        try:
            chunk = self._socket.recv(_RECEIVE_SIZE_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            raise ConnectionError("the collector closed the connection")
        self._reader.feed(chunk)

    def next_message(self) -> dict[str, Any] | None:
        """The next whole message that was taken in, or None."""
        return self._reader.next_message()

    def close(self) -> None:
        """Let go of the socket; in a forked child, of its copy: nothing is said to the collector."""
        self._socket.close()


def drain(wake: int) -> None:
    """Make a wake-up ready for the next one."""
    try:
        os.eventfd_read(wake)
    except BlockingIOError:
        pass
