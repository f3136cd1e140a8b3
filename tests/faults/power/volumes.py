"""File systems on loop devices, by system calls: a program for each mount would take longer than the mount.

Everything here needs root, and is meant for a process in a mount namespace of its own (see ``apart``): what is left mounted is
gone with the namespace, and a loop device is given back by the kernel when its mount is.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.faults.power.log import Write

FILE_SYSTEMS: Final = ("ext4", "xfs", "btrfs")

_SIZES_BYTES: Final = {"ext4": 48 << 20, "xfs": 64 << 20, "btrfs": 128 << 20}
"""About the smallest that each will be."""

_MAKERS: Final = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-J", "size=4", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-K", "-f", "-l", "size=6m"],
    "btrfs": ["mkfs.btrfs", "-q", "-K", "-f"],
}

_SMALL_XFS: Final = {"TEST_DIR": "/", "TEST_DEV": "/", "QA_CHECK_FS": "1"}
"""Without these words mkfs.xfs refuses less than 300 MB and a log below 64 MB, in which each recovery takes its time."""

_LOOP_SET_FD, _LOOP_CLR_FD, _LOOP_SET_STATUS64, _LOOP_SET_DIRECT_IO, _LOOP_CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C04, 0x4C08, 0x4C82
_AUTOCLEAR = 4
_BLKFLSBUF = 0x1261
_MS_REMOUNT = 32
_CHUNK_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def make_image(path: str, kind: str) -> None:
    """A file with a fresh file system in it."""
    with open(path, "wb") as file:
        file.truncate(_SIZES_BYTES[kind])
    subprocess.run(
        [*_MAKERS[kind], path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, **_SMALL_XFS},
    )  # fmt: skip


def mount(source: str, target: str, kind: str, options: str = "", flags: int = 0) -> None:
    """mount(2). Raises ``OSError``."""
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode() or None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def remount(target: str, kind: str, options: str) -> None:
    """Other options for what is mounted there. Raises ``OSError``."""
    mount("none", target, kind, options, _MS_REMOUNT)


def unmount(target: str) -> None:
    """umount(2). Raises ``OSError``."""
    if _libc.umount2(target.encode(), 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


@contextmanager
def mounted(source: str, target: str, kind: str, options: str = "") -> Iterator[None]:
    """A mount for the length of a block."""
    mount(source, target, kind, options)
    try:
        yield
    finally:
        unmount(target)


@contextmanager
def loop_device(file: str, direct: bool = False) -> Iterator[str]:
    """A loop device over a file; with ``direct`` its flushes and writes reach the file as they come."""
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC | (os.O_DIRECT if direct else 0))
    try:
        path, device = _attach(backing)
        try:
            if direct:
                fcntl.ioctl(device, _LOOP_SET_DIRECT_IO, 1)
            fcntl.ioctl(device, _LOOP_SET_STATUS64, _auto_clear())  # from here on the last close gives it back
            yield path
        finally:
            os.close(device)
    finally:
        os.close(backing)


def _attach(backing: int) -> tuple[str, int]:
    """The next free device: between asking and taking, somebody else may take it."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(100):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_SET_FD, backing)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return path, device
        raise OSError(errno.EBUSY, "no loop device is free")
    finally:
        os.close(control)


def _auto_clear() -> bytes:
    info = bytearray(232)  # struct loop_info64, lo_flags at 52
    info[52:56] = _AUTOCLEAR.to_bytes(4, "little")
    return bytes(info)


def forget_cached(device: str) -> None:
    """What the kernel remembers of a device whose backing file was changed under it."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _BLKFLSBUF, 0)
    finally:
        os.close(fd)


class Image:
    """The bytes of a disk in a file in memory, quickly made equal to another's."""

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.size = size
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, size)
        self._map = mmap.mmap(self._fd, size)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def fill(self, path: str) -> None:
        """Take what a file holds, without the zeros."""
        with open(path, "rb") as file:
            for offset in range(0, self.size, _CHUNK_BYTES):
                chunk = file.read(_CHUNK_BYTES)
                if chunk.count(0) != len(chunk):
                    os.pwrite(self._fd, chunk, offset)

    def put(self, writes: list[Write]) -> None:
        """Write them in order."""
        for write in writes:
            os.pwrite(self._fd, write.content, write.offset)

    def become(self, other: Image) -> None:
        """Hold what the other holds. Only what was ever written here or there is looked at."""
        for begin, end in _union(self._extents(), other._extents()):
            for offset in range(begin, end, _CHUNK_BYTES):
                length = min(_CHUNK_BYTES, end - offset)
                if _libc.memcmp(self._address + offset, other._address + offset, length):
                    ctypes.memmove(self._address + offset, other._address + offset, length)

    def _extents(self) -> list[tuple[int, int]]:
        found, place = [], 0
        while place < self.size:
            try:
                begin = os.lseek(self._fd, place, os.SEEK_DATA)
            except OSError:
                break  # ENXIO: nothing but holes to the end
            place = os.lseek(self._fd, begin, os.SEEK_HOLE)
            found.append((begin, place))
        return found


def _union(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(one + two):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
