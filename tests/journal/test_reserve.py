"""Room for how runs end: what is kept on a full disk, who gets it, and when it is kept again."""

from __future__ import annotations

import errno
import itertools

import pytest

from collectord.errors import DiskError
from collectord.journal.reader import JournalReader
from collectord.journal.reserve import Reserve
from collectord.journal.store import Store
from collectord.journal.writer import JournalWriter
from collectord.model import CrashReason, Record, RecordType, Verdict
from collectord.session import records
from tests.export.journals import facts
from tests.simulation.disk import SimulatedDisk

SIZE = 64 << 10
TERMINAL = records.crashed(9, Verdict(CrashReason.REPORTED, "it broke"), None)


def event(position: int, size: int = 1_000) -> Record:
    """An events record of about that size."""
    return Record(RecordType.EVENTS, b"\x91" + bytes(size), 1, position, position, 1)


class Place:
    """A disk of half a megabyte with a journal on it, and a reserve."""

    def __init__(self) -> None:
        self.disk = SimulatedDisk()
        self.store = Store(self.disk, "/state", 0)
        self.store.prepare()
        self.disk.capacity = 512 << 10
        self.reserve = Reserve(self.disk, "/state/reserve", "/state", SIZE)
        assert self.reserve.hold()
        salts = itertools.count(5)
        self.writer = JournalWriter(
            self.disk, "/state/journals", "s", 1, lambda: next(salts), lambda: 5, self.reserve
        )  # fmt: skip
        self.writer.create([records.opened(facts())])

    def fill(self) -> None:
        """Somebody else takes all that is left."""
        free = self.disk.free_bytes("/state")
        self.disk.write_file("/state/foreign", bytes(free), sync=True)
        assert self.disk.free_bytes("/state") == 0

    def types(self) -> list[RecordType]:
        """What a reader finds."""
        paths = self.store.segments_of(0, "s", 1)
        found = [record.type for record in JournalReader(self.disk, paths, [None] * len(paths))]
        return [kind for kind in found if kind is not RecordType.SEGMENT]


def test_on_a_full_disk_events_wait_and_the_terminal_record_takes_the_reserve_with_all_before_it() -> None:
    place = Place()
    place.fill()
    with pytest.raises(DiskError, match=r"[Nn]o space"):
        place.writer.append([event(1)])
    assert place.disk.exists("/state/reserve")
    place.writer.append([TERMINAL])
    assert not place.disk.exists("/state/reserve")
    assert place.types() == [RecordType.OPENED, RecordType.EVENTS, RecordType.TERMINAL]


def test_what_was_given_up_is_not_for_events() -> None:
    place = Place()
    place.fill()
    assert place.reserve.release()
    with pytest.raises(DiskError, match="kept for the ends of sessions"):
        place.writer.append([event(1)])
    place.writer.retry(must_fit=True)
    assert place.types() == [RecordType.OPENED, RecordType.EVENTS]
    with pytest.raises(DiskError, match="kept for the ends of sessions"):
        place.writer.append([event(2)])
    place.disk.unlink("/state/foreign")
    place.writer.retry()
    assert place.types() == [RecordType.OPENED, RecordType.EVENTS, RecordType.EVENTS]
    assert len(place.writer.segments) == 1, "a file that was only held back is as good as before"


def test_it_is_kept_again_when_there_is_twice_the_room() -> None:
    place = Place()
    place.fill()
    place.reserve.release()
    assert not place.reserve.hold()
    place.disk.unlink("/state/foreign")
    assert place.reserve.hold()
    assert place.disk.size("/state/reserve") == SIZE
    assert not place.reserve.is_spent()


def test_a_disk_without_room_for_it_is_used_all_the_same() -> None:
    disk = SimulatedDisk()
    disk.make_directory("/state")
    disk.fail_nth("allocate", 1, errno.ENOSPC)
    reserve = Reserve(disk, "/state/reserve", "/state", SIZE)
    assert not reserve.hold()
    assert not reserve.is_spent(), "nobody was given anything: nothing is held back"
    assert not reserve.release()
    assert reserve.hold()


def test_what_an_earlier_collector_kept_is_kept() -> None:
    place = Place()
    place.fill()
    again = Reserve(place.disk, "/state/reserve", "/state", SIZE)
    assert again.hold()
    assert again.release()
