"""The simulated disk does what the real one does: one suite, both disks, and random sequences of calls compared one by one.

What only a power cut shows cannot be compared with the real one here (the block log beds do that): those tests stand in
``tests/simulation/test_disk.py``.
"""

from __future__ import annotations

import errno
import os
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from collectord.journal.disk import Disk, RealDisk
from tests.simulation.disk import SimulatedDisk
from tests.simulation.mounts import remount, small_tmpfs

PAGE_BYTES = 4_096
SMALL_BYTES = 64 * PAGE_BYTES


@pytest.fixture(params=["real", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, str]:
    """A disk and a directory on it."""
    disk: Disk = RealDisk() if request.param == "real" else SimulatedDisk()
    base = str(tmp_path / "base")
    disk.make_directory(base)
    return disk, base


@define
class Small:
    """A disk of 64 pages, and how it is made read-only."""

    disk: Any
    base: str
    make_read_only: Callable[[bool], None]


@pytest.fixture(params=["tmpfs", "simulated"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Small]:
    """A disk that is soon full."""
    if request.param == "tmpfs":
        with small_tmpfs(tmp_path / "small", SMALL_BYTES) as mounted:
            yield Small(RealDisk(), str(mounted), lambda on: remount(mounted, "ro" if on else "rw"))
        return
    disk = SimulatedDisk(block=PAGE_BYTES)
    disk.capacity = SMALL_BYTES
    disk.make_directory("/small")
    yield Small(disk, "/small", lambda on: setattr(disk, "read_only", on))


# ---------------------------------------------------------------- what operations do


def test_what_is_written_is_read(place: tuple[Disk, str]) -> None:
    disk, base = place
    fd = disk.create(f"{base}/f")
    disk.write(fd, [b"one", b"", b"two"])
    disk.write(fd, [b"x" * 3_000] * 1_500)
    disk.sync(fd)
    disk.close(fd)
    assert disk.size(f"{base}/f") == 6 + 3_000 * 1_500
    assert disk.read(f"{base}/f", 2, 3) == b"etw"
    assert disk.read(f"{base}/f", disk.size(f"{base}/f") - 1, 100) == b"x"
    assert disk.read(f"{base}/f", 10**9, 100) == b""


def test_a_file_is_made_once_and_opened_where_it_is(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.close(disk.create(f"{base}/f"))
    with pytest.raises(FileExistsError):
        disk.create(f"{base}/f")
    with pytest.raises(FileNotFoundError):
        disk.open_append(f"{base}/missing")
    fd = disk.open_append(f"{base}/f")
    disk.write(fd, [b"more"])
    disk.close(fd)
    assert disk.read(f"{base}/f", 0, 10) == b"more"


def test_a_rename_replaces_what_bears_the_name(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.write_file(f"{base}/a", b"new", sync=True)
    disk.write_file(f"{base}/b", b"old", sync=False)
    disk.rename(f"{base}/a", f"{base}/b")
    disk.sync_directory(base)
    assert disk.read(f"{base}/b", 0, 10) == b"new"
    assert not disk.exists(f"{base}/a")
    with pytest.raises(FileNotFoundError):
        disk.rename(f"{base}/a", f"{base}/b")
    disk.rename(f"{base}/b", f"{base}/b")
    assert disk.list_directory(base) == ["b"]


def test_a_file_goes_from_one_directory_to_another(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.make_directory(f"{base}/other")
    disk.write_file(f"{base}/a", b"x", sync=True)
    disk.rename(f"{base}/a", f"{base}/other/b")
    assert disk.list_directory(base) == ["other"]
    assert disk.read(f"{base}/other/b", 0, 9) == b"x"


def test_a_name_is_removed_once_and_its_absence_is_no_error(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.write_file(f"{base}/a", b"x", sync=False)
    disk.unlink(f"{base}/a")
    disk.unlink(f"{base}/a")
    disk.unlink(f"{base}/no/directory")
    assert disk.list_directory(base) == []


def test_a_descriptor_outlives_the_name(place: tuple[Disk, str]) -> None:
    disk, base = place
    fd = disk.create(f"{base}/a")
    disk.rename(f"{base}/a", f"{base}/b")
    disk.write(fd, [b"one"])
    assert disk.read(f"{base}/b", 0, 9) == b"one"
    disk.unlink(f"{base}/b")
    disk.write(fd, [b"two"])
    disk.sync(fd)
    disk.close(fd)
    assert disk.list_directory(base) == []


def test_two_descriptors_append_behind_each_other_and_behind_a_cut(place: tuple[Disk, str]) -> None:
    disk, base = place
    one = disk.create(f"{base}/a")
    two = disk.open_append(f"{base}/a")
    disk.write(one, [b"1111"])
    disk.write(two, [b"2222"])
    disk.truncate(f"{base}/a", 6)
    disk.write(one, [b"3333"])
    disk.close(one)
    disk.close(two)
    assert disk.read(f"{base}/a", 0, 99) == b"1111223333"


def test_a_temporary_file_is_written_over_as_a_whole(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.write_file(f"{base}/t", b"long content", sync=True)
    disk.write_file(f"{base}/t", b"short", sync=True)
    assert disk.read(f"{base}/t", 0, 100) == b"short"


def test_a_file_is_cut_and_lengthened(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.write_file(f"{base}/f", b"0123456789", sync=True)
    disk.truncate(f"{base}/f", 4)
    assert disk.read(f"{base}/f", 0, 100) == b"0123"
    disk.truncate(f"{base}/f", 6)
    assert disk.read(f"{base}/f", 0, 100) == b"0123\0\0"


def test_directories_are_made_with_their_parents_and_listed(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.make_directory(f"{base}/a/b")
    disk.make_directory(f"{base}/a/b")
    disk.write_file(f"{base}/f", b"", sync=False)
    assert sorted(disk.list_directory(base)) == ["a", "f"]
    with pytest.raises(FileNotFoundError):
        disk.list_directory(f"{base}/none")


def test_room_is_taken_and_given_back(small: Small) -> None:
    disk, base = small.disk, small.base
    before = disk.free_bytes(base)
    disk.allocate(f"{base}/reserve", 3 * PAGE_BYTES - 100)
    assert disk.size(f"{base}/reserve") == 3 * PAGE_BYTES - 100
    assert disk.free_bytes(base) == before - 3 * PAGE_BYTES
    disk.allocate(f"{base}/reserve", PAGE_BYTES)
    assert disk.size(f"{base}/reserve") == 3 * PAGE_BYTES - 100, "it never shrinks"
    disk.allocate(f"{base}/reserve", 4 * PAGE_BYTES)
    assert disk.free_bytes(base) == before - 4 * PAGE_BYTES
    disk.write_file(f"{base}/t", b"x", sync=True)
    assert disk.free_bytes(base) == before - 5 * PAGE_BYTES
    disk.truncate(f"{base}/reserve", PAGE_BYTES + 1)
    assert disk.free_bytes(base) == before - 3 * PAGE_BYTES
    disk.unlink(f"{base}/reserve")
    disk.unlink(f"{base}/t")
    assert disk.free_bytes(base) == before
    assert disk.total_bytes(base) == SMALL_BYTES


def test_room_of_a_file_without_a_name_comes_back_when_it_is_closed(small: Small) -> None:
    disk, base = small.disk, small.base
    before = disk.free_bytes(base)
    fd = disk.create(f"{base}/f")
    disk.write(fd, [b"x" * PAGE_BYTES])
    disk.unlink(f"{base}/f")
    assert disk.free_bytes(base) == before - PAGE_BYTES
    disk.close(fd)
    assert disk.free_bytes(base) == before


# ---------------------------------------------------------------- what they refuse

LONG = "n" * 256

REFUSED: list[tuple[str, Callable[[Any, str], Any], int]] = [
    ("a file that is there is made", lambda disk, base: disk.create(f"{base}/file"), errno.EEXIST),
    ("a file is made over a directory", lambda disk, base: disk.create(f"{base}/dir"), errno.EEXIST),
    ("a file is made in no directory", lambda disk, base: disk.create(f"{base}/none/f"), errno.ENOENT),
    ("a file is made below a file", lambda disk, base: disk.create(f"{base}/file/f"), errno.ENOTDIR),
    ("a name is too long", lambda disk, base: disk.create(f"{base}/{LONG}"), errno.ENAMETOOLONG),
    ("nothing is opened", lambda disk, base: disk.open_append(f"{base}/none"), errno.ENOENT),
    ("a directory is opened for appending", lambda disk, base: disk.open_append(f"{base}/dir"), errno.EISDIR),
    ("something below a file is opened", lambda disk, base: disk.open_append(f"{base}/file/f"), errno.ENOTDIR),
    ("a closed descriptor is written to", lambda disk, base: disk.write(closed(disk, base), [b"x"]), errno.EBADF),
    ("a closed descriptor is synced", lambda disk, base: disk.sync(closed(disk, base)), errno.EBADF),
    ("a closed descriptor is closed", lambda disk, base: disk.close(closed(disk, base)), errno.EBADF),
    ("nothing is cut", lambda disk, base: disk.truncate(f"{base}/none", 1), errno.ENOENT),
    ("a directory is cut", lambda disk, base: disk.truncate(f"{base}/dir", 1), errno.EISDIR),
    ("room is taken in no directory", lambda disk, base: disk.allocate(f"{base}/none/f", 1), errno.ENOENT),
    ("room is taken in a directory", lambda disk, base: disk.allocate(f"{base}/dir", 1), errno.EISDIR),
    ("a file is written in no directory", lambda disk, base: disk.write_file(f"{base}/none/f", b"", True), errno.ENOENT),
    ("a directory is written over", lambda disk, base: disk.write_file(f"{base}/dir", b"", True), errno.EISDIR),
    ("a file is written below a file", lambda disk, base: disk.write_file(f"{base}/file/f", b"", True), errno.ENOTDIR),
    ("a file with a long name is written", lambda disk, base: disk.write_file(f"{base}/{LONG}", b"", True), errno.ENAMETOOLONG),
    ("nothing is renamed", lambda disk, base: disk.rename(f"{base}/none", f"{base}/b"), errno.ENOENT),
    ("a file is renamed over a directory", lambda disk, base: disk.rename(f"{base}/file", f"{base}/dir"), errno.EISDIR),
    ("a file is renamed to nowhere", lambda disk, base: disk.rename(f"{base}/file", f"{base}/none/f"), errno.ENOENT),
    ("a file is renamed below a file", lambda disk, base: disk.rename(f"{base}/file", f"{base}/file/f"), errno.ENOTDIR),
    ("a directory is unlinked", lambda disk, base: disk.unlink(f"{base}/dir"), errno.EISDIR),
    ("something below a file is unlinked", lambda disk, base: disk.unlink(f"{base}/file/f"), errno.ENOTDIR),
    ("no directory is synced", lambda disk, base: disk.sync_directory(f"{base}/none"), errno.ENOENT),
    ("a file is synced as a directory", lambda disk, base: disk.sync_directory(f"{base}/file"), errno.ENOTDIR),
    ("a directory is made over a file", lambda disk, base: disk.make_directory(f"{base}/file"), errno.EEXIST),
    ("a directory is made below a file", lambda disk, base: disk.make_directory(f"{base}/file/d"), errno.EEXIST),
    ("a directory with a long name is made", lambda disk, base: disk.make_directory(f"{base}/{LONG}"), errno.ENAMETOOLONG),
    ("no directory is listed", lambda disk, base: disk.list_directory(f"{base}/none"), errno.ENOENT),
    ("a file is listed", lambda disk, base: disk.list_directory(f"{base}/file"), errno.ENOTDIR),
    ("nothing has a size", lambda disk, base: disk.size(f"{base}/none"), errno.ENOENT),
    ("something below a file has a size", lambda disk, base: disk.size(f"{base}/file/f"), errno.ENOTDIR),
    ("nothing is read", lambda disk, base: disk.read(f"{base}/none", 0, 1), errno.ENOENT),
    ("a directory is read", lambda disk, base: disk.read(f"{base}/dir", 0, 1), errno.EISDIR),
    ("something below a file is read", lambda disk, base: disk.read(f"{base}/file/f", 0, 1), errno.ENOTDIR),
    ("no place has room", lambda disk, base: disk.free_bytes(f"{base}/none"), errno.ENOENT),
    ("no place is large", lambda disk, base: disk.total_bytes(f"{base}/none"), errno.ENOENT),
]


def closed(disk: Disk, base: str) -> int:
    """A descriptor that was given back."""
    fd = disk.create(f"{base}/closed")
    disk.close(fd)
    return fd


@pytest.mark.parametrize(("call", "error"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_an_operation_is_refused_when(place: tuple[Disk, str], call: Callable[[Any, str], Any], error: int) -> None:
    disk, base = place
    disk.make_directory(f"{base}/dir")
    disk.write_file(f"{base}/file", b"x", sync=True)
    with pytest.raises(OSError) as refusal:
        call(disk, base)
    assert refusal.value.errno == error
    assert disk.read(f"{base}/file", 0, 9) == b"x"
    assert sorted(set(disk.list_directory(base)) - {"closed"}) == ["dir", "file"]


def test_what_is_not_there_is_not_there(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.write_file(f"{base}/file", b"", sync=False)
    assert disk.exists(base)
    assert disk.exists(f"{base}/file")
    for name in ("none", "none/f", "file/f", LONG):
        assert not disk.exists(f"{base}/{name}")


# ---------------------------------------------------------------- full, read-only, out of descriptors


def test_a_full_disk_takes_what_fits_and_says_so(small: Small) -> None:
    disk, base = small.disk, small.base
    disk.allocate(f"{base}/most", SMALL_BYTES - 3 * PAGE_BYTES)
    fd = disk.create(f"{base}/f")
    disk.write(fd, [b"a" * 100])
    with pytest.raises(OSError) as full:
        disk.write(fd, [b"b" * 2 * PAGE_BYTES, b"c" * 2 * PAGE_BYTES])
    assert full.value.errno == errno.ENOSPC
    assert disk.size(f"{base}/f") == 3 * PAGE_BYTES, "a write that fails may have begun"
    assert disk.free_bytes(base) == 0
    calls: list[Callable[[], Any]] = [
        lambda: disk.write(fd, [b"d"]),
        lambda: disk.write_file(f"{base}/t", b"x", sync=True),
        lambda: disk.allocate(f"{base}/more", 1),
    ]
    for refused in calls:
        with pytest.raises(OSError) as full:
            refused()
        assert full.value.errno == errno.ENOSPC
    assert disk.read(f"{base}/t", 0, 9) == b"", "the name is there all the same"
    disk.truncate(f"{base}/most", PAGE_BYTES)
    disk.write(fd, [b"e"])
    disk.sync(fd)
    disk.close(fd)
    assert disk.read(f"{base}/f", 3 * PAGE_BYTES - 1, 9) == b"ce"


def test_a_read_only_disk_is_read(small: Small) -> None:
    disk, base = small.disk, small.base
    disk.make_directory(f"{base}/dir")
    disk.write_file(f"{base}/file", b"x", sync=True)
    small.make_read_only(True)
    calls: list[Callable[[], Any]] = [
        lambda: disk.create(f"{base}/new"),
        lambda: disk.open_append(f"{base}/file"),
        lambda: disk.truncate(f"{base}/file", 0),
        lambda: disk.allocate(f"{base}/file", 9),
        lambda: disk.allocate(f"{base}/new", 9),
        lambda: disk.write_file(f"{base}/file", b"", sync=False),
        lambda: disk.write_file(f"{base}/new", b"", sync=False),
        lambda: disk.rename(f"{base}/file", f"{base}/new"),
        lambda: disk.unlink(f"{base}/file"),
        lambda: disk.unlink(f"{base}/none"),
        lambda: disk.make_directory(f"{base}/dir/new"),
    ]
    for refused in calls:
        with pytest.raises(OSError) as refusal:
            refused()
        assert refusal.value.errno == errno.EROFS
    with pytest.raises(FileExistsError):
        disk.create(f"{base}/file")
    with pytest.raises(FileNotFoundError):
        disk.open_append(f"{base}/none")
    disk.make_directory(f"{base}/dir")
    disk.sync_directory(base)
    assert disk.read(f"{base}/file", 0, 9) == b"x"
    assert sorted(disk.list_directory(base)) == ["dir", "file"]
    small.make_read_only(False)
    disk.unlink(f"{base}/file")


@contextmanager
def no_descriptor_left(disk: Disk) -> Iterator[None]:
    """Whatever opens something fails."""
    if isinstance(disk, SimulatedDisk):
        disk.descriptors_max = disk.open_files()
        yield
        disk.descriptors_max = None
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_descriptor_left_nothing_is_opened_and_the_open_ones_go_on(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.write_file(f"{base}/file", b"x", sync=True)
    fd = disk.create(f"{base}/f")
    errors = []
    with no_descriptor_left(disk):
        for refused in (
            lambda: disk.create(f"{base}/new"),
            lambda: disk.open_append(f"{base}/file"),
            lambda: disk.truncate(f"{base}/file", 0),
            lambda: disk.allocate(f"{base}/file", 9),
            lambda: disk.write_file(f"{base}/new", b"", sync=False),
            lambda: disk.sync_directory(base),
            lambda: disk.list_directory(base),
            lambda: disk.read(f"{base}/file", 0, 1),
            lambda: disk.make_directory(base),
            lambda: disk.make_directory(f"{base}/new"),
        ):
            try:
                refused()
            except OSError as error:
                errors.append(error.errno)
        disk.write(fd, [b"y"])
        disk.sync(fd)
        disk.rename(f"{base}/file", f"{base}/file2")
        disk.unlink(f"{base}/file2")
        sizes = [disk.size(f"{base}/f"), disk.free_bytes(base) > 0, disk.exists(f"{base}/file2")]
    assert errors == [errno.EMFILE] * 10
    assert sizes == [1, True, False]
    disk.close(fd)
    assert disk.list_directory(base) == ["f"]


# ---------------------------------------------------------------- random sequences, call by call

NAMES = ("a", "b", "d", "d/a", "d/b", "d/e", "none/a", "a/b")


class Twin:
    """One disk, and the descriptors that it gave, by their order."""

    def __init__(self, disk: Any, base: str) -> None:
        self.disk = disk
        self.base = base
        self.descriptors: list[int] = []

    def do(self, operation: str, number: int, *arguments: Any) -> Any:
        """Call; what came of it, as far as both must agree."""
        try:
            if operation in ("write", "sync", "close"):
                if not self.descriptors:
                    return None
                fd = self.descriptors[number % len(self.descriptors)]
                if operation == "close":
                    self.descriptors.remove(fd)
                return getattr(self.disk, operation)(fd, *arguments)
            paths = [f"{self.base}/{value}" if isinstance(value, str) else value for value in arguments]
            found = getattr(self.disk, operation)(*paths)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        if operation in ("create", "open_append"):
            self.descriptors.append(found)
            return "a descriptor"
        return sorted(found) if operation == "list_directory" else found

    def close(self) -> None:
        """Give back all descriptors."""
        while self.descriptors:
            self.disk.close(self.descriptors.pop())


def a_call(dice: random.Random, most: int) -> tuple[Any, ...]:
    """Any operation, with any arguments."""
    name, other = dice.choice(NAMES), dice.choice(NAMES)
    size = dice.choice((0, 1, 100, PAGE_BYTES, dice.randrange(most)))
    content = bytes([dice.randrange(1, 256)]) * size
    number = dice.randrange(100)
    return dice.choice(
        (
            ("create", number, name),
            ("open_append", number, name),
            ("write", number, [content[:3], content]),
            ("write", number, [content]),
            ("sync", number),
            ("close", number),
            ("truncate", number, name, size),
            ("write_file", number, name, content, dice.random() < 0.5),
            ("rename", number, name, other),
            ("unlink", number, name),
            ("sync_directory", number, name),
            ("make_directory", number, dice.choice(("d", "d/e", "a"))),
            ("list_directory", number, dice.choice(("", "d", "a"))),
            ("exists", number, name),
            ("read", number, name, size // 2, size),
            ("allocate", number, name, size),
        )
    )


def compare(real: Twin, simulated: Twin, seed: int, calls: int, most: int, *, room: bool) -> set[str]:
    """The same calls to both; returns what was seen, by operation and error."""
    try:
        return _compare(real, simulated, seed, calls, most, room=room)
    finally:
        real.close()


def _compare(real: Twin, simulated: Twin, seed: int, calls: int, most: int, *, room: bool) -> set[str]:
    dice = random.Random(seed)
    seen = set()
    for number in range(calls):
        call = a_call(dice, most)
        if _has_no_answer(simulated, call):
            continue
        truth, found = real.do(*call), simulated.do(*call)
        assert found == truth, f"seed {seed}, call {number}: {call[0]}{call[2:]!r:.200}: {found!r:.200}, not {truth!r:.200}"
        if room:
            free, simulated_free = real.disk.free_bytes(real.base), simulated.disk.free_bytes(simulated.base)
            assert simulated_free == free, f"seed {seed}, call {number}: {call[0]}: {simulated_free} bytes free, not {free}"
        seen.add(f"{call[0]} {truth}" if isinstance(truth, str) and truth.startswith("E") else call[0])
    for name in NAMES:
        if simulated.disk.exists(f"{simulated.base}/{name}"):
            assert simulated.do("read", 0, name, 0, 1 << 20) == real.do("read", 0, name, 0, 1 << 20)
    return seen


def _has_no_answer(twin: Twin, call: tuple[Any, ...]) -> bool:
    """Nobody renames directories or makes files with holes: what they weigh, the simulated disk does not know."""
    if call[0] == "rename":
        return isinstance(twin.do("list_directory", 0, call[2]), list)
    if call[0] == "truncate":
        size = twin.do("size", 0, call[2])
        return isinstance(size, int) and call[3] > size
    return False


@pytest.mark.parametrize("seed", range(20))
def test_random_calls_have_the_same_results(seed: int, tmp_path: Path) -> None:
    for each in range(5):
        base = str(tmp_path / str(each))
        real, simulated = Twin(RealDisk(), base), Twin(SimulatedDisk(), base)
        real.disk.make_directory(base)
        simulated.disk.make_directory(base)
        compare(real, simulated, seed * 100 + each, 100, 3 * PAGE_BYTES, room=False)


def test_random_calls_on_a_disk_that_is_soon_full_have_the_same_results(tmp_path: Path) -> None:
    seen: set[str] = set()
    with small_tmpfs(tmp_path / "small", SMALL_BYTES) as mounted:
        for seed in range(60):
            base = str(mounted / str(seed))
            simulated = SimulatedDisk(block=PAGE_BYTES)
            simulated.capacity = SMALL_BYTES
            real = Twin(RealDisk(), base)
            real.disk.make_directory(base)
            simulated.make_directory(base)
            seen |= compare(real, Twin(simulated, base), seed, 150, SMALL_BYTES // 2, room=True)
            for path in sorted(Path(base).rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    for operation in ("write", "write_file", "allocate"):
        assert f"{operation} ENOSPC" in seen
