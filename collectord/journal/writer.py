"""Writing a journal: append and sync as one, and a fresh segment where a file has failed.

Owns the files of one run's journal and the rule that a failed write or sync is final for its file: after a failed fsync the
next one succeeds while the disk still holds the old bytes, so such a file is closed and never written again. Everything not known
durable stays in memory and goes first into the next segment.

Synchronous, and called in a worker thread by one owner at a time. Knows nothing of when or why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from attrs import frozen

from collectord.errors import DiskError
from collectord.journal.disk import Disk
from collectord.journal.format import HEAD_SIZE_BYTES, HEADER_SIZE_BYTES, Head, encode_head, encode_record
from collectord.journal.scan import FoundHead, FoundRecord, scan_segment
from collectord.model import Record
from collectord.names import journal_file_name
from collectord.session import records as bodies


@frozen
class SegmentPart:
    """A segment, and how much of it is durable."""

    path: str
    durable_offset: int


class JournalWriter:
    """One run's journal.

    Args:
        disk: to write to.
        directory: of the journals.
        stem: the run's file name stem.
        run: its number.
        new_salt: gives 32 random bits for each file.
        clock_ns: gives Unix nanoseconds, for the records about segments.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        stem: str,
        run: int,
        new_salt: Callable[[], int],
        clock_ns: Callable[[], int],
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._stem = stem
        self._run = run
        self._new_salt = new_salt
        self._clock_ns = clock_ns
        self._fd: int | None = None
        self._salt = 0
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

    def append(self, records: Sequence[Record]) -> None:
        """Append records and sync them, in the present segment or, where that has failed, in a fresh one.

        Raises:
            DiskError: ``disk-failed``: neither was possible. The records are kept, and go first at the next try.

        Durability: every record handed over so far is durable when this returns.
        """
        self._pending.extend(records)
        if self._fd is not None:
            try:
                self._write_here()
            except OSError as error:
                self._abandon(error)
            else:
                return
        self.retry()

    def retry(self) -> None:
        """Try a fresh segment with everything that is pending.

        Raises:
            DiskError: as ``append``.
        """
        if self._fd is not None and not self._pending:
            return
        predecessor = self._parts[-1] if self._parts else None
        number = self._number
        offset = predecessor.durable_offset if predecessor is not None else 0
        first = bodies.segment(number, offset, self._cause, self._clock_ns())
        try:
            self._write_segment([first, *self._pending])
        except OSError as error:
            self._cause = _sentence(error, self._path(self._number))
            raise DiskError("disk-failed", self._cause) from None

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

    def _write_here(self) -> None:
        assert self._fd is not None
        part = self._parts[-1]
        chunks, end = _encode(self._pending, self._salt, part.durable_offset)
        self._disk.write(self._fd, chunks)
        self._disk.sync(self._fd)
        self._parts[-1] = SegmentPart(part.path, end)
        self._pending.clear()

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
        self._fd, self._salt = fd, salt
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


def _encode(records: Sequence[Record], salt: int, offset: int) -> tuple[list[bytes], int]:
    """The bytes of records that begin at ``offset``, and where they end."""
    chunks = []
    for record in records:
        chunk = encode_record(record, salt, offset)
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
            end = found.offset + HEADER_SIZE_BYTES + len(found.record.body)
    if end != size:
        raise DiskError("disk-failed", f"{path} does not end with a sound record: nothing is put behind it")
    fd = disk.open_append(path)
    try:
        disk.write(fd, [encode_record(note, salt, end)])
        disk.sync(fd)
    finally:
        disk.close(fd)
