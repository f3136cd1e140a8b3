"""A disk that remembers in which order it was written: one FUSE file, every write and every flush of it in a log.

Run as a process (`python -m tests.faults.power.blocks IMAGE MOUNT LOG BAD`). MOUNT holds two files:

- ``disk``: backed by IMAGE. A loop device over it carries a real file system; a flush of the block layer arrives here as fsync.
- ``marks``: what is written to it becomes a mark in the log, between the writes it came between.

While the file BAD exists, writes fail with EIO: those that hold the bytes it names, as often as it says (see ``BadDisk``).

pyfuse3 is an optional package: nothing but this process imports it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

import pyfuse3
import trio

from tests.faults.power.bad_disk import BadDisk
from tests.faults.power.log import FLUSH, MARK, WRITE, encode

_DISK, _MARKS = 2, 3
_NAMES = {b"disk": _DISK, b"marks": _MARKS}


class BlockLog(pyfuse3.Operations):  # type: ignore[misc]
    """The two files."""

    supports_dot_lookup = False

    def __init__(self, image: str, log: str, bad: str) -> None:
        super().__init__()
        self._image = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        self._size = os.fstat(self._image).st_size
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._bad = BadDisk(bad)

    def _append(self, kind: int, offset: int, content: bytes) -> None:
        os.writev(self._log, [encode(kind, offset, len(content)), content])

    async def getattr(self, inode: int, ctx: object = None) -> object:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.attr_timeout, entry.entry_timeout = inode, 300, 300
        if inode == pyfuse3.ROOT_INODE:
            entry.st_mode = stat.S_IFDIR | 0o755
        else:
            entry.st_mode, entry.st_size = stat.S_IFREG | 0o600, self._size if inode == _DISK else 0
        return entry

    async def lookup(self, parent: int, name: bytes, ctx: object = None) -> object:
        if name not in _NAMES:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(_NAMES[name])

    async def open(self, inode: int, flags: int, ctx: object) -> object:
        return pyfuse3.FileInfo(fh=inode, direct_io=True)

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        return os.pread(self._image, size, offset) if fh == _DISK else b""

    async def write(self, fh: int, offset: int, content: bytes) -> int:
        if fh == _MARKS:
            self._append(MARK, 0, content)
            return len(content)
        if self._bad.hits(content):
            raise pyfuse3.FUSEError(errno.EIO)
        self._append(WRITE, offset, content)
        return os.pwrite(self._image, content, offset)

    async def flush(self, fh: int) -> None:
        """At a close(2): no barrier."""

    async def fsync(self, fh: int, datasync: bool) -> None:
        self._append(FLUSH, 0, b"")


async def _serve(image: str, mount: str, log: str, bad: str) -> None:
    pyfuse3.init(BlockLog(image, log, bad), mount, {"fsname=collectord-blocks"})
    try:
        await pyfuse3.main()
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    IMAGE, MOUNT, LOG, BAD = sys.argv[1:]
    trio.run(_serve, IMAGE, MOUNT, LOG, BAD)
