"""What must hold: what was told, written down as it is told, and held against the journals and trace files in the end.

Owns the stories of runs as their agents and the world around them know them. A contradiction is raised as soon as it shows.
"""

from __future__ import annotations

import posixpath
from typing import Any

from attrs import Factory, define

from collectord.export.inventory import RunFiles
from collectord.export.render import render
from collectord.export.verify import verify_run
from collectord.journal.finished import read_first_line
from collectord.journal.reader import JournalReader
from collectord.journal.store import RunFound, Store
from collectord.limits import FRAME_SIZE_MAX_BYTES, PENDING_MAX_BYTES
from collectord.model import Outcome, Record, RecordType
from collectord.names import encode_session_id
from collectord.session.records import facts_from, unpack
from collectord.wire import messages
from tests.export.otlp import check_document
from tests.simulation.disk import SimulatedDisk
from tests.simulation.kernel import Process
from tests.simulation.world import STATE, Machine

Key = tuple[int, str, int]
"""Uid, session id, run."""


NEVER = 1 << 60
DROPPED = "connection dropped"
NEVER_TOLD = "owner was never told that it is open"
EXCUSED = {"cancel": "cancelled"}
"""What a run may come to by what happened to it; all else may crash it."""


class Broken(AssertionError):
    """A rule does not hold."""


@define
class Told:
    """What one producer of a run made and was told.

    Attributes:
        made: its events by their sequence.
        acknowledged: everything up to here is durable or refused, it was told.
        refused: the sequences that it was told are not stored.
        late_from: what it sent from here on came behind the end.
    """

    made: dict[int, list[Any]] = Factory(dict)
    acknowledged: int = 0
    refused: set[int] = Factory(set)
    late_from: int = NEVER


@define
class Story:
    """One run, as the world knows it.

    Attributes:
        key: which.
        owner: the process that opened it; None where it never heard of that, and others have joined.
        trace_id: as it was told at first.
        producers: by their numbers.
        outcomes: every outcome that anybody was told.
        asked: how its owner wanted it to end.
        excuses: what happened that may end it otherwise.
        must_crash: why no other outcome would be true; empty while any might.
        waits: whether the owner waits for its end.
    """

    key: Key
    owner: Process | None
    trace_id: bytes
    producers: dict[int, Told] = Factory(dict)
    outcomes: list[str] = Factory(list)
    asked: list[str] = Factory(list)
    excuses: set[str] = Factory(set)
    must_crash: str = ""
    waits: bool = True

    @property
    def is_over(self) -> bool:
        """Whether somebody was told how it ended."""
        return bool(self.outcomes)


class Book:
    """All stories of one machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.stories: dict[Key, Story] = {}
        self.finished: dict[str, bytes] = {}
        machine.on_daemon_death = self.daemon_died

    # ------------------------------------------------------------ while it happens

    def opened(self, uid: int, session_id: str, answer: messages.Opened, process: Process | None) -> Story:
        """An agent was told that its run is open (and is that process), or that it has joined or resumed one."""
        key = (uid, session_id, answer.run)
        story = self.stories.get(key)
        if story is None:
            story = self.stories[key] = Story(key, None, answer.trace_id, excuses={NEVER_TOLD})
        if process is not None and story.owner is None:
            story.owner = process
            story.excuses.discard(NEVER_TOLD)
        if story.trace_id != answer.trace_id:
            raise Broken(f"{key} has another trace id after a resume")
        told = story.producers.setdefault(answer.producer, Told())
        if answer.next_sequence <= told.acknowledged:
            raise Broken(f"{key}: producer {answer.producer} is to go on at {answer.next_sequence}, "
                         f"and {told.acknowledged} was acknowledged")  # fmt: skip
        told.acknowledged, told.late_from = max(told.acknowledged, answer.next_sequence - 1), NEVER
        return story

    def heard(self, story: Story, producer: int, answer: messages.Answer) -> None:
        """An agent was told something about its run."""
        told = story.producers[producer]
        if isinstance(answer, messages.Ack):
            self._hear_ack(told, answer)
        if isinstance(answer, messages.Flushed | messages.Detached):
            told.acknowledged = max(told.acknowledged, min(answer.sequence, told.late_from - 1))
        if isinstance(answer, messages.Terminal):
            self.ended(story, answer)

    def _hear_ack(self, told: Told, answer: messages.Ack) -> None:
        """What came behind an end is promised nothing: if the collector dies before that end does, it may yet be taken."""
        for first, count, code in answer.refused:
            if code == "session-ended":
                told.late_from = min(told.late_from, first)
            else:
                told.refused |= set(range(first, first + count))
        told.acknowledged = max(told.acknowledged, min(answer.sequence, told.late_from - 1))

    def ended(self, story: Story, answer: messages.Terminal) -> None:
        """Somebody was told how a run ended."""
        outcome = answer.outcome.value
        if not answer.outcome.is_terminal:
            raise Broken(f"{story.key} has ended as {outcome}")
        if story.outcomes and outcome != story.outcomes[0]:
            raise Broken(f"{story.key} was {story.outcomes[0]}, and is {outcome} now")
        story.outcomes.append(outcome)
        if answer.path is not None:
            self._see_finished(answer.path)
        self.machine.count(f"told {outcome}")
        if answer.reason is not None:
            self.machine.count(f"told {answer.reason}")
        if answer.export_error is not None:
            self.machine.count("told of an export that failed")

    def _see_finished(self, path: str) -> None:
        """Once seen as finished, a file is final."""
        content = self.machine.disk.peek(path)
        if self.finished.setdefault(path, content) != content:
            raise Broken(f"{path} was finished, and has changed")

    def blame(self, story: Story, what: str) -> None:
        """Something happened to a run that may make it crash, or (before its end was handed over) must.

        A daemon that is stopping has closed its connections, and carries out the ends that it was asked for: it sees nobody die.
        """
        story.excuses.add(what)
        life = self.machine.life
        is_ending = life is not None and not life.dead and life.stop.is_set() and bool(story.asked)
        if story.waits and not is_ending and not self.is_decided(story):
            story.must_crash = story.must_crash or what

    def daemon_died(self) -> None:
        """What only the daemon knew is forgotten: a connection that was lost, the last words of those that have left."""
        for story in self.stories.values():
            if story.is_over:
                continue
            if story.owner is None or not story.owner.is_alive:
                story.excuses.add("daemon died behind its owner")
            elif story.must_crash == DROPPED and not self.is_decided(story):
                story.must_crash = ""

    def is_decided(self, story: Story) -> bool:
        """Whether the terminal record of a run has been handed to the disk."""
        uid, session_id, run = story.key
        owner = self.machine.owner_of(uid, session_id)
        if owner is not None and owner.core.facts.run == run and owner.core.state.outcome.is_terminal:
            return True
        view = self.machine.disk.view()
        found = Store(view, STATE, 0).find_run(uid, encode_session_id(session_id), run)
        return found is not None and Journal(view, found).terminal is not None

    def power_cut(self) -> None:
        """Everybody is dead: what is not over on the disk will not end well."""
        for story in self.stories.values():
            self.blame(story, "power cut")

    # ------------------------------------------------------------ in the end

    def check(self) -> None:
        """Hold everything that was told against what is there."""
        disk = self.machine.disk.view()
        for path in self.finished:
            self._see_finished(path)
        there = {journal.key: journal for journal in journals(disk)}
        for journal in there.values():
            journal.check()
            self._check_document(disk, journal)
        for key, story in self.stories.items():
            if key not in there:
                raise Broken(f"{key} was opened, and has no journal")
            self._check_outcome(story, there[key])
            for number, told in story.producers.items():
                self._check_events(story, there[key], number, told)
        if self.machine.pending_max_bytes > PENDING_MAX_BYTES + FRAME_SIZE_MAX_BYTES:
            raise Broken(f"{self.machine.pending_max_bytes} bytes of one run waited in memory")

    def _check_outcome(self, story: Story, journal: Journal) -> None:
        if journal.terminal is None:
            raise Broken(f"{story.key} has no terminal record")
        outcome = journal.terminal["outcome"]
        self.machine.count(f"ended {outcome}")
        if story.outcomes and story.outcomes[0] != outcome:
            raise Broken(f"{story.key}: {story.outcomes[0]} was told, {outcome} is recorded")
        if story.must_crash and outcome != Outcome.CRASHED.value:
            raise Broken(f"{story.key} is {outcome}, though before its end was handed over: {story.must_crash}")
        wanted = {*story.asked, *(EXCUSED.get(excuse, "crashed") for excuse in story.excuses)}
        if outcome not in wanted:
            why = journal.terminal.get("reason")
            raise Broken(f"{story.key} is {outcome} ({why}), and nobody wanted that: {story.asked}, {story.excuses}")

    def _check_events(self, story: Story, journal: Journal, number: int, told: Told) -> None:
        stored = journal.stored.get(number, {})
        refused = journal.refused.get(number, set())
        for sequence in range(1, told.acknowledged + 1):
            if sequence not in stored and sequence not in refused and sequence not in told.refused:
                raise Broken(f"{story.key}: event {sequence} of producer {number} was acknowledged, and is lost")
        for sequence, event in stored.items():
            if sequence in told.refused:
                raise Broken(f"{story.key}: event {sequence} of producer {number} was refused, and is stored")
            if event != told.made.get(sequence):
                raise Broken(f"{story.key}: event {sequence} of producer {number} is not the one that was sent")
        self.machine.happened["events acknowledged"] += told.acknowledged - len(told.refused)

    def _check_document(self, disk: SimulatedDisk, journal: Journal) -> None:
        path = journal.found.trace_path
        if path is None:
            raise Broken(f"{journal.key} has no trace file")
        raw = disk.read(path, 0, 1 << 30)
        document = check_document(raw)
        outcome = journal.terminal["outcome"] if journal.terminal is not None else "running"
        if document["session"]["outcome"] != outcome:
            raise Broken(f"{journal.key}: {outcome} is recorded, the file says {document['session']['outcome']}")
        if not any(raw == rendered for rendered in journal.documents()):
            raise Broken(f"{journal.key}: the trace file is not what its journal renders to")
        files = RunFiles(posixpath.dirname(journal.found.segment_paths[0]), journal.found.stem, journal.found.run,
                         journal.found.segment_paths, path)  # fmt: skip
        faults = [finding for finding in verify_run(disk, files, lambda: False).findings.items if finding.is_fault]
        if faults:
            raise Broken(f"{journal.key}: `verify` accuses it: {faults}")
        integrity = document["session"]["integrity"]
        if integrity["corrupt_records"] or integrity["gaps"] or integrity["client_lost"]:
            raise Broken(f"{journal.key}: damage where none was done: {integrity}")


class Journal:
    """One run as its journal has it."""

    def __init__(self, disk: SimulatedDisk, found: RunFound) -> None:
        self.found = found
        self._disk = disk
        self.records: list[Record] = list(self._reader())
        self.terminal: dict[str, Any] | None = None
        self.stored: dict[int, dict[int, Any]] = {}
        self.refused: dict[int, set[int]] = {}
        first = next((record for record in self.records if record.type is RecordType.OPENED), None)
        self.key: Key | None = None
        if first is not None:
            facts = facts_from(first.body)
            self.key = (facts.uid, facts.session_id, facts.run)
        for record in self.records:
            if record.type is RecordType.TERMINAL:
                self.terminal = unpack(record.body)

    def _reader(self) -> JournalReader:
        paths = self.found.segment_paths
        return JournalReader(self._disk, paths, [None] * len(paths))

    def check(self) -> None:
        """What holds of every journal, whatever was told of it."""
        position, ends = 0, 0
        for record in self.records:
            if record.type is RecordType.TERMINAL:
                ends += 1
            elif record.type is RecordType.GAP:
                raise Broken(f"{self.key}: a gap is recorded, and no client lost anything")
            elif record.type is RecordType.REFUSED:
                sequences = range(record.first_sequence, record.first_sequence + record.count)
                self.refused.setdefault(record.producer, set()).update(sequences)
            elif record.type is RecordType.EVENTS:
                if ends:
                    raise Broken(f"{self.key}: events behind the terminal record")
                if record.first_position != position + 1:
                    raise Broken(f"{self.key}: position {record.first_position} behind {position}")
                position += record.count
                self._store(record)
        if ends != 1:
            raise Broken(f"{self.key} has {ends} terminal records")
        for producer, stored in self.stored.items():
            both = set(stored) | self.refused.get(producer, set())
            if both != set(range(1, len(both) + 1)):
                raise Broken(f"{self.key}: producer {producer} has holes in {sorted(both)}")

    def _store(self, record: Record) -> None:
        into = self.stored.setdefault(record.producer, {})
        for offset, event in enumerate(unpack(record.body)):
            sequence = record.first_sequence + offset
            if sequence in into:
                raise Broken(f"{self.key}: event {sequence} of producer {record.producer} is stored twice")
            into[sequence] = event

    def documents(self) -> list[bytes]:
        """What the journal renders to: up to its terminal record, and with each of the notes that were put behind it."""
        last = next(index for index, record in enumerate(self.records) if record.type is RecordType.TERMINAL)
        found = []
        for count in range(last + 1, len(self.records) + 1):
            parts: list[bytes] = []
            paths = self.found.segment_paths
            render(lambda paths=paths, count=count: _Beginning(self._disk, paths, count), None, parts.append)  # type: ignore[misc]
            found.append(b"".join(parts))
        return found


class _Beginning(JournalReader):
    """The first so many records of a journal."""

    def __init__(self, disk: SimulatedDisk, paths: list[str], count: int) -> None:
        super().__init__(disk, paths, [None] * len(paths))
        self._count = count

    def locate(self) -> Any:
        """As ``JournalReader.locate``, and no further."""
        for number, found in enumerate(super().locate(), start=1):
            yield found
            if number == self._count:
                break  # what a power cut has left behind the last record is not looked at


def journals(disk: SimulatedDisk) -> list[Journal]:
    """Every run that has a journal with a first record."""
    found = [Journal(disk, run) for run in Store(disk, STATE, 0).runs_found()]
    return [journal for journal in found if journal.key is not None]


def contents(disk: SimulatedDisk, path: str = STATE) -> dict[str, bytes]:
    """Every file, by its path."""
    found: dict[str, bytes] = {}
    for name in disk.list_directory(path):
        below = f"{path}/{name}"
        try:
            found |= contents(disk, below)
        except NotADirectoryError:
            found[below] = disk.read(below, 0, 1 << 30)
    return found


def finished_files(disk: SimulatedDisk) -> dict[str, bytes]:
    """The trace files that say that they are final."""
    found = {}
    for path, content in contents(disk).items():
        if path.endswith(".json"):
            told = read_first_line(disk, path)
            if told is not None and told["outcome"] != Outcome.RUNNING.value:
                found[path] = content
    return found
