"""Walks over msgpack bytes without making values of them: where does each element begin and end?

The patient path, taken when a batch holds something that the decoder refuses as a whole (text that is not UTF-8, nesting
without end, an extension type): it finds the borders of the single events, so that one bad event costs one event. msgpack
skips whole values at its own speed; only what nests deeper than it follows is walked here, step by step, and not for long:
eight megabytes of opening brackets would keep every other session waiting for half a minute.
"""

from __future__ import annotations

from typing import Final

import msgpack

from collectord.errors import PeerError
from collectord.limits import EVENTS_PER_MESSAGE_MAX, FRAME_SIZE_MAX_BYTES, SKIM_STEPS_MAX

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


def skip_value(raw: bytes, offset: int, steps_max: int = SKIM_STEPS_MAX) -> tuple[int, int]:
    """Walk over the value that begins at ``offset``, however deep it nests.

    Returns:
        The offset behind it, and how many steps that took.

    Raises:
        PeerError: ``frame-malformed`` where the bytes end first, are no msgpack, or take too many steps.
    """
    waiting = 1
    steps = 0
    size = len(raw)
    while waiting:
        steps += 1
        if steps > steps_max:
            raise PeerError("frame-malformed", "its values nest so deep that it cannot be told where they end")
        offset, nested = _step(raw, offset)
        waiting += nested - 1
        if offset > size or waiting > size - offset:  # each value takes a byte at least: never loop on a false count
            raise PeerError("frame-malformed", "the payload ends in the middle of a value")
    return offset, steps


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


def element_offsets(raw: bytes, start: int = 0) -> list[int]:
    """The borders of the elements of the array of events at ``start``: one more than it has elements.

    Raises:
        PeerError: ``frame-malformed`` or ``message-malformed``.
    """
    count, offset = read_array_header(raw, start)
    if count > EVENTS_PER_MESSAGE_MAX:
        raise PeerError("message-malformed", f"{count} events in one message, the most is {EVENTS_PER_MESSAGE_MAX}")
    offsets = [offset]
    steps_left = SKIM_STEPS_MAX
    base, unpacker = offset, _unpacker_at(raw, offset)
    for _ in range(count):
        try:
            unpacker.skip()
            offset = base + unpacker.tell()
        except msgpack.exceptions.StackError:
            offset, steps = skip_value(raw, offset, steps_left)
            steps_left -= steps
            base, unpacker = offset, _unpacker_at(raw, offset)
        except (ValueError, msgpack.exceptions.UnpackException):
            raise PeerError("frame-malformed", "the payload ends in the middle of a value, or is no msgpack") from None
        offsets.append(offset)
    return offsets


def _unpacker_at(raw: bytes, offset: int) -> msgpack.Unpacker:
    unpacker = msgpack.Unpacker(max_buffer_size=FRAME_SIZE_MAX_BYTES)
    unpacker.feed(memoryview(raw)[offset:])
    return unpacker
