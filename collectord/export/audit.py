"""One run's journal, record by record: what in it cannot be, and which state of it a trace file shows.

Pure over a disk. One pass, in the memory of one rendering. What the chain of segments is, and what a record's checksums say,
is the journal package's judgement; whether sound records make sense behind each other is judged here. Damage excuses what it
explains: a hole in the positions behind a corrupt record is no second fault.
"""

from __future__ import annotations

from typing import Final

from attrs import Factory, define, frozen

from collectord.export.claim import Claim, lines_of, sums_of
from collectord.export.findings import Finding, Findings
from collectord.export.fold import RunSummary, begin, take
from collectord.export.inventory import RunFiles, base_name
from collectord.export.request import RENDER_FAULTS
from collectord.journal.chain import Link
from collectord.journal.condition import examine
from collectord.journal.disk import Disk
from collectord.journal.format import HEAD_SIZE_BYTES, Head
from collectord.journal.reader import JournalReader
from collectord.journal.scan import Found, FoundBadHead, FoundCorrupt, FoundHead, FoundNewer, FoundRecord, FoundTorn
from collectord.model import OWNER_PRODUCER, Outcome, Record, RecordType
from collectord.names import encode_session_id, parse_journal_file_name
from collectord.session.records import unpack

_BEHIND_TERMINAL: Final = frozenset((RecordType.NOTE, RecordType.CHECKPOINT, RecordType.SEGMENT, RecordType.TORN))
"""Notes; and what a start leaves that writes a last group again."""

_OF_A_PRODUCER: Final = frozenset(
    (RecordType.EVENTS, RecordType.REFUSED, RecordType.GAP, RecordType.DUPLICATES, RecordType.LEFT, RecordType.RESUMED)
)


@frozen
class Prefix:
    """A beginning of a journal.

    Attributes:
        index: of the last file of it that counts.
        end: how far that one belongs to it.
    """

    index: int
    end: int


@define
class _Sequence:
    """What is known of one producer."""

    expected: int = 1
    damage_seen: int = 0


@define
class Audit:
    """What came of one pass.

    Attributes:
        findings: what is wrong with the journal.
        records: how many are sound.
        events: how many are stored in them.
        summary: the run as a whole; None where its first record is missing, or where a body could not be read.
        matching: the state that the trace file claims to show, if the journal ever was in it.
        same_position: the last state with as many events as the trace file claims.
        terminal: the state at the terminal record.
        whole: everything; what nobody finished is not in it.
        links: the files that count.
        is_newer: whether a part is of a version that cannot be read.
        is_damaged: whether something of it cannot be read any more, but for an incomplete end.
        tails: what is said of an incomplete end, of the last file and of those that nobody finished.
    """

    findings: Findings = Factory(Findings)
    records: int = 0
    events: int = 0
    summary: RunSummary | None = None
    matching: Prefix | None = None
    same_position: Prefix | None = None
    terminal: Prefix | None = None
    whole: Prefix = Prefix(0, 0)
    links: list[Link] = Factory(list)
    is_newer: bool = False
    is_damaged: bool = False
    tails: list[Finding] = Factory(list)

    def reader(self, disk: Disk, prefix: Prefix) -> JournalReader:
        """A reader over a beginning of the journal."""
        links = self.links[: prefix.index + 1]
        limits: list[int | None] = [one.size for one in links[:-1]]
        return JournalReader(disk, [one.path for one in links], [*limits, prefix.end])


class _Auditor:
    """Takes what is found in the files, in order.

    Args:
        files: of the run.
        claim: of its trace file; None where there is none.
    """

    def __init__(self, files: RunFiles, claim: Claim | None) -> None:
        self.audit = Audit()
        self._files = files
        self._claim = claim
        self._path = ""
        self._index = 0
        self._file: Link | None = None
        self._damage = 0
        self._torn_bytes = 0
        self._corrupt_records = 0
        self._checked_damage = 0
        self._next_position = 1
        self._position_damage = 0
        self._sequences: dict[int, _Sequence] = {}
        self._is_broken = False
        self._has_opened = False
        self._is_over = False
        self._is_first_of_file = True

    # ------------------------------------------------------------ findings

    def fault(self, code: str, offset: int, message: str, length: int | None = None) -> None:
        """Something is wrong in the file that is read."""
        self.audit.findings.add(self._finding(code, offset, message, length))

    def _finding(self, code: str, offset: int, message: str, length: int | None = None) -> Finding:
        return Finding(code, self._path, offset, message, length)

    def _damaged(self, found: FoundTorn | FoundCorrupt | FoundBadHead, is_tail: bool = False) -> None:
        """Count it as the renderer does."""
        self._damage += 1
        self.audit.is_damaged = self.audit.is_damaged or not is_tail
        if isinstance(found, FoundTorn):
            self._torn_bytes += found.length
        else:
            self._corrupt_records += 1

    # ------------------------------------------------------------ files

    def take_found(self, index: int, found: Found) -> None:
        """The next thing in the file of that index."""
        one = self.audit.links[index]
        if one is not self._file:
            self.end_file()
            self._index, self._file, self._path, self._is_first_of_file = index, one, one.path, True
        if isinstance(found, FoundRecord):
            self._take_record(found)
        elif isinstance(found, FoundHead):
            self._take_head(found.head)
        elif isinstance(found, FoundNewer):
            self.audit.is_newer = True
            self._damage += 1
            self.fault("journal-newer", 0, f"it has version {found.version} of the format, which this collectord cannot check")
        else:
            self._take_damage(one, found, index + 1 == len(self.audit.links))

    def _take_damage(self, one: Link, found: FoundTorn | FoundCorrupt | FoundBadHead, is_last: bool) -> None:
        is_begun = isinstance(found, FoundBadHead) and one.size < HEAD_SIZE_BYTES
        is_tail = is_last and (is_begun or isinstance(found, FoundTorn))
        self._damaged(found, is_tail)
        if is_tail:
            offset, length = (0, one.size) if isinstance(found, FoundBadHead) else (found.offset, found.length)
            message = "the file ends within its head" if is_begun else "the last record is incomplete"
            self.audit.tails.append(self._finding("tail-torn", offset, message, length))
        elif isinstance(found, FoundBadHead):
            self.fault("head-damaged", 0, found.why)
        elif isinstance(found, FoundTorn):
            self.fault("record-corrupt", found.offset, "the record ends where the next segment takes over", found.length)
        elif not found.length:
            self.fault("segment-missing", 0, found.why)
        elif one.missing and found.end == one.size + one.missing:
            self.fault("segment-short", found.offset, found.why, found.length)
        else:
            self.fault("record-corrupt", found.offset, found.why, found.length)

    def _take_head(self, head: Head) -> None:
        name = parse_journal_file_name(base_name(self._path))
        if name is not None and (head.run, head.segment) != (name.run, name.segment):
            self.fault("head-foreign", 0, f"the file says that it is segment {head.segment} of run {head.run}")

    def end_file(self) -> None:
        """Everything of the file was taken, if there was one."""
        if self._file is not None:
            self.audit.whole = Prefix(self._index, self._file.size)
            self._consider(self.audit.whole, also_unchanged=False)

    def take_unfinished(self, path: str, size: int) -> None:
        """A last file that never counted."""
        self._path = path
        message = "the segment was begun and never finished"
        self.audit.tails.append(self._finding("tail-torn", 0, message, size))

    def end(self) -> None:
        """There is no more."""
        if not self.audit.records and not self._damage and not self.audit.is_newer and self._file is not None:
            self.audit.tails.append(self._finding("tail-torn", self._file.size, "there is nothing behind the head", 0))
        is_begun = bool(self.audit.tails) and self._claim is None  # a run that was never told of, or is being opened
        if not self._has_opened and not self.audit.is_newer and not is_begun:
            self._path = self._files.segment_paths[0] if self._files.segment_paths else self._files.journals
            self.fault("opened-missing", 0, "there is no sound first record: nobody can say whose run it is")
        if self._is_broken:
            self.audit.summary, self.audit.is_damaged = None, True

    # ------------------------------------------------------------ records

    def _take_record(self, found: FoundRecord) -> None:
        record, audit = found.record, self.audit
        audit.records += 1
        self._consider(Prefix(self._index, found.offset), also_unchanged=False)
        self._check_place(found.offset, record)
        if record.type is RecordType.EVENTS:
            audit.events += record.count
            self._check_positions(found.offset, record)
        if record.type in _OF_A_PRODUCER:
            self._check_producer(found.offset, record)
        if not self._is_broken:
            try:
                self._fold(found)
            except RENDER_FAULTS as error:
                self._is_broken = True
                self.fault("body-malformed", found.offset, f"{record.type.name.lower()}: {type(error).__name__}: {error}")
        self._is_first_of_file = False
        self._consider(Prefix(self._index, found.end), also_unchanged=True)
        if record.type is RecordType.TERMINAL and audit.terminal is None:
            self._is_over = True
            audit.terminal = Prefix(self._index, found.end)

    def _check_place(self, offset: int, record: Record) -> None:
        """Whether a record of its type may stand here, by what is before it."""
        kind, name = record.type, record.type.name.lower()
        if kind is RecordType.TERMINAL and self._is_over:
            self.fault("terminal-repeated", offset, "there is a terminal record before this one")
        elif self._is_over and kind not in _BEHIND_TERMINAL:
            self.fault("record-misplaced", offset, f"`{name}` behind the terminal record, where only notes may be")
        if kind is RecordType.SEGMENT and not (self._is_first_of_file and self._file and self._file.number):
            self.fault("record-misplaced", offset, "`segment` is not the first record of a later file")
        elif kind is RecordType.OPENED and self._has_opened:
            self.fault("record-misplaced", offset, "`opened` comes a second time")
        elif kind not in (RecordType.OPENED, RecordType.SEGMENT) and not self._has_opened and not self._damage:
            self.fault("record-misplaced", offset, f"`{name}` before `opened`")

    def _check_positions(self, offset: int, record: Record) -> None:
        first = record.first_position
        excused = self._position_damage != self._damage
        if first < self._next_position or (first > self._next_position and not excused):
            self.fault("position-wrong", offset, f"events from position {first}, where {self._next_position} is due")
        self._next_position = max(self._next_position, first + record.count)
        self._position_damage = self._damage

    def _check_producer(self, offset: int, record: Record) -> None:
        """Whether the sequences go on where they stood, all of them accounted for."""
        producer = record.producer
        known = self._sequences.get(producer)
        if known is None:
            if producer != OWNER_PRODUCER and not self._damage:
                self.fault("producer-unknown", offset, f"producer {producer} has never joined")
            known = self._sequences[producer] = _Sequence()
        if record.type in (RecordType.LEFT, RecordType.RESUMED):
            return
        first, expected = record.first_sequence, known.expected
        excused = known.damage_seen != self._damage
        known.damage_seen = self._damage
        if record.type is RecordType.DUPLICATES:
            if first + record.count > expected and not excused:
                self.fault(
                    "sequence-wrong", offset, f"duplicates to {first + record.count - 1}, where {expected} has not come yet"
                )
            known.expected = max(expected, first + record.count)
            return
        if first < expected or (first > expected and not excused):
            self.fault("sequence-wrong", offset, f"sequence {first} of producer {producer}, where {expected} is due")
        known.expected = max(expected, first + self._covered(record))

    def _covered(self, record: Record) -> int:
        if record.type is not RecordType.GAP:
            return record.count
        try:
            count = unpack(record.body)["count"]
        except RENDER_FAULTS:
            return 0  # found again, and said, when it is folded
        return count if type(count) is int and count >= 0 else 0

    def _fold(self, found: FoundRecord) -> None:
        """Bring the summary up to date. Raises whatever a body that is none makes it raise."""
        record, audit = found.record, self.audit
        if audit.summary is None:
            if record.type is RecordType.OPENED:
                self._has_opened = True
                audit.summary = begin(record)
                self._check_whose(found.offset, audit.summary)
            return
        if record.type is RecordType.EVENTS and (said := _array_length(record.body)) != record.count:
            self.fault("count-wrong", found.offset, f"the header says {record.count} events, and the body holds {said}")
        if record.type is RecordType.JOINED:
            self._sequences.setdefault(record.producer, _Sequence(damage_seen=self._damage))
        if record.type is RecordType.TERMINAL and not Outcome(unpack(record.body)["outcome"]).is_terminal:
            raise ValueError("no terminal outcome")
        take(audit.summary, record, 0)

    def _check_whose(self, offset: int, summary: RunSummary) -> None:
        files, facts = self._files, summary.facts
        if files.run is not None and facts.run != files.run:
            self.fault("opened-foreign", offset, f"the first record is that of run {facts.run}")
        if files.stem is not None and encode_session_id(facts.session_id) != files.stem:
            self.fault("opened-foreign", offset, "the first record is that of another session")

    # ------------------------------------------------------------ which state the trace file shows

    def _consider(self, prefix: Prefix, *, also_unchanged: bool) -> None:
        """Whether this is the state that the trace file shows; where nothing was taken since, only if damage was."""
        claim, summary, audit = self._claim, self.audit.summary, self.audit
        if claim is None or summary is None or self._is_broken or audit.matching is not None:
            return
        if not also_unchanged and self._checked_damage == self._damage:
            return
        self._checked_damage = self._damage
        ledger = summary.ledger
        if ledger.last_position != claim.last_position:
            return
        audit.same_position = prefix
        told, ledger.corrupt_records = ledger.torn_bytes, self._corrupt_records
        ledger.torn_bytes += self._torn_bytes
        try:
            if sums_of(summary) == claim.sums and lines_of(summary) == claim.lines:
                audit.matching = prefix
        except RENDER_FAULTS:
            self._is_broken = True
            self.fault("render-failed", prefix.end, "what is known of the run up to here cannot be written as a trace file")
        finally:
            ledger.torn_bytes = told


def _array_length(body: bytes) -> int:
    """How many elements the msgpack array says that it has; -1 where it is none."""
    first = body[0] if body else 0
    if 0x90 <= first <= 0x9F:
        return first & 0x0F
    if first in (0xDC, 0xDD):
        return int.from_bytes(body[1 : 3 if first == 0xDC else 5], "big")
    return -1


def audit_journal(disk: Disk, files: RunFiles, claim: Claim | None) -> Audit:
    """Read the journal of a run once.

    Args:
        disk: where it is.
        files: of the run.
        claim: of its trace file, to be looked for among the journal's states; None where there is none.

    Raises:
        OSError: a file cannot be read.
    """
    auditor = _Auditor(files, claim)
    reader = JournalReader(disk, files.segment_paths, [None] * len(files.segment_paths))
    auditor.audit.links = reader.links
    for index, found in reader.walk():
        auditor.take_found(index, found)
    auditor.end_file()
    for path in reader.unfinished:
        auditor.take_unfinished(path, disk.size(path))
    auditor.end()
    _tell_holes_from_damage(disk, files, auditor.audit)
    return auditor.audit


def _tell_holes_from_damage(disk: Disk, files: RunFiles, audit: Audit) -> None:
    """Damage in the last group that a power cut explains is a torn end: a reader cannot tell, and the next start will."""
    last = audit.links[-1].path if audit.links else ""
    suspects = [one for one in audit.findings.items if one.code == "record-corrupt" and one.path == last]
    if not suspects or audit.findings.truncated:
        return
    torn = examine(disk, files.segment_paths).torn
    explained = [one for one in suspects if torn is not None and one.offset >= torn.offset]
    if torn is None or not explained:
        return
    kept = [one for one in audit.findings.items if one not in explained]
    audit.findings = Findings()
    for one in kept:
        audit.findings.add(one)
    message = "a hole of zeros in what was written last, and may never have been synced"
    unfinished = [one for one in audit.tails if one.path != last]
    audit.tails = [Finding("tail-torn", last, torn.offset, message, torn.length), *unfinished]
