"""Reading a journal back: which records are there, what is torn, what is corrupt.

Owns the judgement of damage. Knows nothing of what a record means, and changes nothing. ``scan_segment`` is pure (it is given a
function that reads); ``JournalReader`` puts the segments of a run together. Memory is bounded by one record and one chunk.

An incomplete record at the end is *torn*: it never was acknowledged. A complete one whose checksum or type is wrong is
*corrupt*: reading goes on behind it. Behind a corrupt header nobody knows its length, so the next place is searched where a
header and a body with right checksums stand; headers are checked with their offset and the salt of their file, so nothing else
passes for one.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterator
from typing import Final

from attrs import Factory, define, frozen

from collectord.journal.disk import Disk
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
from collectord.model import Record, RecordType
from collectord.names import parse_journal_file_name
from collectord.session.records import unpack

CHUNK_SIZE_BYTES: Final = 1 << 20
"""How much is read at once."""

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
    """A sound record."""

    offset: int
    record: Record


@frozen
class FoundCorrupt:
    """Complete and wrong."""

    offset: int
    length: int
    why: str


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
        size: how far to look; what lies behind is not there for us.
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
    yield FoundHead(head)
    yield from scan_records(window, size, head.salt, HEAD_SIZE_BYTES)


def scan_records(window: _Window, size: int, salt: int, offset: int) -> Iterator[Found]:
    """Everything from ``offset`` on."""
    while offset < size:
        rest = size - offset
        if rest < HEADER_SIZE_BYTES:
            yield FoundTorn(offset, rest)
            return
        header = decode_header(window.get(offset, HEADER_SIZE_BYTES), salt, offset)
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
    return FoundRecord(offset, record)


def _is_zero(window: _Window, offset: int, size: int) -> bool:
    """Whether nothing but zero bytes follows: a file that was lengthened and never written."""
    while offset < size:
        part = window.get(offset, min(CHUNK_SIZE_BYTES, size - offset))
        if part.count(0) != len(part):
            return False
        offset += len(part)
    return True


def _next_sound(window: _Window, offset: int, size: int, salt: int) -> int:
    """Where the next sound record begins, or the end of the file."""
    while offset + HEADER_SIZE_BYTES <= size:
        header = decode_header(window.get(offset, HEADER_SIZE_BYTES), salt, offset)
        if header is not None and offset + header.size <= size:
            body = window.get(offset + HEADER_SIZE_BYTES, header.length)
            if body_is_whole(header, body, salt):
                return offset
        offset += 1
    return size


@frozen
class Damage:
    """One fault and where it is."""

    path: str
    offset: int
    length: int
    what: str


@define
class DamageReport:
    """What was found wrong in the journal of a run."""

    torn_bytes: int = 0
    corrupt_records: int = 0
    faults: list[Damage] = Factory(list)

    def note(self, path: str, found: Found) -> None:
        """Count one fault."""
        if isinstance(found, FoundTorn):
            self.torn_bytes += found.length
            self.faults.append(Damage(path, found.offset, found.length, "torn"))
        elif isinstance(found, FoundCorrupt):
            self.corrupt_records += 1
            self.faults.append(Damage(path, found.offset, found.length, found.why))
        elif isinstance(found, FoundBadHead):
            self.corrupt_records += 1
            self.faults.append(Damage(path, 0, 0, found.why))
        elif isinstance(found, FoundNewer):
            self.faults.append(Damage(path, 0, 0, f"written by a newer version ({found.version})"))


class JournalReader:
    """The sound records of a run, over all its segments, in order.

    Args:
        disk: where the files are.
        segment_paths: in order of their numbers.
        limits: how many bytes of each are to be looked at; None for all.
    """

    def __init__(self, disk: Disk, segment_paths: list[str], limits: list[int | None]) -> None:
        self.damage = DamageReport()
        self._disk = disk
        self._paths = segment_paths
        self._sizes = [disk.size(path) if limit is None else limit for path, limit in zip(segment_paths, limits, strict=True)]
        self._salts: dict[int, int] = {}
        self._cut_at_seams()

    def __iter__(self) -> Iterator[Record]:
        for _, _, record in self.locate():
            yield record

    @property
    def corrupt_records(self) -> int:
        """How many records were not sound, as far as was read."""
        return self.damage.corrupt_records

    def locate(self) -> Iterator[tuple[int, int, Record]]:
        """Each record with its segment's index and its offset, to be read again by ``read_record_at``."""
        self.damage = DamageReport()
        for index, path in enumerate(self._paths):
            if not self._sizes[index]:
                continue
            for found in scan_segment(self._reads(path), self._sizes[index]):
                if isinstance(found, FoundRecord):
                    yield index, found.offset, found.record
                elif isinstance(found, FoundHead):
                    self._salts[index] = found.head.salt
                else:
                    self.damage.note(path, found)

    def read_record_at(self, segment_index: int, offset: int) -> Record:
        """One record that ``locate`` has given before."""
        read = self._reads(self._paths[segment_index])
        header = decode_header(read(offset, HEADER_SIZE_BYTES), self._salts[segment_index], offset)
        assert header is not None
        record = record_from(header, read(offset + HEADER_SIZE_BYTES, header.length))
        assert record is not None
        return record

    def _reads(self, path: str) -> Read:
        return lambda offset, size: self._disk.read(path, offset, size)

    def _cut_at_seams(self) -> None:
        """A later segment names the one it follows and how far that one is good: what lies behind comes again in it.

        A file between the two never counted: it is what a failed try left and could not remove.
        """
        numbers = [parse_journal_file_name(os.path.basename(path)) for path in self._paths]
        index_of = {name.segment: index for index, name in enumerate(numbers) if name is not None}
        for index in range(1, len(self._paths)):
            seam = self._seam(index)
            before = index_of.get(seam["predecessor"]) if seam is not None else None
            if seam is None or before is None or before >= index:
                continue
            self._sizes[before] = min(self._sizes[before], seam["durable_offset"])
            for passed_over in range(before + 1, index):
                self._sizes[passed_over] = 0

    def _seam(self, index: int) -> dict[str, int] | None:
        """What the first record of a later segment says about the one before it."""
        for found in scan_segment(self._reads(self._paths[index]), self._sizes[index]):
            if isinstance(found, FoundRecord) and found.record.type is RecordType.SEGMENT:
                body: dict[str, int] = unpack(found.record.body)
                return body
            if not isinstance(found, FoundHead):
                return None
        return None
