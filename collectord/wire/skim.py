"""Walks over msgpack bytes without making values of them: where does each element begin and end?

The slow and patient path, taken when a batch holds something that the decoder refuses as a whole (text that is not UTF-8,
nesting without end, an extension type): it finds the borders of the single events, so that one bad event costs one event.
"""

from __future__ import annotations

from typing import Final

from collectord.errors import PeerError

_FIXED: Final = {  # first byte: bytes behind it
    0xC0: 0, 0xC2: 0, 0xC3: 0,
    0xCA: 4, 0xCB: 8,
    0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8,
    0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
_SIZED: Final = {  # first byte: (width of the length, bytes between the length and the payload)
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0),
    0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip
_CONTAINERS: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""First byte: (width of the count, values an entry)."""


def _step(raw: bytes, offset: int) -> tuple[int, int]:
    """One token: (the offset behind it, how many values are nested in it)."""
    try:
        first = raw[offset]
    except IndexError:
        raise PeerError("frame-malformed", "the payload ends in the middle of a value") from None
    offset += 1
    if first <= 0x7F or first >= 0xE0:
        return offset, 0
    if first <= 0x8F:
        return offset, 2 * (first & 0x0F)
    if first <= 0x9F:
        return offset, first & 0x0F
    if first <= 0xBF:
        return offset + (first & 0x1F), 0
    if first in _FIXED:
        return offset + _FIXED[first], 0
    if first in _SIZED:
        width, extra = _SIZED[first]
        size = int.from_bytes(raw[offset : offset + width], "big")
        return offset + width + extra + size, 0
    if first in _CONTAINERS:
        width, each = _CONTAINERS[first]
        count = int.from_bytes(raw[offset : offset + width], "big")
        return offset + width, each * count
    raise PeerError("frame-malformed", f"byte 0x{first:02x} begins no msgpack value")


def skip_value(raw: bytes, offset: int) -> int:
    """The offset behind the value that begins at ``offset``, however deep it nests.

    Raises:
        PeerError: ``frame-malformed`` where the bytes end first or are no msgpack.
    """
    waiting = 1
    size = len(raw)
    while waiting:
        offset, nested = _step(raw, offset)
        waiting += nested - 1
        if offset > size or waiting > size - offset:  # each value takes a byte at least: never loop on a false count
            raise PeerError("frame-malformed", "the payload ends in the middle of a value")
    return offset


def read_array_header(raw: bytes, offset: int) -> tuple[int, int]:
    """(how many elements, where the first begins) of the array at ``offset``.

    Raises:
        PeerError: ``message-malformed`` where something else stands there.
    """
    first = raw[offset] if offset < len(raw) else 0xC1
    if not (0x90 <= first <= 0x9F or first in (0xDC, 0xDD)):
        raise PeerError("message-malformed", "`events` must be an array")
    offset, count = _step(raw, offset)
    return count, offset


def element_offsets(raw: bytes) -> list[int]:
    """The borders of the elements of an array that is the whole of ``raw``: one more than it has elements.

    Raises:
        PeerError: ``frame-malformed`` or ``message-malformed``.
    """
    count, offset = read_array_header(raw, 0)
    offsets = [offset]
    for _ in range(count):
        offset = skip_value(raw, offset)
        offsets.append(offset)
    return offsets
