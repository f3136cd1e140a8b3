"""The simulated disk does what the real one does: one suite, both disks."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from collectord.journal.disk import Disk, RealDisk
from tests.simulation.disk import SimulatedDisk


@pytest.fixture(params=["real", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, str]:
    """A disk and a directory on it."""
    disk: Disk = RealDisk() if request.param == "real" else SimulatedDisk()
    base = str(tmp_path / "base")
    disk.make_directory(base)
    return disk, base


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


def test_a_name_is_removed_once_and_its_absence_is_no_error(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.write_file(f"{base}/a", b"x", sync=False)
    disk.unlink(f"{base}/a")
    disk.unlink(f"{base}/a")
    assert disk.list_directory(base) == []


def test_a_temporary_file_is_written_over_as_a_whole(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.write_file(f"{base}/t", b"long content", sync=True)
    disk.write_file(f"{base}/t", b"short", sync=True)
    assert disk.read(f"{base}/t", 0, 100) == b"short"


def test_a_file_is_cut(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.write_file(f"{base}/f", b"0123456789", sync=True)
    disk.truncate(f"{base}/f", 4)
    assert disk.read(f"{base}/f", 0, 100) == b"0123"


def test_directories_are_made_with_their_parents_and_listed(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.make_directory(f"{base}/a/b")
    disk.make_directory(f"{base}/a/b")
    disk.write_file(f"{base}/f", b"", sync=False)
    assert sorted(disk.list_directory(base)) == ["a", "f"]
    with pytest.raises(FileNotFoundError):
        disk.list_directory(f"{base}/none")


def test_a_descriptor_is_closed_once(place: tuple[Disk, str]) -> None:
    disk, base = place
    fd = disk.create(f"{base}/f")
    disk.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor") as error:
        disk.close(fd)
    assert error.value.errno == errno.EBADF


def test_a_power_cut_forgets_what_was_not_synced_and_only_that() -> None:
    disk = SimulatedDisk()
    disk.make_directory("/d")
    fd = disk.create("/d/f")
    disk.write(fd, [b"durable"])
    disk.sync(fd)
    assert not disk.power_cut(min).exists("/d/f"), "its name was not synced"
    disk.sync_directory("/d")
    disk.write(fd, [b"-not"])
    assert disk.power_cut(min).read("/d/f", 0, 99) == b"durable"
    assert disk.power_cut(max).read("/d/f", 0, 99) == b"durable-not"
    disk.write_file("/d/t", b"new", sync=True)
    disk.rename("/d/t", "/d/f")
    assert disk.power_cut(min).read("/d/f", 0, 99) == b"durable"
    disk.sync_directory("/d")
    assert disk.power_cut(min).read("/d/f", 0, 99) == b"new"
