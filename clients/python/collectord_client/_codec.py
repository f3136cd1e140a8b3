"""The wire, as small as a client needs it: frames, and the pieces of events. Imports nothing of the daemon.

An event is packed in the thread that makes it, so that nothing that is changed later changes it; only the sequence that a
reference names is put in by the sender, which gives the sequences.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from collectord_client._limits import ANSWER_SIZE_MAX_BYTES

SPAN_START: Final = 1
SPAN_UPDATE: Final = 2
SPAN_EVENT: Final = 3
SPAN_END: Final = 4
LOG: Final = 5
SESSION_UPDATE: Final = 6
KV_SET: Final = 7
KV_DELETE: Final = 8
KV_CLEAR: Final = 9

KINDS: Final = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
STATUSES: Final = {"unset": 0, "ok": 1, "error": 2}
SEVERITIES: Final = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "warning": 13, "error": 17, "fatal": 21, "critical": 21}


def pack(value: Any) -> bytes:
    """Any value that ``_values`` has made fit."""
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed


def pack_parts(*values: Any) -> bytes:
    """Several values one behind the other, without an array around them."""
    return b"".join(map(pack, values))


def array_header(count: int) -> bytes:
    """The first bytes of an array."""
    header: bytes = msgpack.Packer().pack_array_header(count)
    return header


def encode_message(fields: dict[str, Any]) -> bytes:
    """A message as one frame; fields that are None are left out."""
    payload = pack({name: value for name, value in fields.items() if value is not None})
    return len(payload).to_bytes(4, "big") + payload


def encode_events(first_sequence: int, events: list[bytes]) -> bytes:
    """An ``events`` message as one frame, around events that are packed already."""
    return _frame_of_events(first_sequence, len(events), b"".join(events))


def without_first(frame: bytes, first_sequence: int, count: int, skipped: int) -> bytes:
    """A frame that ``encode_events`` made, without its first events.

    Args:
        frame: as it was made.
        first_sequence: of its first event.
        count: of its events.
        skipped: how many of them are left out: fewer than there are.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(frame))
    unpacker.feed(memoryview(frame)[4:])
    unpacker.read_map_header()
    for _ in range(5):  # type, its value, first_sequence, its value, events
        unpacker.skip()
    unpacker.read_array_header()
    for _ in range(skipped):
        unpacker.skip()  # walks over an event without making it
    return _frame_of_events(first_sequence + skipped, count - skipped, frame[4 + unpacker.tell() :])


def _frame_of_events(first_sequence: int, count: int, events: bytes) -> bytes:
    head = b"".join(
        (
            b"\x83",
            pack("type"),
            pack("events"),
            pack("first_sequence"),
            pack(first_sequence),
            pack("events"),
            array_header(count),
        )
    )
    return (len(head) + len(events)).to_bytes(4, "big") + head + events


class FrameReader:
    """Cuts what comes from the collector into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take in bytes."""
        self._buffer += chunk

    def next_message(self) -> dict[str, Any] | None:
        """The next whole message, or None.

        Raises:
            ValueError: the collector's bytes make no sense.
        """
        if len(self._buffer) < 4:
            return None
        size = int.from_bytes(self._buffer[:4], "big")
        if size > ANSWER_SIZE_MAX_BYTES:
            raise ValueError(f"a message of {size} bytes is announced")
        if len(self._buffer) < 4 + size:
            return None
        payload = bytes(self._buffer[4 : 4 + size])
        del self._buffer[: 4 + size]
        try:
            message = msgpack.unpackb(payload, unicode_errors="surrogatepass")
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ValueError(f"not msgpack: {error}") from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise ValueError("no message")
        return message
