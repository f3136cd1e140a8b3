"""Msgpack as no sound encoder would write it: keys that come twice, bytes that are no value, lengths that lie.

Owns the writing of values for hostile tests. It always takes the widest form, so that every length is a place to harm.
"""

from __future__ import annotations

import struct
from typing import Any


class Raw(bytes):
    """Bytes that stand in the stream as they are, where a value is expected."""


class Pairs(list[tuple[Any, Any]]):
    """A map as pairs: keys may come twice and be anything."""


def pack(value: Any) -> bytes:
    """Msgpack of a value, ``Raw`` and ``Pairs`` included."""
    if isinstance(value, Raw):
        return bytes(value)
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return _pack_int(value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return b"\xdb" + struct.pack(">I", len(text)) + text
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, Pairs | dict):
        pairs = list(value.items()) if isinstance(value, dict) else value
        return b"\xdf" + struct.pack(">I", len(pairs)) + b"".join(pack(key) + pack(item) for key, item in pairs)
    return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))


def _pack_int(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes([value])
    return b"\xcf" + struct.pack(">Q", value) if value >= 0 else b"\xd3" + struct.pack(">q", value)


def framed(payload: bytes) -> bytes:
    """A frame with a true length."""
    return struct.pack(">I", len(payload)) + payload


def nested(depth: int, around: bytes = b"\x91") -> Raw:
    """A value that many levels deep."""
    return Raw(around * depth + b"\xc0")
