"""The bytes of a journal: one head a file, then records. docs/journal-format.md describes them with a worked example.

Pure. Little-endian throughout. Header and body of a record have checksums of their own: with one for both, a flipped bit in
a length would look like a torn tail and take everything behind it along. Every checksum is seeded with the salt of its
file, and a header's with its offset too, so that bytes of a client that happen to look like a record never count as one.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

from attrs import frozen

from collectord.model import Record, RecordType

MAGIC: Final = b"\x89CLTDJ\r\n"
"""Eight bytes, in the manner of PNG: not text, and mangled visibly by anything that treats them as such."""

VERSION: Final = 1
"""To change it: raise it, keep reading the old number, describe both in docs/journal-format.md, add a golden journal."""

BEGINS_GROUP: Final = 1
"""The flag of a record that begins a group: it was written only after everything before it in its file had been synced. So what
lies before the last such record is known to be durable, and what lies behind it is not."""

_HEAD: Final = struct.Struct("<8sHHIIIII")
_HEADER: Final = struct.Struct("<IBBHQQIII")
_OFFSET: Final = struct.Struct("<Q")

HEAD_SIZE_BYTES: Final = _HEAD.size
HEADER_SIZE_BYTES: Final = _HEADER.size
_CHECKED_BYTES: Final = HEADER_SIZE_BYTES - 4

assert HEAD_SIZE_BYTES == 32
assert HEADER_SIZE_BYTES == 36


@frozen
class Head:
    """The first 32 bytes of a journal file."""

    salt: int
    run: int
    segment: int
    version: int = VERSION


@frozen
class Header:
    """The first 36 bytes of a record."""

    length: int
    type: int
    flags: int
    producer: int
    count: int
    first_sequence: int
    first_position: int
    body_crc: int

    @property
    def begins_group(self) -> bool:
        """Whether everything before it was durable when it was written."""
        return bool(self.flags & BEGINS_GROUP)

    @property
    def size(self) -> int:
        """Of the whole record in bytes."""
        return HEADER_SIZE_BYTES + self.length


def encode_head(head: Head) -> bytes:
    """The first bytes of a file."""
    raw = _HEAD.pack(MAGIC, head.version, HEAD_SIZE_BYTES, head.salt, head.run, head.segment, 0, 0)
    return raw[:-4] + crc32(raw[:-4]).to_bytes(4, "little")


def decode_head(raw: bytes) -> Head | None:
    """What the first bytes of a file say, or None where they are not those of a journal or their checksum is wrong.

    The layout of the head is the same in every version, so that an old reader knows a newer file for what it is.
    """
    if len(raw) < HEAD_SIZE_BYTES:
        return None
    magic, version, _, salt, run, segment, _, crc = _HEAD.unpack_from(raw)
    if magic != MAGIC or crc != crc32(raw[: HEAD_SIZE_BYTES - 4]):
        return None
    return Head(salt, run, segment, version)


def encode_record(record: Record, salt: int, offset: int, *, begins_group: bool = False) -> bytes:
    """A record as it stands at ``offset`` of the file with that salt; ``begins_group`` where all before it is durable."""
    body = record.body
    raw = _HEADER.pack(
        len(body),
        record.type,
        BEGINS_GROUP if begins_group else 0,
        record.producer,
        record.first_sequence,
        record.first_position,
        record.count,
        crc32(body, salt),
        0,
    )
    checked = raw[:_CHECKED_BYTES]
    return b"".join((checked, _header_crc(checked, salt, offset).to_bytes(4, "little"), body))


def decode_header(raw: bytes | memoryview, salt: int, offset: int) -> Header | None:
    """The header that stands at ``offset`` of the file, or None where its checksum is wrong.

    Args:
        raw: at least ``HEADER_SIZE_BYTES`` bytes that begin with the header.
        salt: of the file.
        offset: where in the file ``raw`` begins.
    """
    length, kind, flags, producer, sequence, position, count, body_crc, crc = _HEADER.unpack_from(raw)
    if crc != _header_crc(bytes(raw[:_CHECKED_BYTES]), salt, offset):
        return None
    return Header(length, kind, flags, producer, count, sequence, position, body_crc)


def body_is_whole(header: Header, body: bytes | memoryview, salt: int) -> bool:
    """Whether a body is the one that its header was written for."""
    return len(body) == header.length and crc32(body, salt) == header.body_crc


def _header_crc(checked: bytes, salt: int, offset: int) -> int:
    return crc32(checked, crc32(_OFFSET.pack(offset), salt))


def record_from(header: Header, body: bytes) -> Record | None:
    """The record, or None where its type is unknown to this version."""
    try:
        kind = RecordType(header.type)
    except ValueError:
        return None
    return Record(kind, body, header.producer, header.first_sequence, header.first_position, header.count)
