"""A trace file rebuilt from a journal by hand, and put under its name: `recover`.

Owns the one rename of a trace file that no owner makes. Whoever asks for it holds the lock of the state directory, so that there
is no owner; or names a file that is no collector's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from collectord.export.inventory import directory_name
from collectord.export.render import Reader, render
from collectord.export.request import RenderResult
from collectord.journal.disk import Disk

_CHUNK_SIZE_BYTES: Final = 1 << 20


class _Pieces:
    """Gathers small pieces, so that each system call writes a large one."""

    def __init__(self, disk: Disk, fd: int) -> None:
        self._disk = disk
        self._fd = fd
        self._waiting: list[bytes] = []
        self._size = 0

    def take(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._size += len(piece)
        if self._size >= _CHUNK_SIZE_BYTES:
            self.write()

    def write(self) -> None:
        self._disk.write(self._fd, [b"".join(self._waiting)])
        self._waiting.clear()
        self._size = 0


def publish(disk: Disk, make_reader: Callable[[], Reader], temporary: str, path: str, aside: str | None = None) -> RenderResult:
    """Render a journal into a file.

    Args:
        disk: to write to.
        make_reader: gives a reader over the journal.
        temporary: a name in the same directory that nobody has.
        path: of the file.
        aside: where the file that is there goes first; None to replace it.

    Raises:
        OSError: the disk failed. Whatever ``make_reader`` and rendering raise. The file that was there is untouched, or stands in
            ``aside``; the temporary file is removed.

    Durability: file and name are durable when this returns.
    """
    directory = directory_name(path)
    try:
        disk.unlink(temporary)
        fd = disk.create(temporary)
        try:
            pieces = _Pieces(disk, fd)
            result = render(make_reader, None, pieces.take)
            pieces.write()
            disk.sync(fd)
        finally:
            disk.close(fd)
        if aside is not None:
            disk.rename(path, aside)
            disk.sync_directory(directory_name(aside))
        disk.rename(temporary, path)
    except BaseException:
        disk.unlink(temporary)
        raise
    disk.sync_directory(directory)
    return result
