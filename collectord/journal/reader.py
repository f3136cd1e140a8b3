"""The sound records of a run, over all its segments, in order; what is not sound is counted. Changes nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from zlib import crc32

from collectord.journal.chain import Seam, faults_of, link, read_link
from collectord.journal.damage import DamageReport
from collectord.journal.disk import Disk
from collectord.journal.format import HEADER_SIZE_BYTES, decode_header, record_from
from collectord.journal.scan import Found, FoundHead, FoundRecord, FoundTorn
from collectord.model import Record, RecordType


class JournalReader:
    """One run's journal.

    Args:
        disk: where the files are.
        segment_paths: in order of their numbers.
        limits: how many bytes of each are to be looked at; None for all.

    Raises:
        OSError: a file cannot be read.
    """

    def __init__(self, disk: Disk, segment_paths: list[str], limits: list[int | None]) -> None:
        self.damage = DamageReport()
        self._disk = disk
        self._salts: dict[int, int] = {}
        self.links, self.unfinished = link(disk, segment_paths, limits)

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
        for index, found in self.walk():
            if isinstance(found, FoundRecord):
                yield index, found.offset, found.record
            elif isinstance(found, FoundHead):
                self._salts[index] = found.head.salt
            else:
                self.damage.note(self.links[index].path, found)
        for path in self.unfinished:
            size = self._disk.size(path)
            if size:
                self.damage.note(path, FoundTorn(0, size))

    def walk(self) -> Iterator[tuple[int, Found]]:
        """Everything in the files that count, damage too, each with its file's index in ``links``.

        Behind a seam that is lost, what was read before comes again and is passed over: the last group of the file before.
        """
        last_position = 0
        before: deque[Hashable] = deque()
        for index, one in enumerate(self.links):
            for fault in faults_of(one):
                yield index, fault
            if not one.size and not one.missing and index + 1 < len(self.links):
                continue
            again, before = before, deque()
            comes_again = index + 1 < len(self.links) and self.links[index + 1].seam is Seam.LOST
            for found in read_link(self._disk, one):
                if isinstance(found, FoundRecord):
                    record = found.record
                    if comes_again:
                        _remember(before, found)
                    if one.seam is Seam.LOST and again and _known_by(record) == again[0]:
                        again.popleft()
                        continue
                    if record.type is RecordType.EVENTS:
                        if one.seam is Seam.LOST and record.first_position <= last_position:
                            continue
                        last_position = record.first_position + record.count - 1
                yield index, found

    def read_record_at(self, segment_index: int, offset: int) -> Record:
        """One record that ``locate`` has given before."""
        path = self.links[segment_index].path
        header = decode_header(self._disk.read(path, offset, HEADER_SIZE_BYTES), self._salts[segment_index], offset)
        assert header is not None
        record = record_from(header, self._disk.read(path, offset + HEADER_SIZE_BYTES, header.length))
        assert record is not None
        return record


def _known_by(record: Record) -> Hashable:
    """What tells a record from others, in a few bytes."""
    return record.type, record.producer, record.first_sequence, record.first_position, record.count, crc32(record.body)


def _remember(group: deque[Hashable], found: FoundRecord) -> None:
    """Keep what the last group of a file holds, but for what the collector writes there for itself."""
    if found.begins_group:
        group.clear()
    if found.record.type not in (RecordType.SEGMENT, RecordType.CHECKPOINT):
        group.append(_known_by(found.record))
