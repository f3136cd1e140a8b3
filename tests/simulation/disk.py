"""A disk in memory that forgets what was not synced. The contract suite holds it to what the real one does.

Files are inodes with bytes that are durable and bytes that are not; directories map names to inodes, with the operations that
are not durable yet kept in their order. A power cut keeps, per file, the durable bytes and any prefix of the rest, and per
directory a prefix of its waiting operations. Faults are armed by operation and count.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Sequence

from attrs import Factory, define

Choose = Callable[[list[int]], int]
"""Picks one of several legal outcomes: ``min`` forgets all that may be forgotten, ``max`` nothing."""


@define(eq=False)
class Inode:
    """A file's bytes, and how many of them are durable."""

    content: bytearray = Factory(bytearray)
    durable: bytes = b""


@define(eq=False)
class Directory:
    """Names as they are, as they are durably, and what lies between."""

    entries: dict[str, Inode] = Factory(dict)
    durable: dict[str, Inode] = Factory(dict)
    waiting: list[dict[str, Inode | None]] = Factory(list)


@define
class Fault:
    """An operation that will fail."""

    operation: str
    after: int
    error: int
    times: int


class SimulatedDisk:
    """The same operations as ``journal.disk.RealDisk``, in memory."""

    def __init__(self) -> None:
        self._directories: dict[str, Directory] = {"/": Directory()}
        self._open: dict[int, Inode] = {}
        self._next_fd = 100
        self._faults: list[Fault] = []
        self.operations: list[tuple[str, ...]] = []

    # ------------------------------------------------------------ faults and cuts

    def fail_nth(self, operation: str, n: int, error: int, times: int = 1) -> None:
        """Let the nth call of an operation from now on fail, and ``times - 1`` behind it."""
        self._faults.append(Fault(operation, n, error, times))

    @property
    def faults_left(self) -> int:
        """How many armed failures have not happened."""
        return sum(fault.times for fault in self._faults)

    def power_cut(self, choose: Choose) -> SimulatedDisk:
        """The disk as it may be found after the power has gone now. This one goes on."""
        survivor = SimulatedDisk()
        survivor._directories = {}
        copies: dict[int, Inode] = {}

        def copy(inode: Inode) -> Inode:
            if id(inode) not in copies:
                durable = bytes(inode.durable)
                rest = bytes(inode.content[len(durable) :]) if inode.content[: len(durable)] == durable else b""
                kept = choose(list(range(len(rest) + 1))) if rest else 0
                content = durable + rest[:kept]
                copies[id(inode)] = Inode(bytearray(content), content)
            return copies[id(inode)]

        for path, directory in self._directories.items():
            names = dict(directory.durable)
            kept = choose(list(range(len(directory.waiting) + 1))) if directory.waiting else 0
            for change in directory.waiting[:kept]:
                _apply(names, change)
            found = {name: copy(inode) for name, inode in names.items()}
            survivor._directories[path] = Directory(dict(found), dict(found), [])
        return survivor

    def open_files(self) -> int:
        """How many descriptors are open."""
        return len(self._open)

    def _begin(self, operation: str, *arguments: str) -> None:
        self.operations.append((operation, *arguments))
        for fault in self._faults:
            if fault.operation != operation:
                continue
            fault.after -= 1
            if fault.after <= 0:
                fault.times -= 1
                if not fault.times:
                    self._faults.remove(fault)
                raise OSError(fault.error, os.strerror(fault.error), *arguments[:1])

    # ------------------------------------------------------------ looking up

    def _directory(self, path: str) -> Directory:
        found = self._directories.get(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    def _inode(self, path: str) -> Inode:
        found = self._directory(posixpath.dirname(path)).entries.get(posixpath.basename(path))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    def _change(self, directory: str, change: dict[str, Inode | None]) -> None:
        found = self._directory(directory)
        _apply(found.entries, change)
        found.waiting.append(change)

    def _descriptor(self, inode: Inode) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = inode
        return self._next_fd

    # ------------------------------------------------------------ the operations

    def create(self, path: str) -> int:
        self._begin("create", path)
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        inode = Inode()
        self._change(posixpath.dirname(path), {posixpath.basename(path): inode})
        return self._descriptor(inode)

    def open_append(self, path: str) -> int:
        self._begin("open_append", path)
        return self._descriptor(self._inode(path))

    def write(self, fd: int, chunks: Sequence[bytes]) -> None:
        content = b"".join(chunks)
        try:
            self._begin("write")
        except OSError:
            self._open[fd].content += content[: len(content) // 2]  # a failed write may have begun
            raise
        self._open[fd].content += content

    def sync(self, fd: int) -> None:
        inode = self._open[fd]
        self._begin("sync")
        inode.durable = bytes(inode.content)

    def close(self, fd: int) -> None:
        if fd not in self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        del self._open[fd]
        self._begin("close")

    def truncate(self, path: str, size: int) -> None:
        self._begin("truncate", path)
        inode = self._inode(path)
        del inode.content[size:]
        inode.durable = bytes(inode.content)

    def allocate(self, path: str, size: int) -> None:
        self._begin("allocate", path)
        name, directory = posixpath.basename(path), self._directory(posixpath.dirname(path))
        if name not in directory.entries:
            self._change(posixpath.dirname(path), {name: Inode()})
        inode = directory.entries[name]
        inode.content.extend(bytes(max(0, size - len(inode.content))))

    def write_file(self, path: str, content: bytes, sync: bool) -> None:
        self._begin("write_file", path)
        inode = self._directory(posixpath.dirname(path)).entries.get(posixpath.basename(path))
        if inode is None:
            inode = Inode()
            self._change(posixpath.dirname(path), {posixpath.basename(path): inode})
        inode.content[:] = content
        inode.durable = bytes(content) if sync else b""

    def rename(self, source: str, target: str) -> None:
        self._begin("rename", source, target)
        inode = self._inode(source)
        before, after = posixpath.dirname(source), posixpath.dirname(target)
        if before == after:
            self._change(before, {posixpath.basename(source): None, posixpath.basename(target): inode})
        else:
            self._change(after, {posixpath.basename(target): inode})
            self._change(before, {posixpath.basename(source): None})

    def unlink(self, path: str) -> None:
        self._begin("unlink", path)
        if self.exists(path):
            self._change(posixpath.dirname(path), {posixpath.basename(path): None})

    def sync_directory(self, path: str) -> None:
        self._begin("sync_directory", path)
        directory = self._directory(path)
        directory.durable = dict(directory.entries)
        directory.waiting.clear()

    def make_directory(self, path: str) -> None:
        self._begin("make_directory", path)
        while path not in self._directories:
            self._directories[path] = Directory()
            path = posixpath.dirname(path)

    def list_directory(self, path: str) -> list[str]:
        self._begin("list_directory", path)
        below = [name for name in self._directories if name != "/" and posixpath.dirname(name) == path]
        return [*self._directory(path).entries, *map(posixpath.basename, below)]

    def exists(self, path: str) -> bool:
        directory = self._directories.get(posixpath.dirname(path))
        return path in self._directories or (directory is not None and posixpath.basename(path) in directory.entries)

    def size(self, path: str) -> int:
        return len(self._inode(path).content)

    def read(self, path: str, offset: int, size: int) -> bytes:
        self._begin("read", path)
        return bytes(self._inode(path).content[offset : offset + size])

    def free_bytes(self, path: str) -> int:
        return 1 << 40

    def total_bytes(self, path: str) -> int:
        return 1 << 40


def _apply(names: dict[str, Inode], change: dict[str, Inode | None]) -> None:
    for name, inode in change.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode
