"""What is done with every kind of journal and trace file that is found; twice is once, and so is a try that was interrupted."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable

import msgpack
import pytest

from collectord.errors import DiskError
from collectord.journal.condition import Journal, Tail, examine
from collectord.journal.finished import shown_position
from collectord.journal.format import HEAD_SIZE_BYTES, HEADER_SIZE_BYTES, Head, encode_head
from collectord.journal.reader import JournalReader
from collectord.journal.recovery import MENDING, TABLE, Decision, Mending, Recovered, TraceFile, is_over, recover_run
from collectord.journal.scan import FoundRecord, scan_segment
from collectord.journal.store import RunFound, Store
from collectord.journal.writer import JournalWriter, LeftOpen, SegmentPart
from collectord.model import CrashReason, Record, RecordType, Verdict
from collectord.session import records
from tests.export.journals import facts
from tests.simulation.disk import SimulatedDisk

PATH = "/state/journals/s~1.0.journal"
NEXT = "/state/journals/s~1.1.journal"
TRACE = "/state/traces/s.json"
EVENTS = [Record(RecordType.EVENTS, msgpack.packb([[5, n, 9, f"event {n}", {}, None]]), 1, n, n, 1) for n in range(1, 6)]
TERMINAL = records.crashed(9, Verdict(CrashReason.REPORTED, "it broke"), None)


def fresh() -> tuple[SimulatedDisk, Store]:
    """A state directory with nothing in it."""
    disk = SimulatedDisk()
    store = Store(disk, "/state", 0)
    store.prepare()
    return disk, store


def written(*groups: list[Record], checkpoint: bool = False) -> tuple[SimulatedDisk, Store]:
    """A journal whose groups were each synced, the first of them with the opening."""
    disk, store = fresh()
    salts = itertools.count(11)
    writer = JournalWriter(disk, "/state/journals", "s", 1, lambda: next(salts), lambda: 5)
    writer.create([records.opened(facts())])
    for group in groups:
        writer.append(group)
    if checkpoint:
        writer.checkpoint()
    writer.close()
    return disk, store


def put_trace(disk: SimulatedDisk, outcome: str) -> None:
    """A trace file whose first line says so."""
    disk.write_file(TRACE, b'{"collectord":{"outcome":"%s"},\n"session":{}}' % outcome.encode(), sync=True)
    disk.sync_directory("/state/traces")


def recover(disk: SimulatedDisk, store: Store) -> Recovered:
    """What recovery does with the one run that is there."""
    (found,) = store.runs_found()
    salts = itertools.count(1_000)
    return recover_run(disk, store, found, lambda: next(salts), lambda: 7)


def records_in(raw: bytes) -> list[FoundRecord]:
    """The sound records of a file."""
    found = scan_segment(lambda offset, size: raw[offset : offset + size], len(raw))
    return [item for item in found if isinstance(item, FoundRecord)]


def everything(disk: SimulatedDisk) -> dict[str, bytes]:
    """All files and what is in them."""
    found = {}
    for directory in ("/state/journals", "/state/traces", "/state/quarantine"):
        for name in disk.list_directory(directory):
            path = f"{directory}/{name}"
            found[path] = disk.read(path, 0, disk.size(path))
    return found


def sound(disk: SimulatedDisk, store: Store) -> list[Record]:
    """What a reader finds, without what recovery puts there for itself."""
    (found,) = store.runs_found()
    reader = JournalReader(disk, found.segment_paths, [None] * len(found.segment_paths))
    return [record for record in reader if record.type not in (RecordType.SEGMENT, RecordType.CHECKPOINT)]


def flip(disk: SimulatedDisk, path: str, offset: int) -> None:
    """Damage one byte, durably."""
    content = bytearray(disk.read(path, 0, disk.size(path)))
    content[offset] ^= 0x40
    disk.write_file(path, bytes(content), sync=True)


def append(disk: SimulatedDisk, path: str, raw: bytes) -> None:
    """Put bytes behind a file."""
    fd = disk.open_append(path)
    disk.write(fd, [raw])
    disk.sync(fd)
    disk.close(fd)


# ---------------------------------------------------------------- the tables


def test_the_tables_say_something_of_everything_that_can_be_found() -> None:
    assert set(TABLE) == set(itertools.product(Journal, TraceFile))
    assert set(TABLE.values()) == set(Decision)
    assert set(MENDING) == set(Tail)
    assert set(MENDING.values()) == set(Mending)


def test_a_finished_trace_file_is_never_to_be_written_again() -> None:
    for journal in Journal:
        assert TABLE[journal, TraceFile.FINISHED] in (Decision.NOTHING, Decision.LEAVE)


def journals() -> dict[Journal, Callable[[], tuple[SimulatedDisk, Store]]]:
    """One way to each kind of journal."""

    def headless(head: bytes) -> tuple[SimulatedDisk, Store]:
        disk, store = fresh()
        disk.write_file(PATH, head, sync=True)
        disk.sync_directory("/state/journals")
        return disk, store

    return {
        Journal.OPEN: lambda: written(EVENTS[:2]),
        Journal.TERMINAL: lambda: written(EVENTS[:2], [TERMINAL]),
        Journal.NEWER: lambda: headless(encode_head(Head(1, 1, 0, version=2))),
        Journal.UNREADABLE: lambda: headless(b"nothing of ours"),
    }


@pytest.mark.parametrize("trace", TraceFile)
@pytest.mark.parametrize("journal", Journal)
def test_every_row_of_the_table_happens_and_a_second_time_changes_nothing(journal: Journal, trace: TraceFile) -> None:
    disk, store = journals()[journal]()
    if trace is not TraceFile.MISSING:
        put_trace(disk, "running" if trace is TraceFile.RUNNING else "crashed")
    before = sound(disk, store) if journal in (Journal.OPEN, Journal.TERMINAL) else []
    told = everything(disk).get(TRACE)
    first = recover(disk, store)
    assert (first.journal, first.decision) == (journal, TABLE[journal, trace])
    after = everything(disk)
    assert after.get(TRACE) == told, "the trace file is for somebody else to write"
    if first.decision is Decision.QUARANTINE:
        assert after["/state/quarantine/s~1.0.journal"] == b"nothing of ours"
        assert list(store.runs_found()) == []
        return
    assert sound(disk, store) == before if before else True
    second = recover(disk, store)
    assert second.decision is first.decision
    assert second.mending is Mending.NONE
    assert everything(disk) == after


def test_an_older_version_than_there_ever_was_is_unreadable() -> None:
    disk, store = fresh()
    disk.write_file(PATH, encode_head(Head(1, 1, 0, version=0)), sync=True)
    assert recover(disk, store).journal is Journal.UNREADABLE


def test_what_is_set_aside_is_never_written_over() -> None:
    disk, store = fresh()
    for content in (b"first", b"second"):
        disk.write_file(PATH, content, sync=True)
        assert recover(disk, store).decision is Decision.QUARANTINE
    assert disk.read("/state/quarantine/s~1.0.journal", 0, 99) == b"first"
    assert disk.read("/state/quarantine/s~1.0.journal.1", 0, 99) == b"second"


# ---------------------------------------------------------------- tails


def test_the_last_group_is_written_again_in_a_fresh_segment_since_nobody_knows_that_it_is_durable() -> None:
    disk, store = written(EVENTS[:2], EVENTS[2:4])
    before = sound(disk, store)
    told = recover(disk, store)
    assert told.mending is Mending.WRITE_AGAIN
    assert told.left is not None
    assert [part.path for part in told.left.parts] == [PATH, NEXT]
    assert sound(disk, store) == before
    disk.write_file(PATH, disk.read(PATH, 0, told.left.parts[0].durable_offset), sync=True)  # the rest never got to the disk
    assert sound(disk, store) == before


def test_behind_a_checkpoint_nothing_is_written_again() -> None:
    disk, store = written(EVENTS[:2], checkpoint=True)
    before = everything(disk)
    told = recover(disk, store)
    assert told.mending is Mending.NONE
    assert everything(disk) == before
    assert told.left is not None
    writer = JournalWriter(disk, "/state/journals", "s", 1, lambda: 1, lambda: 5)
    writer.go_on(told.left)
    writer.append(EVENTS[2:3])
    assert [record.type for record in sound(disk, store)] == [RecordType.OPENED] + 3 * [RecordType.EVENTS]
    assert len(writer.segments) == 1


def test_restarts_without_events_do_not_pile_up_files() -> None:
    disk, store = written(EVENTS[:2])
    for _ in range(5):
        recover(disk, store)
    assert disk.list_directory("/state/journals") == ["s~1.0.journal", "s~1.1.journal"]


def test_a_torn_tail_is_set_aside_counted_and_cut() -> None:
    disk, store = written(EVENTS[:2])
    size = disk.size(PATH)
    append(disk, PATH, b"half a record")
    told = recover(disk, store)
    assert (told.mending, told.torn_bytes) == (Mending.CUT, 13)
    assert disk.size(PATH) == size
    assert disk.read(f"/state/quarantine/s~1.0.journal.{size}.torn", 0, 99) == b"half a record"
    note = f"/state/quarantine/s~1.0.journal.{size}.torn.txt"
    assert b"the last record was incomplete" in disk.read(note, 0, 999)
    assert [record.type for record in sound(disk, store)].count(RecordType.TORN) == 1
    after = everything(disk)
    assert recover(disk, store).mending is Mending.NONE
    assert everything(disk) == after


def test_a_hole_of_zeros_in_the_last_group_is_torn_with_all_that_lies_behind_it() -> None:
    big = [Record(RecordType.EVENTS, msgpack.packb([[5, n, 9, "x" * 2_000, {}, None]]), 1, n, n, 1) for n in range(1, 6)]
    disk, store = written(big[:2], big[2:])
    content = bytearray(disk.read(PATH, 0, disk.size(PATH)))
    hole = (len(content) - 3_000) // 512 * 512
    content[hole : hole + 512] = bytes(512)
    disk.write_file(PATH, bytes(content), sync=True)
    told = recover(disk, store)
    assert told.mending is Mending.CUT
    assert [r.first_position for r in sound(disk, store) if r.type is RecordType.EVENTS] == [1, 2, 3]
    assert told.damage.faults == []


def test_a_hole_that_begins_where_the_last_group_does_is_torn_though_its_sector_holds_what_was_there_before() -> None:
    for size in range(400):
        filler = [Record(RecordType.EVENTS, msgpack.packb([[5, 1, 9, "x" * size, {}, None]]), 1, 1, 1, 1)]
        disk, store = written(filler, EVENTS[1:3])
        content = bytearray(disk.read(PATH, 0, disk.size(PATH)))
        (start,) = [item.offset for item in records_in(bytes(content)) if item.begins_group][2:]
        if not 4 <= -start % 512 < 36:
            continue
        content[start : start - start % 512 + 512] = bytes(-start % 512)
        disk.write_file(PATH, bytes(content), sync=True)
        told = recover(disk, store)
        assert (told.mending, told.damage.faults) == (Mending.CUT, [])
        return
    raise AssertionError("no group begins at the end of a sector")


def test_a_hole_before_the_last_group_is_corruption_and_stays() -> None:
    big = [Record(RecordType.EVENTS, msgpack.packb([[5, n, 9, "x" * 2_000, {}, None]]), 1, n, n, 1) for n in range(1, 6)]
    disk, store = written(big[:2], big[2:])
    content = bytearray(disk.read(PATH, 0, disk.size(PATH)))
    content[1_024:1_536] = bytes(512)
    disk.write_file(PATH, bytes(content), sync=True)
    told = recover(disk, store)
    assert told.torn_bytes == 0
    assert len(told.damage.faults) == 1
    assert [r.first_position for r in sound(disk, store) if r.type is RecordType.EVENTS] == [2, 3, 4, 5]


def test_a_flipped_bit_in_the_last_group_is_corruption_and_costs_one_record() -> None:
    disk, store = written(EVENTS[:1], EVENTS[1:])
    size = disk.size(PATH)
    flip(disk, PATH, size - 100)
    told = recover(disk, store)
    assert told.mending is Mending.SYNC
    assert told.torn_bytes == 0
    (fault,) = told.damage.faults
    assert fault.path == PATH
    assert fault.offset <= size - 100 < fault.offset + fault.length
    assert disk.size(PATH) == size, "it stays where it is"
    assert told.left is not None
    writer = JournalWriter(disk, "/state/journals", "s", 1, lambda: 1, lambda: 5)
    writer.go_on(told.left)
    writer.append([records.note(1, "crash", "late")])
    assert [r.first_position for r in sound(disk, store) if r.type is RecordType.EVENTS] == [1, 2, 3, 5]


def test_a_last_segment_that_nobody_finished_is_passed_over_and_counted() -> None:
    disk, store = written(EVENTS[:2], EVENTS[2:])
    before = sound(disk, store)
    for content in (b"", b"\0" * 600, encode_head(Head(3, 1, 1)) + b"half"):
        disk.write_file(NEXT, content, sync=True)
        (found,) = store.runs_found()
        assert examine(disk, found.segment_paths).journal is Journal.OPEN
        told = recover(disk, store)
        assert told.torn_bytes == len(content)
        assert [record for record in sound(disk, store) if record.type is not RecordType.TORN] == before
        for path in ("/state/journals/s~1.2.journal", NEXT):
            disk.unlink(path)


@pytest.mark.parametrize("again", [False, True])
def test_a_segment_that_is_there_in_part_takes_nothing_from_the_one_before_it(again: bool) -> None:
    """What recovery writes again was acknowledged, perhaps: until the copy is whole, the original is what counts."""

    def made() -> tuple[SimulatedDisk, Store]:
        disk, store = written(EVENTS[:2], EVENTS[2:4])
        if again:  # and its checkpoint got lost, so that it is written once more
            recover(disk, store)
            disk.truncate(NEXT, disk.size(NEXT) - HEADER_SIZE_BYTES - 1)
        return disk, store

    disk, store = made()
    wanted = sound(disk, store)
    path = f"/state/journals/s~1.{1 + again}.journal"
    recover(disk, store)
    raw = disk.read(path, 0, disk.size(path))
    for cut in range(len(raw) + 1):
        disk, store = made()
        disk.write_file(path, raw[:cut], sync=True)
        recover(disk, store)
        assert [record for record in sound(disk, store) if record.type is not RecordType.TORN] == wanted, cut


def test_of_several_segments_one_of_which_failed_each_event_counts_once() -> None:
    disk, store = fresh()
    salts = itertools.count(11)
    writer = JournalWriter(disk, "/state/journals", "s", 1, lambda: next(salts), lambda: 5)
    writer.create([records.opened(facts())])
    writer.append(EVENTS[:1])
    disk.fail_nth("sync", 1, errno.EIO)
    writer.append(EVENTS[1:2])
    writer.append(EVENTS[2:3])
    writer.close()
    recover(disk, store)
    positions = [record.first_position for record in sound(disk, store) if record.type is RecordType.EVENTS]
    assert positions == [1, 2, 3]


def test_a_first_segment_of_which_nothing_was_durable_is_not_missed() -> None:
    disk, store = written(EVENTS[:2])
    (found,) = store.runs_found()
    whole = list(JournalReader(disk, found.segment_paths, [None]))
    writer = JournalWriter(disk, store.journal_directory(0), found.stem, 1, lambda: 77, lambda: 5)
    writer.go_on(LeftOpen((SegmentPart(PATH, HEAD_SIZE_BYTES),), HEAD_SIZE_BYTES, 11, 1), append=False)
    writer.append(whole)
    disk.unlink(PATH)
    reader = JournalReader(disk, [NEXT], [None])
    assert [record for record in reader if record.type is not RecordType.SEGMENT] == whole
    assert reader.damage.faults == []


def test_a_segment_that_is_missing_or_too_short_is_damage_with_a_place_and_no_exception() -> None:
    disk, store = written(EVENTS[:2], EVENTS[2:])
    recover(disk, store)
    disk.truncate(PATH, HEAD_SIZE_BYTES + 5)
    (found,) = store.runs_found()
    reader = JournalReader(disk, found.segment_paths, [None, None])
    assert [record.first_position for record in reader if record.type is RecordType.EVENTS] == [3, 4, 5]
    whats = [fault.what for fault in reader.damage.faults]
    assert "the file ends before what was durable does" in whats
    disk.unlink(PATH)
    reader = JournalReader(disk, [NEXT], [None])
    assert len(list(reader)) > 0
    assert [fault.what for fault in reader.damage.faults] == ["the segment that it follows is missing"]


# ---------------------------------------------------------------- interrupted


class Interrupted(BaseException):
    """The collector is gone, here."""


def interrupting(disk: SimulatedDisk, after: int) -> Callable[[], int]:
    """Let the process end at the given call; returns a function that tells how many calls there were."""
    calls = 0

    def counted(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise Interrupted

    disk.trouble = counted
    return lambda: calls


def torn_journal() -> tuple[SimulatedDisk, Store]:
    """The case in which most is done."""
    disk, store = written(EVENTS[:2], EVENTS[2:4])
    append(disk, PATH, b"half a record")
    return disk, store


@pytest.mark.parametrize("cut", [None, min, max], ids=["kill", "power cut, all forgotten", "power cut, nothing forgotten"])
@pytest.mark.parametrize("make", [torn_journal, lambda: written(EVENTS[:2], EVENTS[2:4])], ids=["torn", "unproven"])
def test_interrupted_at_every_step_and_run_again_it_comes_to_the_same(
    make: Callable[[], tuple[SimulatedDisk, Store]], cut: Callable[[list[int]], int] | None
) -> None:
    disk, store = make()
    recover(disk, store)
    wanted = sound(disk, store)
    disk, store = make()
    count = interrupting(disk, 0)
    recover(disk, store)
    steps = count()
    assert steps > 5
    for step in range(1, steps + 1):
        disk, store = make()
        interrupting(disk, step)
        with pytest.raises(Interrupted):
            recover(disk, store)
        disk.trouble = None
        if cut is not None:
            disk = disk.power_cut(cut)
            store = Store(disk, "/state", 0)
        recover(disk, store)
        assert sound(disk, store) == wanted, f"interrupted at call {step}"
        after = everything(disk)
        assert recover(disk, store).mending is Mending.NONE
        assert everything(disk) == after


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE])
def test_a_disk_that_fails_at_any_step_loses_nothing_and_the_next_try_goes_on(error: int) -> None:
    disk, store = torn_journal()
    recover(disk, store)
    wanted = sound(disk, store)
    failed = 0
    for operation in ("create", "write", "sync", "sync_directory", "write_file", "truncate", "open_append", "read"):
        for nth in range(1, 9):
            disk, store = torn_journal()
            disk.fail_nth(operation, nth, error)
            try:
                recover(disk, store)
            except (OSError, DiskError):
                failed += 1
            if disk.faults_left:
                break
            recover(disk, store)
            assert sound(disk, store) == wanted, (operation, nth)
    assert failed > 8


def test_a_found_run_knows_its_files_though_the_first_is_missing() -> None:
    disk, store = written(EVENTS[:2], EVENTS[2:])
    recover(disk, store)
    disk.unlink(PATH)
    (found,) = store.runs_found()
    assert found == RunFound(0, "s", 1, [NEXT], None)


@pytest.mark.parametrize("trace", [None, *("running", "crashed", "completed")])
@pytest.mark.parametrize("journal", Journal)
def test_what_is_over_at_a_glance_is_what_the_table_leaves_alone(journal: Journal, trace: str | None) -> None:
    disk, store = journals()[journal]()
    if trace is not None:
        put_trace(disk, trace)
    (found,) = store.runs_found()
    glance = is_over(disk, found)
    assert glance == (trace in ("crashed", "completed") and journal is not Journal.NEWER)
    if glance:
        before = everything(disk)
        assert recover(disk, store).decision in (Decision.NOTHING, Decision.LEAVE)
        assert everything(disk) == before


def test_how_far_a_running_file_goes_is_read_from_its_second_line_and_from_nothing_that_is_not_whole() -> None:
    from collectord.export.render import render

    disk, store = written(EVENTS[:3])
    parts: list[bytes] = []
    render(lambda: JournalReader(disk, store.segments_of(0, "s", 1), [None]), None, parts.append)
    whole = b"".join(parts)
    disk.write_file(TRACE, whole, sync=False)
    assert shown_position(disk, TRACE) == 3
    for broken in (
        b"",
        whole[:-1],
        whole[:100] + b"}\n",
        b"\n\n}\n",
        b"{}\n[]\n{}\n",
        b'{}\n"session":{},\n}\n',
        bytes(9) + b"}\n",
    ):
        disk.write_file(TRACE, broken, sync=False)
        assert shown_position(disk, TRACE) is None, broken


def test_a_recovery_that_came_to_write_only_its_segment_record_has_not_taken_anything_away() -> None:
    """What it repeats may have been acknowledged: it is read where it was until it is whole where it is written again."""
    disk, store = written(EVENTS[:2], EVENTS[2:5])
    before = sound(disk, store)
    recover(disk, store)
    again = bytes(disk.read(NEXT, 0, disk.size(NEXT)))
    ends = [item.end for item in records_in(again)]
    assert len(ends) == 1 + 3 + 1
    for size in range(len(again)):
        disk, store = written(EVENTS[:2], EVENTS[2:5])
        disk.write_file(NEXT, again[:size], sync=True)
        disk.sync_directory("/state/journals")
        for _ in range(2):
            kept = [record for record in sound(disk, store) if record.type is not RecordType.TORN]
            assert kept == before, f"written up to {size}, of which the records end at {ends}"
            recover(disk, store)
