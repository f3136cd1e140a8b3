"""Both ends of a connection as machines without I/O: bytes in, messages out, and the order in which they may come.

Knows the order of messages on one connection, not what a run makes of them. A test connects the two back to back.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from collectord.errors import PeerError
from collectord.limits import PROTOCOL_VERSIONS
from collectord.wire.frames import FrameReader
from collectord.wire.messages import (
    Answer,
    Cancel,
    Crash,
    Detach,
    End,
    Events,
    Flush,
    Hello,
    Open,
    Request,
    Status,
    decode_answer,
    decode_request,
)


class Stage(Enum):
    """How far a connection has come, as the collector sees it."""

    NEW = "new"
    GREETED = "greeted"
    WRITING = "writing"
    FAILED = "failed"


_ALLOWED: Final[dict[Stage, tuple[type, ...]]] = {
    Stage.NEW: (Hello,),
    Stage.GREETED: (Open, Cancel, Crash, Status),
    Stage.WRITING: (Open, Events, Flush, End, Cancel, Crash, Detach, Status),
    Stage.FAILED: (),
}


class ServerConnection:
    """The collector's end of one connection."""

    __slots__ = ("_reader", "stage")

    def __init__(self) -> None:
        self._reader = FrameReader()
        self.stage = Stage.NEW

    def receive(self, chunk: bytes | memoryview) -> None:
        """Take in bytes as they arrived."""
        self._reader.feed(chunk)

    def next_request(self) -> Request | None:
        """The next whole request, or None while its bytes are not all here.

        Raises:
            PeerError: the stream is broken, the message malformed, or out of order; nothing more can be read.
        """
        if self.stage is Stage.FAILED:
            return None
        try:
            payload = self._reader.next_payload()
            if payload is None:
                return None
            request = decode_request(payload)
            if not isinstance(request, _ALLOWED[self.stage]):
                name = type(request).__name__.lower()
                raise PeerError("message-unexpected", f"{name} cannot come now: the connection is {self.stage.value}")
            if isinstance(request, Hello) and request.protocol not in PROTOCOL_VERSIONS:
                spoken = ", ".join(map(str, PROTOCOL_VERSIONS))
                raise PeerError("protocol-unsupported", f"protocol {request.protocol} is not spoken here, only {spoken}")
        except PeerError:
            self.stage = Stage.FAILED
            raise
        if isinstance(request, Hello):
            self.stage = Stage.GREETED
        return request

    def opened(self) -> None:
        """The connection serves a run from now on."""
        self.stage = Stage.WRITING

    @property
    def torn_bytes(self) -> int:
        """The bytes of a frame that did not arrive whole."""
        return self._reader.torn_bytes


class ClientConnection:
    """The client's end, for programs of this package; the client that agents import has its own small codec."""

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader = FrameReader()

    def receive(self, chunk: bytes) -> None:
        """Take in bytes as they arrived."""
        self._reader.feed(chunk)

    def next_answer(self) -> Answer | None:
        """The next whole answer, or None while its bytes are not all here.

        Raises:
            PeerError: the collector's bytes make no sense.
        """
        payload = self._reader.next_payload()
        return None if payload is None else decode_answer(payload)
