"""State directories in memory: runs written by the journal's own writer, with trace files rendered from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from collectord.export.inventory import take_inventory
from collectord.export.render import render
from collectord.export.verify import Verification, verify_orphan, verify_runs
from collectord.journal.reader import JournalReader
from collectord.journal.store import Store
from collectord.journal.writer import JournalWriter
from collectord.model import Outcome, Record, RecordType
from collectord.names import encode_session_id
from collectord.session import records
from collectord.session.records import pack
from tests.export.journals import T0, end, facts, start
from tests.simulation.disk import SimulatedDisk

STATE = "/state"


class WatchedDisk(SimulatedDisk):
    """One on which some files cannot be read, and on which something happens while others are, or while directories are listed.

    Attributes:
        hidden: the files that cannot be read.
        reads: how many there were, of directories too.
        happens: done before the reads of these numbers; what it reads itself is not counted.
        at: the numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden: set[str] = set()
        self.reads = 0
        self.happens: Callable[[], Any] | None = None
        self.at: range = range(0)
        self._is_happening = False

    def read(self, path: str, offset: int, size: int) -> bytes:
        if path in self.hidden:
            raise PermissionError(13, "Permission denied", path)
        self._let_happen()
        return super().read(path, offset, size)

    def list_directory(self, path: str) -> list[str]:
        self._let_happen()
        return super().list_directory(path)

    def _let_happen(self) -> None:
        if not self._is_happening:
            self.reads += 1
            if self.happens is not None and self.reads in self.at:
                self._is_happening = True
                self.happens()
                self._is_happening = False


class StateInMemory:
    """A state directory."""

    def __init__(self) -> None:
        self.disk = WatchedDisk()
        self.store = Store(self.disk, STATE, 0)
        self.store.prepare()

    def run(self, session_id: str = "s", run: int = 1) -> RunInMemory:
        """A new run."""
        return RunInMemory(self, session_id, run)

    def verify(self, is_live: bool = False) -> Verification:
        """The whole of it, checked."""
        return verified(self.disk, is_live)

    def files(self) -> dict[str, bytes]:
        """Every file and its content."""
        found = {}
        for directory in ("traces", "journals", "quarantine"):
            for name in self.disk.list_directory(f"{STATE}/{directory}"):
                path = f"{STATE}/{directory}/{name}"
                found[path] = self.disk.read(path, 0, 1 << 30)
        return found

    def put(self, path: str, content: bytes) -> None:
        """Write a file as a whole."""
        self.disk.write_file(path, content, sync=True)


def verified(disk: SimulatedDisk, is_live: bool = False) -> Verification:
    """Everything on a disk, checked."""
    inventory = take_inventory(disk, STATE)
    verification = verify_runs(disk, inventory.runs, lambda: is_live)
    for path in inventory.orphans:
        verification.findings.extend(verify_orphan(disk, path))
    for finding in inventory.findings:
        verification.findings.add(finding)
    return verification


class RunInMemory:
    """One run of it, with what was handed over to its journal."""

    def __init__(self, state: StateInMemory, session_id: str, run: int) -> None:
        self.disk, self.stem, self.number = state.disk, encode_session_id(session_id), run
        self.trace_path = state.store.trace_path(0, self.stem, run)
        self.writer = JournalWriter(self.disk, f"{STATE}/journals", self.stem, run, lambda: 9, lambda: T0)
        self.writer.create([records.opened(facts(session_id, run=run))])
        self.next_sequence: dict[int, int] = {}
        self.position = 0

    @property
    def journal_path(self) -> str:
        """Of the last segment."""
        return self.writer.segments[-1].path

    @property
    def size(self) -> int:
        """Of the last segment, as far as it is durable."""
        return self.writer.segments[-1].durable_offset

    def append(self, *appended: Record) -> int:
        """Append records as one group; returns the offset at which they begin."""
        offset = self.size
        self.writer.append(list(appended))
        return offset

    def events(self, *events: list[Any], producer: int = 1, skip: int = 0, position_skip: int = 0) -> int:
        """Append a batch; returns its offset. ``skip`` leaves a hole before it."""
        first = self.next_sequence.get(producer, 1) + skip
        position = self.position + 1 + position_skip
        offset = self.append(Record(RecordType.EVENTS, pack(list(events)), producer, first, position, len(events)))
        self.next_sequence[producer] = first + len(events)
        self.position = position + len(events) - 1
        return offset

    def span(self) -> int:
        """A span that ends in the same batch."""
        sequence = self.next_sequence.get(1, 1)
        return self.events(start(), end(sequence))

    def end(self, outcome: Outcome = Outcome.COMPLETED) -> int:
        """The terminal record."""
        return self.append(records.ended(outcome, T0 + 5, None, None))

    def rendered(self) -> bytes:
        """The document as the journal stands."""
        parts: list[bytes] = []
        segments = self.writer.segments
        paths, limits = [part.path for part in segments], [part.durable_offset for part in segments]
        render(lambda: JournalReader(self.disk, paths, list(limits)), None, parts.append)
        return b"".join(parts)

    def export(self) -> None:
        """Put the trace file in place."""
        self.disk.write_file(self.trace_path, self.rendered(), sync=True)

    def fail_once(self) -> None:
        """The next append goes into a fresh segment, and half of what failed stays in the old one."""
        self.disk.fail_nth("write", 1, 5)
