"""The writer against the simulated disk: what it has said is durable is there after the power has gone."""

from __future__ import annotations

import errno
import itertools

import pytest

from collectord.errors import DiskError
from collectord.journal.reader import JournalReader
from collectord.journal.scan import FoundRecord, scan_segment
from collectord.journal.store import Store
from collectord.journal.writer import JournalWriter, append_note
from collectord.model import Record, RecordType
from collectord.session import records
from tests.simulation.disk import SimulatedDisk

STEM = "s"


def writer_on(disk: SimulatedDisk) -> tuple[JournalWriter, Store]:
    """A writer with its first record durable."""
    store = Store(disk, "/state", 0)
    store.prepare()
    salts = itertools.count(11)
    writer = JournalWriter(disk, store.journal_directory(0), STEM, 1, lambda: next(salts), lambda: 5)
    writer.create([record(0)])
    return writer, store


def record(number: int) -> Record:
    """A record that can be told from others."""
    return Record(RecordType.NOTE, records.pack(number))


def after_power_cut(disk: SimulatedDisk) -> list[int]:
    """The numbers that a reader finds when everything unsynced is gone."""
    survivor = disk.power_cut(min)
    segments = Store(survivor, "/state", 0).segments_of(0, STEM, 1)
    reader = JournalReader(survivor, segments, [None] * len(segments))
    return [records.unpack(found.body) for found in reader if found.type is RecordType.NOTE]


def test_what_append_returned_for_survives_a_power_cut() -> None:
    disk = SimulatedDisk()
    writer, _ = writer_on(disk)
    for number in range(1, 5):
        writer.append([record(number)])
        assert after_power_cut(disk) == list(range(number + 1))
    assert [part.durable_offset for part in writer.segments] == [disk.size("/state/journals/s~1.0.journal")]


@pytest.mark.parametrize("operation", ["write", "sync"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_file_that_failed_once_is_never_written_again(operation: str, error: int) -> None:
    disk = SimulatedDisk()
    writer, store = writer_on(disk)
    disk.fail_nth(operation, 1, error)
    writer.append([record(1)])
    writer.append([record(2)])
    assert after_power_cut(disk) == [0, 1, 2]
    assert store.segments_of(0, STEM, 1) == ["/state/journals/s~1.0.journal", "/state/journals/s~1.1.journal"]
    syncs = [name for name, *_ in disk.operations].count("sync")
    assert syncs <= 4, "no sync was tried again on the file that failed"


@pytest.mark.parametrize("operation", ["create", "write", "sync", "sync_directory"])
def test_a_fresh_segment_that_fails_too_keeps_everything_for_the_next_try(operation: str) -> None:
    disk = SimulatedDisk()
    writer, _ = writer_on(disk)
    disk.fail_nth("sync", 1, errno.EIO)
    disk.fail_nth(operation, 2 if operation == "write" else 1, errno.ENOSPC, times=2)
    with pytest.raises(DiskError) as failure:
        writer.append([record(1)])
    assert failure.value.code == "disk-failed"
    assert writer.has_failed
    assert writer.pending_bytes
    for _ in range(4):
        try:
            writer.retry()
            break
        except DiskError:
            continue
    assert after_power_cut(disk) == [0, 1]


def test_each_operation_failing_in_turn_loses_nothing_that_append_returned_for() -> None:
    tried = 0
    for operation in ("create", "write", "sync", "sync_directory", "close", "unlink"):
        for nth in range(1, 8):
            for times in (1, 2, 3):
                disk = SimulatedDisk()
                writer, _ = writer_on(disk)
                disk.fail_nth(operation, nth, errno.EIO, times)
                if operation != "sync":
                    disk.fail_nth("sync", 2, errno.EIO)
                promised = [0]
                for number in range(1, 6):
                    try:
                        writer.append([record(number)])
                    except DiskError:
                        continue
                    promised = list(range(number + 1))
                    assert after_power_cut(disk) == promised
                assert after_power_cut(disk)[: len(promised)] == promised
                tried += 1
    print(f"{tried} faults")


def test_a_failed_segment_that_cannot_be_removed_does_not_mislead_the_reader() -> None:
    disk = SimulatedDisk()
    writer, _ = writer_on(disk)
    disk.fail_nth("sync", 1, errno.EIO, times=2)
    disk.fail_nth("unlink", 1, errno.EIO)
    with pytest.raises(DiskError):
        writer.append([record(1)])
    writer.append([record(2)])
    writer.append([record(3)])
    assert after_power_cut(disk) == [0, 1, 2, 3]
    found = disk.power_cut(max)
    segments = Store(found, "/state", 0).segments_of(0, STEM, 1)
    assert len(segments) == 3
    reader = JournalReader(found, segments, [None] * 3)
    numbers = [records.unpack(item.body) for item in reader if item.type is RecordType.NOTE]
    assert numbers == [0, 1, 2, 3], "nothing comes twice"


def test_a_note_goes_behind_the_end_of_a_sealed_journal_and_not_behind_damage() -> None:
    disk = SimulatedDisk()
    writer, store = writer_on(disk)
    writer.close()
    segments = store.segments_of(0, STEM, 1)
    append_note(disk, segments, record(7))
    assert after_power_cut(disk) == [0, 7]
    fd = disk.open_append(segments[-1])
    disk.write(fd, [b"torn"])
    disk.close(fd)
    with pytest.raises(DiskError):
        append_note(disk, segments, record(8))


def test_a_journal_that_is_there_is_not_begun_again() -> None:
    disk = SimulatedDisk()
    writer_on(disk)
    with pytest.raises(FileExistsError):
        writer_on(disk)


def test_what_follows_a_checkpoint_that_was_not_synced_does_not_say_that_it_was() -> None:
    disk = SimulatedDisk()
    writer, store = writer_on(disk)
    writer.checkpoint()
    writer.append([record(1), record(2)])
    writer.append([record(3)])
    path = store.segment_path(0, STEM, 1, 0)
    found = [
        item
        for item in scan_segment(lambda at, size: disk.read(path, at, size), disk.size(path))
        if isinstance(item, FoundRecord)
    ]
    assert [item.record.type is RecordType.CHECKPOINT for item in found] == [False, True, False, False, False]
    assert [item.begins_group for item in found] == [True, True, False, False, True]


def test_half_a_note_is_cut_off_again() -> None:
    disk = SimulatedDisk()
    writer, store = writer_on(disk)
    writer.close()
    segments = store.segments_of(0, STEM, 1)
    size = disk.size(segments[-1])
    disk.fail_nth("write", 1, errno.ENOSPC)
    with pytest.raises(OSError):
        append_note(disk, segments, record(7))
    assert disk.size(segments[-1]) == size
    append_note(disk, segments, record(8))
    assert after_power_cut(disk) == [0, 8]
