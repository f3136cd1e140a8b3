"""Reading one file of a journal: which records are there, what is torn, what is corrupt.

Pure: given a function that reads. Owns the judgement of damage; knows nothing of what a record means. Memory is bounded by one
record and one chunk.

An incomplete record at the end is *torn*: it never was acknowledged. A complete one whose checksum or type is wrong is
*corrupt*: reading goes on behind it. Behind a corrupt header nobody knows its length, so the next place is searched where a
header and a body with right checksums stand; headers are checked with their offset and the salt of their file, so nothing else
passes for one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from attrs import frozen

from collectord.journal.format import (
    HEAD_SIZE_BYTES,
    HEADER_SIZE_BYTES,
    VERSION,
    Head,
    Header,
    body_is_whole,
    decode_head,
    decode_header,
    record_from,
)
from collectord.model import Record

CHUNK_SIZE_BYTES: Final = 1 << 20
"""How much is read at once."""

_SECTOR_SIZE_BYTES: Final = 512
"""What a disk writes at once: a hole is at least one of these."""

_HOLE_AT_END_BYTES: Final = 8
"""A sector may be cut short by the end of the file; so much of it says that it is a hole."""

_HOLE_AT_START_BYTES: Final = 4
"""A record that begins in a sector of which the disk kept what it had before: its length is never zero."""

_LIKE_A_HEADER: Final = re.compile(rb"(?s)(?=.{3}\x00[\x01-\x3f][\x00\x01])")
"""Where a header might begin: a body under 16 MiB, a type, flags. Searching a megabyte byte by byte takes seconds; in what agents
write this passes over nearly all of it. A record that it passes over (a body of 16 MiB, which no frame can carry) is lost
only where the header before it is."""

Read = Callable[[int, int], bytes]
"""``read(offset, size)``: fewer bytes only at the end of the file."""


@frozen
class FoundHead:
    """The file begins as a journal of this version does."""

    head: Head


@frozen
class FoundBadHead:
    """The first bytes are not those of a journal, or damaged: nothing behind them can be checked."""

    why: str


@frozen
class FoundNewer:
    """A journal of a version that this program does not read."""

    version: int


@frozen
class FoundRecord:
    """A sound record; ``begins_group`` where everything before it was durable when it was written."""

    offset: int
    record: Record
    begins_group: bool = False

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + HEADER_SIZE_BYTES + len(self.record.body)


@frozen
class FoundCorrupt:
    """Complete and wrong."""

    offset: int
    length: int
    why: str

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + self.length


@frozen
class FoundTorn:
    """An incomplete last record."""

    offset: int
    length: int


Found = FoundHead | FoundBadHead | FoundNewer | FoundRecord | FoundCorrupt | FoundTorn


class _Window:
    """A part of a file in memory, moved along as it is read."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._size = size
        self._start = 0
        self._bytes = b""

    def get(self, offset: int, size: int) -> bytes:
        """The bytes there, as far as the file goes."""
        stop = min(offset + size, self._size)
        if offset < self._start or stop > self._start + len(self._bytes):
            self._start = offset
            self._bytes = self._read(offset, min(max(CHUNK_SIZE_BYTES, size), self._size - offset))
        begin = offset - self._start
        return self._bytes[begin : begin + stop - offset]


def scan_segment(read: Read, size: int) -> Iterator[Found]:
    """Everything in one file, in order: its head first, then records and damage.

    Args:
        read: gives bytes of the file.
        size: how far to look, at most to the end of the file; what lies behind is not there for us.
    """
    window = _Window(read, size)
    raw = window.get(0, HEAD_SIZE_BYTES)
    head = decode_head(raw)
    if head is None:
        short = len(raw) < HEAD_SIZE_BYTES
        yield FoundBadHead("the file ends within its head" if short else "the head is not that of a journal, or damaged")
        return
    if head.version > VERSION:
        yield FoundNewer(head.version)
        return
    if head.version < VERSION:
        yield FoundBadHead(f"there is no version {head.version} of the journal")
        return
    yield FoundHead(head)
    yield from _scan_records(window, size, head.salt)


def _scan_records(window: _Window, size: int, salt: int) -> Iterator[Found]:
    offset = HEAD_SIZE_BYTES
    while offset < size:
        rest = size - offset
        raw = window.get(offset, HEADER_SIZE_BYTES)
        if len(raw) < HEADER_SIZE_BYTES:
            yield FoundTorn(offset, rest)
            return
        header = decode_header(raw, salt, offset)
        if header is None:
            if _is_zero(window, offset, size):
                yield FoundTorn(offset, rest)
                return
            following = _next_sound(window, offset + 1, size, salt)
            yield FoundCorrupt(offset, following - offset, "the checksum of a record's header is wrong")
            offset = following
            continue
        if header.size > rest:
            yield FoundTorn(offset, rest)
            return
        yield _judge(window, offset, header, salt)
        offset += header.size


def _judge(window: _Window, offset: int, header: Header, salt: int) -> Found:
    body = window.get(offset + HEADER_SIZE_BYTES, header.length)
    if not body_is_whole(header, body, salt):
        return FoundCorrupt(offset, header.size, "the checksum of a record's body is wrong")
    record = record_from(header, body)
    if record is None:
        return FoundCorrupt(offset, header.size, f"no record has the type {header.type}")
    return FoundRecord(offset, record, header.begins_group)


def _is_zero(window: _Window, offset: int, size: int) -> bool:
    """Whether nothing but zero bytes follows: a file that was lengthened and never written."""
    while offset < size:
        part = window.get(offset, min(CHUNK_SIZE_BYTES, size - offset))
        if part.count(0) != len(part):
            return False
        offset += len(part)
    return True


def has_hole(read: Read, found: FoundCorrupt) -> bool:
    """Whether a sector that a damaged stretch touches is nothing but zeros, from there on: bytes that were never written."""
    start = read(found.offset, min(found.length, _SECTOR_SIZE_BYTES - found.offset % _SECTOR_SIZE_BYTES))
    if len(start) >= _HOLE_AT_START_BYTES and not any(start):
        return True
    offset = found.offset - found.offset % _SECTOR_SIZE_BYTES
    while offset < found.end:
        sector = read(offset, _SECTOR_SIZE_BYTES)
        if len(sector) >= _HOLE_AT_END_BYTES and not any(sector):
            return True
        offset += _SECTOR_SIZE_BYTES
    return False


def _next_sound(window: _Window, offset: int, size: int, salt: int) -> int:
    """Where the next sound record begins, or the end of the file."""
    while offset + HEADER_SIZE_BYTES <= size:
        part = window.get(offset, CHUNK_SIZE_BYTES)
        for match in _LIKE_A_HEADER.finditer(part):
            place = offset + match.start()
            if place + HEADER_SIZE_BYTES > offset + len(part):
                break
            header = decode_header(part[match.start() : match.start() + HEADER_SIZE_BYTES], salt, place)
            if header is None or place + header.size > size:
                continue
            if body_is_whole(header, window.get(place + HEADER_SIZE_BYTES, header.length), salt):
                return place
        offset += max(1, len(part) - HEADER_SIZE_BYTES + 1)
    return size
