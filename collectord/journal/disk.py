"""The file system as the daemon uses it: each operation one system call, or a plain loop of one.

Owns the calls, so that tests can fail each of them in turn, and so that the simulated disk of the tests can stand in for it.
Knows nothing of journals or documents. Every operation raises ``OSError`` as the kernel states it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final, Protocol

UNKNOWN_BYTES: Final = 1 << 62
"""So much is free where nobody tells how much: there is no reason to refuse anything."""

_CHUNKS_AT_ONCE: Final = 1_024
"""IOV_MAX on Linux."""


class Disk(Protocol):
    """What the journal and the owner need of a file system. Paths are absolute."""

    def create(self, path: str) -> int:
        """Make a file that must not exist, mode 0600, open for appending."""

    def open_append(self, path: str) -> int:
        """Open a file that exists for appending."""

    def write(self, fd: int, chunks: Sequence[bytes]) -> None:
        """Append all of it; short writes are gone on with."""

    def sync(self, fd: int) -> None:
        """Make what was written durable: fdatasync."""

    def close(self, fd: int) -> None:
        """Give the descriptor back."""

    def truncate(self, path: str, size: int) -> None:
        """Cut a file, durably."""

    def allocate(self, path: str, size: int) -> None:
        """Make a file that holds so many bytes of the disk, whatever is in it; one that is there grows to that."""

    def write_file(self, path: str, content: bytes, sync: bool) -> None:
        """Make or overwrite a temporary file as a whole."""

    def rename(self, source: str, target: str) -> None:
        """Give a file another name, over whatever bears it."""

    def unlink(self, path: str) -> None:
        """Remove a name; one that is missing is removed already."""

    def sync_directory(self, path: str) -> None:
        """Make the entries of a directory durable."""

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents, mode 0700; one that is there stays. Durably in both cases."""

    def list_directory(self, path: str) -> list[str]:
        """The names in a directory."""

    def exists(self, path: str) -> bool:
        """Whether a name is there."""

    def size(self, path: str) -> int:
        """How long a file is."""

    def read(self, path: str, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset`` on; fewer only at the end."""

    def free_bytes(self, path: str) -> int:
        """How much may still be written by us; without end where the file system does not tell."""

    def total_bytes(self, path: str) -> int:
        """How large the file system is; 0 where it does not tell."""


class RealDisk:
    """The kernel's."""

    def create(self, path: str) -> int:
        """As ``Disk.create``."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def open_append(self, path: str) -> int:
        """As ``Disk.open_append``."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)

    def write(self, fd: int, chunks: Sequence[bytes]) -> None:
        """As ``Disk.write``."""
        waiting = [memoryview(chunk) for chunk in chunks if chunk]
        while waiting:
            written = os.writev(fd, waiting[:_CHUNKS_AT_ONCE])
            if not written:
                raise OSError(errno.EIO, "nothing was written, and nothing said why")
            taken = 0
            while taken < len(waiting) and written >= len(waiting[taken]):
                written -= len(waiting[taken])
                taken += 1
            waiting = waiting[taken:]
            if written:
                waiting[0] = waiting[0][written:]

    def sync(self, fd: int) -> None:
        """As ``Disk.sync``."""
        os.fdatasync(fd)

    def close(self, fd: int) -> None:
        """As ``Disk.close``."""
        os.close(fd)

    def truncate(self, path: str, size: int) -> None:
        """As ``Disk.truncate``."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.ftruncate(fd, size)
            os.fsync(fd)
        finally:
            os.close(fd)

    def allocate(self, path: str, size: int) -> None:
        """As ``Disk.allocate``."""
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)

    def write_file(self, path: str, content: bytes, sync: bool) -> None:
        """As ``Disk.write_file``."""
        fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self.write(fd, [content])
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: str, target: str) -> None:
        """As ``Disk.rename``."""
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        """As ``Disk.unlink``."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def sync_directory(self, path: str) -> None:
        """As ``Disk.sync_directory``."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make_directory(self, path: str) -> None:
        """As ``Disk.make_directory``."""
        parent = os.path.dirname(path)
        if os.path.isdir(path):
            try:
                self.sync_directory(parent)  # whoever made it may have been killed, or failed, before that
            except PermissionError:
                return  # it is nobody's of ours who made it
            return
        if parent != path:
            self.make_directory(parent)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        self.sync_directory(parent)

    def list_directory(self, path: str) -> list[str]:
        """As ``Disk.list_directory``."""
        return os.listdir(path)

    def exists(self, path: str) -> bool:
        """As ``Disk.exists``."""
        return os.path.lexists(path)

    def size(self, path: str) -> int:
        """As ``Disk.size``."""
        return os.stat(path).st_size

    def read(self, path: str, offset: int, size: int) -> bytes:
        """As ``Disk.read``."""
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)  # a FIFO would have us wait for a writer
        try:
            parts: list[bytes] = []
            while size > 0:
                part = os.pread(fd, size, offset)
                if not part:
                    break
                parts.append(part)
                offset += len(part)
                size -= len(part)
            return b"".join(parts)
        finally:
            os.close(fd)

    def free_bytes(self, path: str) -> int:
        """As ``Disk.free_bytes``."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize if found.f_blocks else UNKNOWN_BYTES

    def total_bytes(self, path: str) -> int:
        """As ``Disk.total_bytes``."""
        found = os.statvfs(path)
        return found.f_blocks * found.f_frsize
