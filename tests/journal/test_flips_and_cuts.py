"""Every bit of a small journal flipped, every byte cut: each classified right, nothing lost in silence, and no reader falls over.

The journal has two segments, the first of which failed, a record of every type, and a terminal record. What must be found is
told by a model that knows only where each record lies and what was durable; it is held against ``scan_segment``, the reader, the
document and the recovery, whose second run must change nothing. `make test` takes some of the bits, `make faults` all of them.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgpack
import orjson
import pytest
from attrs import frozen

from collectord.export.render import JournalIsEmpty, render
from collectord.journal.format import HEAD_SIZE_BYTES
from collectord.journal.reader import JournalReader
from collectord.journal.recovery import Decision, recover_run
from collectord.journal.scan import Found, FoundBadHead, FoundCorrupt, FoundHead, FoundRecord, FoundTorn, scan_segment
from collectord.journal.store import Store
from collectord.journal.writer import JournalWriter
from collectord.model import CrashReason, Outcome, Record, RecordType, Verdict
from collectord.session import records
from tests.export.journals import facts
from tests.faults import figures
from tests.simulation.disk import SimulatedDisk

BED = "bits and bytes of a journal"
DIRECTORY = "/state/journals"
PATHS = (f"{DIRECTORY}/s~1.0.journal", f"{DIRECTORY}/s~1.1.journal")
OWN = (RecordType.SEGMENT, RecordType.CHECKPOINT, RecordType.TORN)
"""What recovery puts into a journal for itself."""


def events(first: int, count: int, position: int, producer: int = 1) -> Record:
    """So many logs."""
    body = msgpack.packb([[5, 9, 9, f"{producer}/{first + n}", {}, None] for n in range(count)])
    return Record(RecordType.EVENTS, body, producer, first, position, count)


@frozen
class Place:
    """A record of the sound journal and where it lies."""

    path: str
    offset: int
    end: int
    record: Record
    begins_group: bool


@frozen(eq=False)
class Sound:
    """The journal as it was written, and what is known of it."""

    files: dict[str, bytes]
    places: list[Place]
    durable: int

    @property
    def is_over(self) -> bool:
        """Whether it has a terminal record."""
        return any(place.record.type is RecordType.TERMINAL for place in self.places)

    def place_of(self, path: str, offset: int) -> Place | None:
        """The record that counts and has this byte."""
        return next((place for place in self.places if place.path == path and place.offset <= offset < place.end), None)


@cache
def sound(is_over: bool = True) -> Sound:
    """A life with everything in it: the second file begins with the group on which the first one failed.

    One that is not over has nothing behind that group.
    """
    disk = SimulatedDisk()
    store = Store(disk, "/state", 0)
    store.prepare()
    salts = itertools.count(0x5EED)
    writer = JournalWriter(disk, DIRECTORY, "s", 1, lambda: next(salts), lambda: 5)
    writer.create([records.opened(facts())])
    writer.append([events(1, 2, 1), records.joined(2, 3, 77, "helper", {}, b"j" * 16)])
    writer.append([events(1, 1, 3, producer=2), records.gap(2, 2, 3, 4), records.duplicates(1, 1, 2, 4)])
    writer.append([records.resumed(1, 5, 42, 1, "b", "agent"), records.torn(2, 7, 4), records.left(2, 5, False, None)])
    writer.append([records.cancel_requested("enough", 5, 78)])
    durable = writer.segments[0].durable_offset
    disk.fail_nth("sync", 1, errno.EIO)
    writer.append([events(3, 1, 4), records.refused(1, 4, 2, "value-invalid", 6), events(6, 1, 5)])
    if is_over:
        writer.append([events(7, 2, 6), records.end_requested(Outcome.FAILED, "no", None, 7, True)])
        writer.append([records.crashed(8, Verdict(CrashReason.REPORTED, "it broke"), "failed"), records.note(8, "crash", "too")])
        writer.append([records.note(9, "crash", "reported late")])
        writer.checkpoint()
    writer.close()
    files = {path: disk.read(path, 0, disk.size(path)) for path in PATHS}
    places = []
    for path, raw in files.items():
        for found in scan_segment(lambda offset, size, raw=raw: raw[offset : offset + size], len(raw)):  # type: ignore[misc]
            if isinstance(found, FoundRecord) and (path != PATHS[0] or found.offset < durable):
                places.append(Place(path, found.offset, found.end, found.record, found.begins_group))
    return Sound(files, places, durable)


# ---------------------------------------------------------------- the cases, and what must be found


@frozen
class Case:
    """One file of the journal as it is found.

    Attributes:
        known: the journal it is of.
        path: which one; the other is as it was.
        raw: what is in it.
        what: was done to it.
        lost: records that are not to be found; each of the others is.
        fault: the one fault to be reported: its kind, offset and length. None where nothing can be seen.
        beside: whether what a failed write left in the first file is read as well: nothing says any more where it ends.
    """

    known: Sound
    path: str
    raw: bytes
    what: str
    lost: list[Place]
    fault: tuple[str, int, int] | None
    beside: bool = False


def flips(known: Sound, every: int) -> Iterator[Case]:
    """Each bit of each file, or those whose number can be divided."""
    for path, raw in known.files.items():
        for number in range(0, 8 * len(raw), every):
            position, bit = divmod(number, 8)
            damaged = bytearray(raw)
            damaged[position] ^= 1 << bit
            what = f"bit {bit} of byte {position} of {path}"
            if position < HEAD_SIZE_BYTES:
                lost = [place for place in known.places if place.path == path]
                yield Case(known, path, bytes(damaged), what, lost, ("head", 0, 0), beside=path == PATHS[1])
                continue
            place = known.place_of(path, position)
            if place is None:
                yield Case(known, path, bytes(damaged), what, [], None)
                continue
            fault = ("corrupt", place.offset, place.end - place.offset)
            yield Case(known, path, bytes(damaged), what, [place], fault, place.record.type is RecordType.SEGMENT)


def cuts(known: Sound) -> Iterator[Case]:
    """Each length that each file can have been cut to."""
    for path, raw in known.files.items():
        for size in range(len(raw)):
            yield cut_to(known, path, size)


def cut_to(known: Sound, path: str, size: int) -> Case:
    """A file cut to a length."""
    raw, what = known.files[path][:size], f"{path} cut to {size} bytes"
    lost = [place for place in known.places if place.path == path and place.end > size]
    if path == PATHS[0]:
        if size >= known.durable:
            return Case(known, path, raw, what, [], None)
        if size < HEAD_SIZE_BYTES:
            return Case(known, path, raw, what, lost, ("corrupt", 0, known.durable))
        return Case(known, path, raw, what, lost, ("corrupt", lost[0].offset, known.durable - lost[0].offset))
    second = [place for place in known.places if place.path == path]
    group_end = next((place.offset for place in second[1:] if place.begins_group), len(known.files[path]))
    if size < group_end:  # its first group is not whole: nobody can know that it ever counted, and the first file is read on
        return Case(known, path, raw, what, second, ("torn", 0, size) if size else None, beside=True)
    rest = size - (lost[0].offset if lost else size)
    return Case(known, path, raw, what, lost, ("torn", size - rest, rest) if rest else None)


def disk_with(case: Case) -> tuple[SimulatedDisk, Store]:
    """The journal of a case on a disk."""
    disk = SimulatedDisk()
    store = Store(disk, "/state", 0)
    store.prepare()
    for path, raw in {**case.known.files, case.path: case.raw}.items():
        disk.write_file(path, raw, sync=True)
    disk.sync_directory(DIRECTORY)
    return disk, store


def scan(raw: bytes) -> list[Found]:
    """Everything that is found in a file."""
    return list(scan_segment(lambda offset, size: raw[offset : offset + size], len(raw)))


def key(record: Record) -> tuple[Any, ...]:
    """What tells a record from all others of this journal."""
    return record.type, record.producer, record.first_sequence, record.first_position, record.body


# ---------------------------------------------------------------- what is found


def test_the_journal_of_these_tests_holds_every_type_and_a_failed_write() -> None:
    known = sound()
    assert {place.record.type for place in known.places} == set(RecordType)
    assert known.durable < len(known.files[PATHS[0]]), "the write that failed has left something"
    assert sum(place.begins_group for place in known.places if place.path == PATHS[1]) > 3


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.bed)])
def test_one_file_with_a_flipped_bit_costs_one_record(every: int) -> None:
    count = 0
    for case in flips(sound(), every):
        found = scan(case.raw)
        if isinstance(found[0], FoundBadHead):
            assert case.fault == ("head", 0, 0), case.what
            continue
        count += 1
        corrupt = [item for item in found if isinstance(item, FoundCorrupt)]
        wanted = [] if case.fault is None else [case.fault]
        assert isinstance(found[0], FoundHead)
        if case.fault is not None:
            assert [("corrupt", item.offset, item.length) for item in corrupt] == wanted, case.what
            before = {
                item.offset: key(item.record) for item in scan(case.known.files[case.path]) if isinstance(item, FoundRecord)
            }
            after = {item.offset: key(item.record) for item in found if isinstance(item, FoundRecord)}
            assert after == {offset: told for offset, told in before.items() if offset != case.fault[1]}, case.what
    assert count > 1_000 / every


def test_one_file_cut_anywhere_has_a_torn_tail_and_all_before_it() -> None:
    for path, raw in sound().files.items():
        whole = [item for item in scan(raw) if isinstance(item, FoundRecord)]
        for size in range(len(raw)):
            found = scan(raw[:size])
            if size < HEAD_SIZE_BYTES:
                assert found == [FoundBadHead("the file ends within its head")]
                continue
            kept = [item for item in whole if item.end <= size]
            assert [item for item in found if isinstance(item, FoundRecord)] == kept, (path, size)
            end = kept[-1].end if kept else HEAD_SIZE_BYTES
            assert [item for item in found if isinstance(item, FoundTorn)] == ([FoundTorn(end, size - end)] if size > end else [])
            assert not [item for item in found if isinstance(item, FoundCorrupt)]


def judge(case: Case) -> None:
    """The reader, the document and the recovery, on one case."""
    disk, store = disk_with(case)
    first = read(disk, store)
    check_reader(case, first)
    document = rendered(disk, store)
    check_document(case, document)
    check_recovery(disk, store, first, document)


@frozen
class Read:
    """What a reader has found."""

    found: list[Record]
    faults: list[tuple[str, int, int, str]]
    torn_bytes: int
    corrupt_records: int


def read(disk: SimulatedDisk, store: Store) -> Read:
    """All of the run."""
    paths = store.segments_of(0, "s", 1)
    reader = JournalReader(disk, paths, [None] * len(paths))
    found = list(reader)
    faults = [(fault.path, fault.offset, fault.length, fault.what) for fault in reader.damage.faults]
    return Read(found, faults, reader.damage.torn_bytes, reader.damage.corrupt_records)


def check_reader(case: Case, told: Read) -> None:
    """Every record that was not hit, once and in order; one fault, where it is."""
    known = case.known
    lost = {key(place.record) for place in case.lost}
    again = (
        {key(item.record) for item in scan(known.files[PATHS[0]])[1:] if isinstance(item, FoundRecord)} if case.beside else set()
    )
    wanted = [key(place.record) for place in known.places if key(place.record) not in lost - again]
    wanted = [one for one in wanted if one[0] not in OWN[:2]]
    assert [key(record) for record in told.found if record.type not in OWN[:2]] == wanted, case.what
    faults = [fault for fault in told.faults if not (case.beside and fault[0] == PATHS[0] and fault[1] >= known.durable)]
    if case.fault is None:
        assert faults == [], case.what
        return
    kind, offset, length = case.fault
    assert [fault[:2] for fault in faults] == [(case.path, offset)], case.what
    assert (faults[0][3] == "torn") == (kind == "torn"), case.what
    if kind != "head":
        assert faults[0][2] == length, case.what
        assert told.corrupt_records == (kind == "corrupt"), case.what


def rendered(disk: SimulatedDisk, store: Store) -> dict[str, Any] | None:
    """The document, or None where nothing says of whom the journal is."""
    paths = store.segments_of(0, "s", 1)
    parts: list[bytes] = []
    try:
        render(lambda: JournalReader(disk, paths, [None] * len(paths)), None, parts.append)
    except JournalIsEmpty:
        return None
    document: dict[str, Any] = orjson.loads(b"".join(parts))
    return document


@cache
def whole_integrity(known: Sound) -> dict[str, Any]:
    """What the document of the sound journal says of itself."""
    document = rendered(*disk_with(Case(known, PATHS[0], known.files[PATHS[0]], "nothing", [], None)))
    assert document is not None
    assert document["session"]["integrity"]["corrupt_records"] == 0
    integrity: dict[str, Any] = document["session"]["integrity"]
    return integrity


def check_document(case: Case, document: dict[str, Any] | None) -> None:
    """What is missing is counted, and line 1 says that something is."""
    lost = {place.record.type for place in case.lost}
    if document is None:
        assert RecordType.OPENED in lost, case.what
        return
    integrity, word = document["session"]["integrity"], document["collectord"]["integrity"]
    gone = {key(place.record) for place in case.lost}
    ends = [
        p.record.first_position + p.record.count - 1 for p in case.known.places if key(p.record) not in gone and p.record.count
    ]
    if not case.beside:
        assert integrity["stored"] == max(ends), case.what
    if case.fault is None:
        assert case.lost or integrity == whole_integrity(case.known), case.what
    elif case.fault[0] == "torn":
        assert integrity["torn_bytes"] >= case.fault[2], case.what
        assert word in ("torn", "gaps"), case.what
    else:
        assert integrity["corrupt_records"] == 1, case.what
        assert word == "damaged", case.what
    over = case.known.is_over and RecordType.TERMINAL not in lost
    assert document["session"]["outcome"] == ("crashed" if over else "running"), case.what


def everything(disk: SimulatedDisk) -> dict[str, bytes]:
    """All files and what is in them."""
    found = {}
    for directory in (DIRECTORY, "/state/traces", "/state/quarantine"):
        for name in disk.list_directory(directory):
            path = f"{directory}/{name}"
            found[path] = disk.read(path, 0, disk.size(path))
    return found


def check_recovery(disk: SimulatedDisk, store: Store, before: Read, document: dict[str, Any] | None) -> None:
    """It takes nothing away that a reader found, counts the same, and a second time changes nothing."""
    decision = recover(disk, store)
    if decision is Decision.QUARANTINE:
        assert document is None
        assert list(store.runs_found()) == []
        return
    after = everything(disk)
    told = read(disk, store)
    assert [key(r) for r in told.found if r.type not in OWN] == [key(r) for r in before.found if r.type not in OWN]
    assert told.corrupt_records == before.corrupt_records
    again = rendered(disk, store)
    assert again is not None
    assert document is not None
    assert again["session"]["integrity"] == document["session"]["integrity"]
    assert again["collectord"]["integrity"] == document["collectord"]["integrity"]
    assert recover(disk, store) is decision
    assert everything(disk) == after


def recover(disk: SimulatedDisk, store: Store) -> Decision:
    """What is done with the one run that is there."""
    (found,) = store.runs_found()
    salts = itertools.count(1_000)
    return recover_run(disk, store, found, lambda: next(salts), lambda: 7).decision


def judge_all(cases: Iterator[Case], figure: str) -> int:
    """All of them; what goes wrong is said with its case."""
    count = 0
    for case in cases:
        try:
            judge(case)
        except BaseException as error:
            error.add_note(case.what)
            raise
        count += 1
    figures.record(BED, figure, count)
    return count


@pytest.mark.parametrize("is_over", [True, False])
@pytest.mark.parametrize("every", [11, pytest.param(1 if figures.is_full() else 3, marks=pytest.mark.bed)], ids=["some", "many"])
def test_a_flipped_bit_costs_one_record_and_is_said_with_its_place(every: int, is_over: bool) -> None:
    print(judge_all(flips(sound(is_over), every), "bits flipped"), "bits")


@pytest.mark.parametrize("is_over", [True, False])
def test_a_cut_costs_what_was_cut_and_is_said_with_its_place(is_over: bool) -> None:
    print(judge_all(cuts(sound(is_over)), "cuts"), "cuts")
