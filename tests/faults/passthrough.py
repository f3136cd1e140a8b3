"""A file system in front of a directory that fails and dawdles on order: FUSE, with faults that are switched under a live daemon.

Run as a process (`python -m tests.faults.passthrough BACKING MOUNT SWITCH FIRED`). It ends, and unmounts, at the end of its
input, so that nothing stays mounted when whoever started it is gone. SWITCH is the file of ``switch.Switch``.

pyfuse3 is an optional package: nothing but this process imports it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pyfuse3
import trio

from tests.faults.switch import Faults

_ATTRIBUTES = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size", "st_atime_ns", "st_mtime_ns", "st_ctime_ns")
_NO_NAME = "(unlinked)"


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise pyfuse3.FUSEError(error.errno or errno.EIO) from None


class Passthrough(pyfuse3.Operations):  # type: ignore[misc]
    """The backing directory, seen through the faults. An inode is a path that was looked up; nothing is forgotten."""

    enable_writeback_cache = False

    def __init__(self, backing: str, faults: Faults) -> None:
        super().__init__()
        self._faults = faults
        self._backing = backing
        self._paths: dict[int, str] = {pyfuse3.ROOT_INODE: backing}
        self._inodes: dict[str, int] = {backing: pyfuse3.ROOT_INODE}
        self._next: int = pyfuse3.ROOT_INODE + 1
        self._files: dict[int, str] = {}
        self._open: dict[int, int] = {}

    # ------------------------------------------------------------ names and inodes

    def _child(self, parent: int, name: bytes) -> str:
        return os.path.join(self._paths[parent], os.fsdecode(name))

    def _inode(self, path: str) -> int:
        if path not in self._inodes:
            self._inodes[path] = self._next
            self._paths[self._next] = path
            self._next += 1
        return self._inodes[path]

    def _drop(self, path: str) -> None:
        inode = self._inodes.pop(path, None)
        if inode is not None:
            self._paths[inode] = _NO_NAME

    def _attributes(self, inode: int) -> object:
        with _errors():
            if self._paths[inode] == _NO_NAME:
                found = os.fstat(self._open[inode]) if inode in self._open else None
            else:
                found = os.lstat(self._paths[inode])
        if found is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        entry = pyfuse3.EntryAttributes()
        for name in (
            "st_mode",
            "st_nlink",
            "st_uid",
            "st_gid",
            "st_rdev",
            "st_size",
            "st_atime_ns",
            "st_mtime_ns",
            "st_ctime_ns",
        ):
            setattr(entry, name, getattr(found, name))
        entry.st_ino, entry.attr_timeout, entry.entry_timeout = inode, 0, 0
        entry.st_blksize, entry.st_blocks = 4096, found.st_blocks
        return entry

    async def _fault(self, operation: str, path: str) -> None:
        """Wait as long as was ordered, then fail if that was ordered."""
        delay_s, number = self._faults.look(operation, path)
        if delay_s:
            await trio.sleep(delay_s)
            self._faults.note("after", operation, path)
        if number:
            raise pyfuse3.FUSEError(number)

    # ------------------------------------------------------------ looking

    async def lookup(self, parent: int, name: bytes, ctx: object = None) -> object:
        path = self._child(parent, name)
        if not os.path.lexists(path):
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(self._inode(path))

    async def getattr(self, inode: int, ctx: object = None) -> object:
        return self._attributes(inode)

    async def setattr(self, inode: int, attr: object, fields: object, fh: int | None, ctx: object) -> object:
        path = self._paths[inode]
        with _errors():
            if fields.update_size:  # type: ignore[attr-defined]
                await self._fault("truncate", path)
                os.truncate(path if fh is None else fh, attr.st_size)  # type: ignore[attr-defined]
            if fields.update_mode:  # type: ignore[attr-defined]
                os.chmod(path, stat.S_IMODE(attr.st_mode))  # type: ignore[attr-defined]
        return self._attributes(inode)

    async def statfs(self, ctx: object) -> object:
        found, data = os.statvfs(self._backing), pyfuse3.StatvfsData()
        for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(data, name, getattr(found, name))
        return data

    async def opendir(self, inode: int, ctx: object) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: object) -> None:
        path = self._paths[fh]
        for number, name in enumerate(sorted(os.listdir(path))[start_id:], start_id + 1):
            entry = self._attributes(self._inode(os.path.join(path, name)))
            if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, number):
                return

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._fault("fsyncdir", self._paths[fh])

    # ------------------------------------------------------------ names changed

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: object) -> object:
        path = self._child(parent, name)
        await self._fault("mkdir", path)
        with _errors():
            os.mkdir(path, mode)
        return self._attributes(self._inode(path))

    async def unlink(self, parent: int, name: bytes, ctx: object) -> None:
        path = self._child(parent, name)
        await self._fault("unlink", path)
        with _errors():
            os.unlink(path)
        self._drop(path)

    async def rename(self, old_parent: int, old: bytes, new_parent: int, new: bytes, flags: int, ctx: object) -> None:
        source, target = self._child(old_parent, old), self._child(new_parent, new)
        await self._fault("rename", target)
        with _errors():
            os.rename(source, target)
        self._drop(target)
        inode = self._inodes.pop(source, None)
        if inode is not None:
            self._inodes[target], self._paths[inode] = inode, target

    # ------------------------------------------------------------ files

    async def open(self, inode: int, flags: int, ctx: object) -> object:
        path = self._paths[inode]
        await self._fault("open", path)
        with _errors():
            return self._opened(inode, path, os.open(path, flags & ~(os.O_APPEND | os.O_CREAT | os.O_EXCL) | os.O_CLOEXEC))

    async def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: object) -> tuple[object, object]:
        path = self._child(parent, name)
        await self._fault("open", path)
        with _errors():
            fd = os.open(path, flags & ~os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
        inode = self._inode(path)
        return self._opened(inode, path, fd), self._attributes(inode)

    def _opened(self, inode: int, path: str, fd: int) -> object:
        self._files[fd], self._open[inode] = path, fd
        return pyfuse3.FileInfo(fh=fd)

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        with _errors():
            return os.pread(fh, size, offset)

    async def write(self, fh: int, offset: int, content: bytes) -> int:
        path = self._files[fh]
        room = self._faults.room(path, len(content))
        if room == 0:
            raise pyfuse3.FUSEError(errno.ENOSPC)
        await self._fault("write", path)
        with _errors():
            return os.pwrite(fh, content[:room], offset)

    async def flush(self, fh: int) -> None:
        """At a close(2): nothing to do."""

    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._fault("fsync", self._files[fh])
        with _errors():
            os.fdatasync(fh)

    async def release(self, fh: int) -> None:
        self._files.pop(fh, None)
        for inode in [inode for inode, fd in self._open.items() if fd == fh]:
            del self._open[inode]
        os.close(fh)


async def _serve(backing: str, mount: str, switch: str, fired: str) -> None:
    pyfuse3.init(Passthrough(backing, Faults(switch, fired)), mount, {"fsname=collectord-faults"})
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_end_of_input, nursery.cancel_scope)
            await pyfuse3.main()
            nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close(unmount=True)


async def _until_end_of_input(scope: trio.CancelScope) -> None:
    while True:
        await trio.lowlevel.wait_readable(0)
        if not os.read(0, 100):
            pyfuse3.terminate()
            scope.cancel()
            return


if __name__ == "__main__":
    BACKING, MOUNT, SWITCH, FIRED = sys.argv[1:]
    trio.run(_serve, BACKING, MOUNT, SWITCH, FIRED)
