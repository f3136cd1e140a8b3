"""What the journals of a real daemon hold: read from its files, past the daemon itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

from collectord.journal.disk import RealDisk
from collectord.journal.reader import JournalReader
from collectord.model import Record, RecordType
from collectord.session.records import unpack
from tests.process.daemon import Daemon


def records_of(daemon: Daemon, stem: str, run: int = 1, damaged: bool = False) -> list[Record]:
    """Every sound record of a run, over its segments; no other kind may be there, unless it is known to be ``damaged``."""
    directory = daemon.state_dir / "journals"
    found = directory.glob(f"{stem}~{run}.*.journal")
    paths = [str(path) for path in sorted(found, key=lambda path: int(path.name.split(".")[-2]))]
    assert paths, f"{stem} has no journal"
    reader = JournalReader(RealDisk(), paths, [None] * len(paths))
    records = list(reader)
    assert bool(reader.damage.faults) == damaged, reader.damage.faults
    return records


def stored_of(daemon: Daemon, stem: str, run: int = 1) -> dict[int, set[int]]:
    """The sequences of each producer that are stored, each once, positions dense from 1."""
    found: dict[int, Counter[int]] = {}
    position = 0
    for record in records_of(daemon, stem, run):
        if record.type is RecordType.EVENTS:
            assert record.first_position == position + 1, "positions are dense"
            position += record.count
            assert len(unpack(record.body)) == record.count
            sequences = range(record.first_sequence, record.first_sequence + record.count)
            found.setdefault(record.producer, Counter()).update(sequences)
    for counts in found.values():
        assert set(counts.values()) == {1}, "an event is stored twice"
    return {producer: set(counts) for producer, counts in found.items()}


def terminals_of(daemon: Daemon, stem: str, run: int = 1, damaged: bool = False) -> list[Any]:
    """The bodies of the terminal records: there must never be two."""
    return [unpack(record.body) for record in records_of(daemon, stem, run, damaged) if record.type is RecordType.TERMINAL]
