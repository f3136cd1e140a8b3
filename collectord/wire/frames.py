"""Frames: a four-byte big-endian length and that many bytes of payload.

Owns the framing only. Knows nothing of what a payload means, and never reads or writes anything itself.
"""

from __future__ import annotations

from typing import Final

from collectord.errors import PeerError
from collectord.limits import FRAME_SIZE_MAX_BYTES

HEADER_SIZE_BYTES: Final = 4
_COMPACT_BYTES: Final = 1 << 16


def encode_frame(payload: bytes) -> bytes:
    """One frame around a payload.

    Args:
        payload: at most ``FRAME_SIZE_MAX_BYTES`` bytes; the sender keeps to that, so more is a bug of ours.
    """
    assert len(payload) <= FRAME_SIZE_MAX_BYTES, len(payload)
    return len(payload).to_bytes(HEADER_SIZE_BYTES, "big") + payload


class FrameReader:
    """Cuts a stream of bytes into payloads.

    Memory: at most one frame and what was fed beyond it.
    """

    __slots__ = ("_buffer", "_start")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take in bytes as they arrived."""
        self._buffer += chunk

    def next_payload(self) -> bytes | None:
        """The next whole payload, or None while its bytes are not all here.

        Raises:
            PeerError: ``frame-too-large``. The stream has no meaning after it.
        """
        buffer, start = self._buffer, self._start
        available = len(buffer) - start
        if available < HEADER_SIZE_BYTES:
            self._compact()
            return None
        size = int.from_bytes(buffer[start : start + HEADER_SIZE_BYTES], "big")
        if size > FRAME_SIZE_MAX_BYTES:
            raise PeerError("frame-too-large", f"a frame of {size} bytes, the most is {FRAME_SIZE_MAX_BYTES}")
        end = start + HEADER_SIZE_BYTES + size
        if len(buffer) < end:
            self._compact()
            return None
        with memoryview(buffer) as view:
            payload = bytes(view[start + HEADER_SIZE_BYTES : end])
        self._start = end
        return payload

    @property
    def torn_bytes(self) -> int:
        """How many bytes of an incomplete frame are held: at the end of a stream, what was torn off."""
        return len(self._buffer) - self._start

    def _compact(self) -> None:
        """Give back the memory of what was already cut off, when it is worth a copy or costs none."""
        if self._start == len(self._buffer):
            self._buffer = bytearray()
            self._start = 0
        elif self._start > _COMPACT_BYTES:
            del self._buffer[: self._start]
            self._start = 0
