"""The answers that wait for a connection to take them: bounded, in order, acknowledgements folded.

Owns the sending half of a peer's socket. Whoever speaks never waits and never learns of a failure: the receiving half does.
"""

from __future__ import annotations

import socket
from collections import deque

import trio

from collectord.limits import ANSWER_BACKLOG_MAX_BYTES, REFUSALS_PER_ACK_MAX
from collectord.wire.messages import Ack, Answer, encode_message


class Outbox:
    """One connection's.

    Args:
        connection: non-blocking.
        nursery: in which a task sends what the socket does not take at once; there is none while nothing waits.
    """

    __slots__ = ("_ack", "_closed", "_frames", "_nursery", "_room", "_sending", "_size", "_socket")

    def __init__(self, connection: socket.socket, nursery: trio.Nursery) -> None:
        self._socket = connection
        self._nursery = nursery
        self._frames: deque[bytes] | None = None
        self._ack: Ack | None = None
        self._size = 0
        self._sending = False
        self._closed = False
        self._room: trio.Event | None = None

    def put(self, message: Answer) -> None:
        """Send a message behind those before it."""
        if self._closed:
            return
        if self._sending and isinstance(message, Ack):
            self._ack = message if self._ack is None else _folded(self._ack, message)
            return
        if self._sending:
            self._unfold()
            self._append(encode_message(message))
            return
        frame = encode_message(message)
        sent = self._try_send(frame)
        if sent < len(frame) and not self._closed:
            self._append(frame[sent:])
            self._sending = True
            self._nursery.start_soon(self._send_rest)

    @property
    def is_full(self) -> bool:
        """Whether the other side should read before it asks for more."""
        return self._size > ANSWER_BACKLOG_MAX_BYTES

    async def wait_for_room(self) -> None:
        """Return when it is no longer full, or closed. Cancellation: at any point."""
        while self.is_full and not self._closed:
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()

    def close(self) -> None:
        """Forget what waits; before the socket is closed."""
        self._closed = True
        self._frames = None
        self._ack = None
        self._size = 0
        self._make_room()

    def _append(self, frame: bytes) -> None:
        if self._frames is None:  # only now: an empty deque takes three quarters of a kilobyte, for each idle connection
            self._frames = deque()
        self._frames.append(frame)
        self._size += len(frame)

    def _unfold(self) -> None:
        """An acknowledgement that waits is put in its place before something else comes behind it."""
        if self._ack is not None:
            self._append(encode_message(self._ack))
            self._ack = None

    def _try_send(self, frame: bytes) -> int:
        """As much as the socket takes now. A dead connection takes nothing more: its peer will see that it is."""
        try:
            return self._socket.send(frame, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:
            self.close()
            return 0

    async def _send_rest(self) -> None:
        """Send what waits, until nothing does. Cancellation: a drain; what is not sent is lost with the connection."""
        while True:
            if not self._frames:
                self._unfold()
            if not self._frames:
                break
            try:
                await trio.lowlevel.wait_writable(self._socket)
            except (trio.ClosedResourceError, ValueError, OSError):
                self.close()
                break
            if self._closed:
                break
            frame = self._frames.popleft()
            sent = self._try_send(frame)
            if self._closed:
                break  # type: ignore[unreachable]  # sending closes us where the connection is dead
            self._size -= sent
            if sent < len(frame):
                self._frames.appendleft(frame[sent:])
            if not self.is_full:
                self._make_room()
        self._frames = None
        self._sending = False

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None


def _folded(first: Ack, then: Ack) -> Ack:
    """Two acknowledgements as one: the later sequence, the refusals of both."""
    refused = first.refused + then.refused
    left_out = sum(stretch[1] for stretch in refused[REFUSALS_PER_ACK_MAX:])
    return Ack(
        max(first.sequence, then.sequence),
        refused[:REFUSALS_PER_ACK_MAX],
        first.refused_more + then.refused_more + left_out,
    )
