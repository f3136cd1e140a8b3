"""What a power cut leaves of the simulated disk, and how it fails: what cannot be compared with a real disk in one process."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest

from tests.simulation.disk import BLOCK_SIZE_BYTES, Effect, SimulatedDisk

B = BLOCK_SIZE_BYTES
FOREVER = 10_000


def disk_with(content: bytes) -> SimulatedDisk:
    """A disk with one durable file, ``/d/f``."""
    disk = SimulatedDisk()
    disk.make_directory("/d")
    disk.write_file("/d/f", content, sync=True)
    disk.sync_directory("/d")
    return disk


def append(disk: SimulatedDisk, content: bytes, sync: bool = False) -> None:
    """To ``/d/f``."""
    fd = disk.open_append("/d/f")
    disk.write(fd, [content])
    if sync:
        disk.sync(fd)
    disk.close(fd)


def found(disk: SimulatedDisk, path: str = "/d/f") -> set[bytes | None]:
    """All that may be found of a file after a power cut now."""
    return {cut.read(path, 0, 1 << 20) if cut.exists(path) else None for cut in disk.power_cuts(FOREVER)}


def names(disk: SimulatedDisk, path: str = "/d") -> set[tuple[str, ...]]:
    """All that may be found in a directory."""
    return {tuple(sorted(cut.list_directory(path))) for cut in disk.power_cuts(FOREVER)}


# ---------------------------------------------------------------- bytes


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


def test_any_blocks_of_what_was_not_synced_may_be_missing_not_only_the_last() -> None:
    disk = disk_with(b"")
    append(disk, b"a" * B + b"b" * B + b"c" * B)
    gone = b"\0" * B
    a, b, c = b"a" * B, b"b" * B, b"c" * B
    lengths = {first + second + third for first in (a, gone) for second in (b, gone) for third in (c, gone)}
    lengths |= {first + second for first in (a, gone) for second in (b, gone)} | {a, gone, b""}
    assert found(disk) == lengths


def test_the_durable_part_of_a_block_outlives_the_loss_of_the_rest() -> None:
    disk = disk_with(b"durable")
    append(disk, b"-lost" + b"x" * B)
    rest = B - len(b"durable-lost")
    zeros = b"\0" * (B - len(b"durable"))
    kept = b"-lost" + b"x" * rest
    tail = b"x" * (B - rest)
    assert found(disk) == {
        b"durable",
        b"durable" + kept,
        b"durable" + zeros,
        b"durable" + kept + tail,
        b"durable" + zeros + tail,
        b"durable" + kept + b"\0" * len(tail),
        b"durable" + zeros + b"\0" * len(tail),
    }


def test_a_block_written_twice_may_be_found_as_it_was_between() -> None:
    disk = disk_with(b"")
    append(disk, b"one")
    append(disk, b"two")
    assert found(disk) == {b"", b"one", b"\0\0\0", b"onetwo", b"one\0\0\0", b"\0" * 6}


def test_a_cut_that_was_not_synced_may_not_have_happened() -> None:
    disk = disk_with(b"0123456789")
    disk.fail_nth("truncate", 1, errno.EIO, effect=Effect.PART)
    with pytest.raises(OSError):
        disk.truncate("/d/f", 4)
    assert disk.read("/d/f", 0, 99) == b"0123", "reads see it"
    assert {b"0123", b"0123456789"} <= found(disk)
    disk.truncate("/d/f", 4)
    assert found(disk) == {b"0123"}


def test_an_overwrite_that_was_not_synced_leaves_the_old_the_new_or_a_mixture() -> None:
    disk = disk_with(b"o" * B + b"o" * B)
    disk.write_file("/d/f", b"n" * B + b"n" * B, sync=False)
    o, n = b"o" * B, b"n" * B
    assert {o + o, o + n, n + o, n + n, b""} <= found(disk)


def test_what_was_synced_is_the_one_thing_that_is_found() -> None:
    disk = disk_with(b"a" * 3 * B)
    append(disk, b"b" * 3 * B)
    append(disk, b"c", sync=True)
    assert found(disk) == {b"a" * 3 * B + b"b" * 3 * B + b"c"}


def test_blocks_may_be_pages() -> None:
    disk = SimulatedDisk(block=4_096)
    disk.make_directory("/d")
    disk.write_file("/d/f", b"x" * 5_000, sync=False)
    disk.sync_directory("/d")
    zeros = bytes(4_096)
    assert found(disk) == {
        b"", zeros, b"x" * 4_096, bytes(5_000), b"x" * 4_096 + bytes(904), zeros + b"x" * 904, b"x" * 5_000,
    }  # fmt: skip


# ---------------------------------------------------------------- a sync that fails once


def test_after_a_sync_that_failed_reads_see_what_the_next_sync_does_not_write() -> None:
    disk = disk_with(b"old")
    fd = disk.open_append("/d/f")
    disk.write(fd, [b"-new"])
    disk.fail_nth("sync", 1, errno.EIO)
    with pytest.raises(OSError):
        disk.sync(fd)
    disk.sync(fd)
    assert disk.read("/d/f", 0, 99) == b"old-new"
    assert found(disk) == {b"old-new", b"old\0\0\0\0"}, "its length is durable, its bytes are not"
    disk.write(fd, [b"-more"])
    disk.sync(fd)
    assert found(disk) == {b"old-new-more"}, "a block that is written again is written as a whole"


def test_a_sync_may_fail_before_and_after_its_work_too() -> None:
    for effect, legal in ((Effect.NOTHING, {b"", b"x", b"\0"}), (Effect.WHOLE, {b"x"})):
        disk = disk_with(b"")
        fd = disk.open_append("/d/f")
        disk.write(fd, [b"x"])
        disk.fail_nth("sync", 1, errno.EIO, effect=effect)
        with pytest.raises(OSError):
            disk.sync(fd)
        assert found(disk) == legal
        disk.sync(fd)
        assert found(disk) == {b"x"}


def test_names_that_a_failed_directory_sync_has_lost_are_not_made_durable_by_the_next() -> None:
    disk = disk_with(b"")
    disk.write_file("/d/a", b"", sync=True)
    disk.fail_nth("sync_directory", 1, errno.EIO, effect=Effect.LOST)
    with pytest.raises(OSError):
        disk.sync_directory("/d")
    disk.write_file("/d/b", b"", sync=True)
    disk.sync_directory("/d")
    assert names(disk) == {("b", "f"), ("a", "b", "f")}
    disk.unlink("/d/a")
    disk.sync_directory("/d")
    assert names(disk) == {("b", "f")}


# ---------------------------------------------------------------- names


def test_a_directory_keeps_a_prefix_of_what_was_done_to_it() -> None:
    disk = disk_with(b"")
    for name in "abc":
        disk.write_file(f"/d/{name}", b"", sync=True)
    disk.unlink("/d/a")
    assert names(disk) == {("f",), ("a", "f"), ("a", "b", "f"), ("a", "b", "c", "f"), ("b", "c", "f")}


def test_a_rename_happens_as_a_whole_or_not_at_all() -> None:
    disk = disk_with(b"old")
    disk.write_file("/d/t", b"new", sync=True)
    disk.sync_directory("/d")
    disk.rename("/d/t", "/d/f")
    assert names(disk) == {("f", "t"), ("f",)}
    assert found(disk) == {b"old", b"new"}


def test_directories_keep_their_changes_apart_but_for_a_rename_between_them() -> None:
    disk = disk_with(b"x")
    disk.make_directory("/e")
    disk.write_file("/d/a", b"", sync=True)
    disk.write_file("/e/b", b"", sync=True)
    both = {(tuple(sorted(cut.list_directory("/d"))), tuple(cut.list_directory("/e"))) for cut in disk.power_cuts(FOREVER)}
    assert both == {(("f",), ()), (("a", "f"), ()), (("f",), ("b",)), (("a", "f"), ("b",))}
    disk.sync_directory("/d")
    disk.rename("/d/f", "/e/f")
    both = {
        (tuple(sorted(cut.list_directory("/d"))), tuple(sorted(cut.list_directory("/e")))) for cut in disk.power_cuts(FOREVER)
    }
    assert both == {(("a", "f"), ()), (("a", "f"), ("b",)), (("a",), ("b", "f"))}, "never in both, never in neither"
    disk.sync_directory("/d")
    assert names(disk, "/e") == {("b", "f")}


def test_a_directory_whose_own_name_is_not_durable_is_gone_with_all_that_is_in_it() -> None:
    disk = disk_with(b"")
    disk.fail_nth("make_directory", 1, errno.EIO)
    with pytest.raises(OSError):
        disk.make_directory("/d/e")
    disk.write_file("/d/e/f", b"durable", sync=True)
    disk.sync_directory("/d/e")
    assert found(disk, "/d/e/f") == {None, b"durable"}
    disk.make_directory("/d/e")
    assert found(disk, "/d/e/f") == {b"durable"}


# ---------------------------------------------------------------- all states, and one of them


def test_more_states_than_the_limit_are_drawn_with_both_extremes() -> None:
    disk = disk_with(b"")
    append(disk, b"x" * 40 * B)
    cuts = [cut.read("/d/f", 0, 1 << 20) for cut in disk.power_cuts(100)]
    assert len(cuts) == 100
    assert cuts[0] == b""
    assert cuts[1] == b"x" * 40 * B
    assert len(set(cuts)) > 90


def test_a_state_is_drawn_by_its_seed() -> None:
    disk = disk_with(b"")
    append(disk, b"x" * 40 * B)
    drawn = [disk.random_power_cut(random.Random(seed)).read("/d/f", 0, 1 << 20) for seed in range(30)]
    assert drawn == [disk.random_power_cut(random.Random(seed)).read("/d/f", 0, 1 << 20) for seed in range(30)]
    assert b"" in drawn
    assert b"x" * 40 * B in drawn
    assert len(set(drawn)) > 8


def test_a_disk_found_after_a_power_cut_has_nothing_open_and_everything_durable() -> None:
    disk = disk_with(b"")
    disk.open_append("/d/f")
    append(disk, b"x" * 9)
    survivor = disk.power_cut(max)
    assert survivor.open_files() == 0
    assert found(survivor) == {b"x" * 9}
    append(survivor, b"y", sync=True)
    assert disk.read("/d/f", 0, 99) == b"x" * 9, "the two have nothing in common"


# ---------------------------------------------------------------- failing on order

CALLS: dict[str, Callable[[SimulatedDisk, int, str], object]] = {
    "create": lambda disk, _, new: disk.create(new),
    "open_append": lambda disk, _, __: disk.open_append("/d/f"),
    "write": lambda disk, fd, _: disk.write(fd, [b"abcd"]),
    "sync": lambda disk, fd, _: disk.sync(fd),
    "close": lambda disk, fd, _: disk.close(fd),
    "truncate": lambda disk, _, __: disk.truncate("/d/f", 1),
    "allocate": lambda disk, _, new: disk.allocate(new, 4),
    "write_file": lambda disk, _, new: disk.write_file(new, b"abcd", sync=True),
    "rename": lambda disk, _, new: (disk.rename("/d/f", new), disk.rename(new, "/d/f")),  # type: ignore[func-returns-value]
    "unlink": lambda disk, _, new: disk.unlink(new),
    "sync_directory": lambda disk, _, __: disk.sync_directory("/d"),
    "make_directory": lambda disk, _, new: disk.make_directory(new),
    "list_directory": lambda disk, _, __: disk.list_directory("/d"),
    "size": lambda disk, _, __: disk.size("/d/f"),
    "read": lambda disk, _, __: disk.read("/d/f", 0, 9),
    "free_bytes": lambda disk, _, __: disk.free_bytes("/d"),
    "total_bytes": lambda disk, _, __: disk.total_bytes("/d"),
}


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE])
@pytest.mark.parametrize("operation", CALLS)
def test_the_nth_call_of_any_operation_fails_with_any_error(operation: str, error: int) -> None:
    disk = disk_with(b"file")
    descriptors = [disk.open_append("/d/f") for _ in range(4)]
    first = 2 if operation != "rename" else 3  # two calls each
    disk.fail_nth(operation, first, error, times=2, effect=Effect.NOTHING)
    outcomes = []
    for number, fd in enumerate(descriptors):
        try:
            CALLS[operation](disk, fd, f"/d/new{number}")
            outcomes.append(0)
        except OSError as failure:
            outcomes.append(failure.errno or -1)
    assert outcomes == [0, error, error, 0]
    assert disk.faults_left == 0
    assert disk.fired == {(operation, errno.errorcode[error], "nothing"): 2}


def test_a_failed_call_may_have_done_a_part_or_all_of_its_work() -> None:
    disk = disk_with(b"")
    fd = disk.open_append("/d/f")
    disk.fail_nth("write", 1, errno.ENOSPC)
    with pytest.raises(OSError):
        disk.write(fd, [b"abcd"])
    assert disk.read("/d/f", 0, 9) == b"ab"
    disk.fail_nth("write_file", 1, errno.ENOSPC)
    with pytest.raises(OSError):
        disk.write_file("/d/t", b"abcd", sync=True)
    assert disk.read("/d/t", 0, 9) == b"ab"
    disk.fail_nth("rename", 1, errno.EIO, effect=Effect.WHOLE)
    with pytest.raises(OSError):
        disk.rename("/d/t", "/d/u")
    assert sorted(disk.list_directory("/d")) == ["f", "u"]
    disk.fail_nth("close", 1, errno.EIO)
    with pytest.raises(OSError):
        disk.close(fd)
    assert disk.open_files() == 0


def test_a_quota_is_not_seen_in_what_is_free() -> None:
    disk = disk_with(b"")
    disk.quota = 4 * B
    fd = disk.open_append("/d/f")
    with pytest.raises(OSError) as refusal:
        disk.write(fd, [b"x" * 5 * B])
    assert refusal.value.errno == errno.EDQUOT
    assert disk.size("/d/f") == 4 * B
    assert disk.free_bytes("/d") > 1 << 30
    disk.capacity = 4 * B
    assert disk.free_bytes("/d") == 0
    with pytest.raises(OSError) as refusal:
        disk.write(fd, [b"x"])
    assert refusal.value.errno in (errno.ENOSPC, errno.EDQUOT)
