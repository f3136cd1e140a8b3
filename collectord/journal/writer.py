"""Writing a journal: append and sync as one, and a fresh segment where a file has failed.

Owns the files of one run's journal and the rule that a failed write or sync is final for its file: after a failed fsync the
next one succeeds while the disk still holds the old bytes, so such a file is closed and never written again. Everything not known
durable stays in memory and goes first into the next segment.

Synchronous, and called in a worker thread by one owner at a time. Knows nothing of when or why.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import Final

from attrs import frozen

from collectord.errors import DiskError
from collectord.journal.disk import Disk
from collectord.journal.format import HEAD_SIZE_BYTES, HEADER_SIZE_BYTES, Head, encode_head, encode_record
from collectord.journal.reserve import Reserve
from collectord.journal.scan import FoundHead, FoundRecord, scan_segment
from collectord.model import Record, RecordType
from collectord.names import journal_file_name, parse_journal_file_name
from collectord.session import records as bodies


@frozen
class SegmentPart:
    """A segment, and how much of it is durable."""

    path: str
    durable_offset: int


@frozen
class LeftOpen:
    """A journal that an earlier collector left open, mended: what is needed to go on with it.

    Attributes:
        parts: the files that count, and how far each is good.
        end: where the last of them ends; behind what is good there may be a checkpoint.
        salt: of the last one.
        next_number: of the segment that is written next.
    """

    parts: tuple[SegmentPart, ...]
    end: int
    salt: int
    next_number: int


_MUST_FIT: Final = frozenset((RecordType.END_REQUESTED, RecordType.TERMINAL))
"""What the reserve is kept for: how a run ends."""

_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


class JournalWriter:
    """One run's journal.

    Args:
        disk: to write to.
        directory: of the journals.
        stem: the run's file name stem.
        run: its number.
        new_salt: gives 32 random bits for each file.
        clock_ns: gives Unix nanoseconds, for the records about segments.
        reserve: room for how a run ends; None where there is none.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        stem: str,
        run: int,
        new_salt: Callable[[], int],
        clock_ns: Callable[[], int],
        reserve: Reserve | None = None,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._stem = stem
        self._run = run
        self._new_salt = new_salt
        self._clock_ns = clock_ns
        self._reserve = reserve
        self._fd: int | None = None
        self._salt = 0
        self._end = 0
        self._number = 0
        self._next_number = 0
        self._cause = ""
        self._parts: list[SegmentPart] = []
        self._pending: list[Record] = []

    # ------------------------------------------------------------ what the owner calls

    def create(self, records: Sequence[Record]) -> None:
        """Begin the journal.

        Raises:
            OSError: it could not be made durable; what there is of it is to be removed. ``FileExistsError``: it is there.

        Durability: head, records and directory entry are durable when this returns.
        """
        self._write_segment(list(records))

    def go_on(self, left: LeftOpen, append: bool = True) -> None:
        """Take up a journal that an earlier collector left; nothing is written now. Never raises.

        Args:
            left: what is known of it.
            append: whether its last file may be gone on with; else, and where it cannot be, the next records go into a
                fresh segment.
        """
        last = left.parts[-1].path
        name = parse_journal_file_name(os.path.basename(last))
        assert name is not None
        self._parts = list(left.parts)
        self._salt, self._end = left.salt, left.end
        self._number, self._next_number = name.segment, left.next_number
        self._cause = "an earlier collector left it"
        try:
            if append and self._disk.size(last) == left.end:
                self._fd = self._disk.open_append(last)
        except OSError as error:
            self._cause = _sentence(error, last)

    def append(self, records: Sequence[Record]) -> None:
        """Append records and sync them, in the present segment or, where that has failed, in a fresh one.

        Raises:
            DiskError: ``disk-failed``: neither was possible. The records are kept, and go first at the next try.

        Durability: every record handed over so far is durable when this returns.
        """
        self._pending.extend(records)
        self._write_pending(any(record.type in _MUST_FIT for record in records))

    def retry(self, must_fit: bool = False) -> None:
        """Try again with everything that is pending.

        Args:
            must_fit: whether the reserve may be given up for it.

        Raises:
            DiskError: as ``append``.
        """
        if self._pending or self._fd is None:
            self._write_pending(must_fit or any(record.type in _MUST_FIT for record in self._pending))

    def checkpoint(self) -> None:
        """Say in the file that everything before is durable, so that nobody need write it again. Never raises.

        Durability: none is promised: a reader that finds it may rely on it, and one that does not is no worse off. It is synced
        all the same, so that a power cut does not leave half of it, which would look like a loss.
        """
        if self._fd is None or self._pending:
            return
        chunk = encode_record(bodies.checkpoint(), self._salt, self._end, begins_group=True)
        try:
            self._disk.write(self._fd, [chunk])
            self._disk.sync(self._fd)
        except OSError as error:
            self._abandon(error)
            self._cut_half_written()
        else:
            self._end += len(chunk)

    def _cut_half_written(self) -> None:
        """Half a checkpoint is no loss, and should not look like one; where it cannot be cut off, it does."""
        try:
            self._disk.truncate(self._parts[-1].path, self._end)
        except OSError:
            return

    def close(self) -> None:
        """Give back the descriptor; what was acknowledged is durable already."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            try:
                self._disk.close(fd)
            except OSError:
                return  # nothing depends on it: everything promised was synced before

    @property
    def segments(self) -> tuple[SegmentPart, ...]:
        """What is durable, in order."""
        return tuple(self._parts)

    @property
    def left_open(self) -> LeftOpen:
        """What somebody else needs to go on with it."""
        return LeftOpen(tuple(self._parts), self._end, self._salt, self._next_number)

    @property
    def pending_bytes(self) -> int:
        """How much was handed over and is not durable."""
        return sum(len(record.body) + HEADER_SIZE_BYTES for record in self._pending)

    @property
    def has_failed(self) -> bool:
        """Whether there is no segment to write to."""
        return self._fd is None and bool(self._cause)

    # ------------------------------------------------------------ inside

    def _path(self, number: int) -> str:
        return os.path.join(self._directory, journal_file_name(self._stem, self._run, number))

    def _write_pending(self, must_fit: bool) -> None:
        if self._fd is not None and not self._is_held_back(must_fit):
            try:
                self._write_here()
            except OSError as error:
                self._abandon(error)
            else:
                return
        try:
            self._write_elsewhere(must_fit)
        except OSError as error:
            self._cause = _sentence(error, self._path(self._next_number))
            raise DiskError("disk-failed", self._cause) from None

    def _is_held_back(self, must_fit: bool) -> bool:
        """Whether what is free is the reserve, given up for others."""
        return not must_fit and self._reserve is not None and self._reserve.is_spent()

    def _write_here(self) -> None:
        assert self._fd is not None
        begins = self._end == self._parts[-1].durable_offset  # else it goes on with a checkpoint that was not synced
        chunks, end = _encode(self._pending, self._salt, self._end, begins_group=begins)
        self._disk.write(self._fd, chunks)
        self._disk.sync(self._fd)
        self._parts[-1] = SegmentPart(self._parts[-1].path, end)
        self._end = end
        self._pending.clear()

    def _write_elsewhere(self, must_fit: bool) -> None:
        """In a fresh segment; for how a run ends, the reserve is given up where that makes the difference."""
        if self._is_held_back(must_fit):
            raise OSError(errno.ENOSPC, "no space left on the device but what is kept for the ends of sessions")
        try:
            self._write_segment_behind()
        except OSError as error:
            if not must_fit or error.errno not in _FULL or self._reserve is None or not self._reserve.release():
                raise
            self._write_segment_behind()

    def _write_segment_behind(self) -> None:
        offset = self._parts[-1].durable_offset if self._parts else 0
        seam = bodies.segment(self._number, offset, self._cause, self._clock_ns(), len(self._pending))
        self._write_segment([seam, *self._pending])

    def _write_segment(self, records: list[Record]) -> None:
        """A file of its own, durable with its directory entry; only then does it count.

        A file that failed is removed and its number used again; where it cannot be removed, it stays and is passed over:
        the next segment that counts names the one it really follows, and the reader goes by that.
        """
        number = self._next_number
        path = self._path(number)
        salt = self._new_salt()
        try:
            fd = self._disk.create(path)
        except FileExistsError:
            self._next_number += 1  # left by somebody who could not remove it: never written over
            raise
        try:
            chunks, end = _encode(records, salt, HEAD_SIZE_BYTES)
            self._disk.write(fd, [encode_head(Head(salt, self._run, number)), *chunks])
            self._disk.sync(fd)
            self._disk.sync_directory(self._directory)
        except OSError:
            self._forget(fd, path)
            raise
        self._fd, self._salt, self._end = fd, salt, end
        self._number, self._next_number = number, number + 1
        self._parts.append(SegmentPart(path, end))
        self._pending.clear()

    def _forget(self, fd: int, path: str) -> None:
        """Close and remove a file that does not count; where it cannot be removed, its number is passed over."""
        try:
            self._disk.close(fd)
        except OSError:
            pass  # the descriptor is gone all the same
        try:
            self._disk.unlink(path)
        except OSError:
            self._next_number += 1

    def _abandon(self, error: OSError) -> None:
        """A file that failed once is never trusted again."""
        self._cause = _sentence(error, self._parts[-1].path)
        self.close()


def _encode(records: Sequence[Record], salt: int, offset: int, *, begins_group: bool = True) -> tuple[list[bytes], int]:
    """The bytes of records from ``offset`` on, which begin a group or go on with one, and where they end."""
    chunks = []
    for index, record in enumerate(records):
        chunk = encode_record(record, salt, offset, begins_group=begins_group and not index)
        chunks.append(chunk)
        offset += len(chunk)
    return chunks, offset


def _sentence(error: OSError, path: str) -> str:
    return f"{error.strerror or error} ({path})"


def append_note(disk: Disk, segments: list[str], note: Record) -> None:
    """Put a record behind the end of a journal that nobody writes any more.

    Raises:
        OSError: the disk failed.
        DiskError: ``disk-failed``: the journal does not end with a sound record.

    Durability: the note is durable when this returns.
    """
    path = segments[-1]
    size = disk.size(path)
    salt, end = 0, 0
    for found in scan_segment(lambda offset, length: disk.read(path, offset, length), size):
        if isinstance(found, FoundHead):
            salt, end = found.head.salt, HEAD_SIZE_BYTES
        elif isinstance(found, FoundRecord):
            end = found.end
    if end != size:
        raise DiskError("disk-failed", f"{path} does not end with a sound record: nothing is put behind it")
    fd = disk.open_append(path)
    try:
        disk.write(fd, [encode_record(note, salt, end, begins_group=True)])
        disk.sync(fd)
    except OSError:
        _cut(disk, path, end)
        raise
    finally:
        disk.close(fd)


def _cut(disk: Disk, path: str, size: int) -> None:
    """Nobody will come to take half a note away; where it cannot be cut off, it is told as what it is."""
    try:
        disk.truncate(path, size)
    except OSError:
        return
