"""What `verify` can find: the code of each finding, whether it is a fault, and the list in which findings are kept.

Pure. Owns the codes, which are stable: docs/operations.md lists them, and a test compares the two.
"""

from __future__ import annotations

from typing import Final

from attrs import Factory, define, frozen

from collectord.limits import FINDINGS_MAX

FAULTS: Final = {
    "head-damaged": "the first bytes are not those of a journal: nothing behind them can be checked",
    "head-foreign": "the head of a segment names another run or segment than the file's name does",
    "journal-newer": "a newer collectord wrote it: this one cannot check it",
    "record-corrupt": "a whole record whose checksum or type is wrong, or one that something else has been put in place of",
    "tail-torn": "an incomplete end: it was never acknowledged; the next start sets it aside and counts it",
    "segment-missing": "a segment that a later one follows is not there",
    "segment-short": "a segment is shorter than what was durable in it once",
    "opened-missing": "there is no sound first record: nobody can say whose run it is",
    "opened-foreign": "the first record names another session or run than the file's name does",
    "body-malformed": "a record whose checksums are right does not hold what its type says",
    "record-misplaced": "a sound record that cannot stand where it stands",
    "terminal-repeated": "there is more than one terminal record",
    "position-wrong": "the positions of events are not dense",
    "sequence-wrong": "a producer's sequences have a hole that nothing accounts for, or come twice",
    "producer-unknown": "a record of a producer that never joined",
    "count-wrong": "a record holds another number of events than it says",
    "trace-missing": "there is a journal, and no trace file",
    "trace-damaged": "a trace file does not begin as one does",
    "trace-behind": "the run has ended, and its trace file does not say so: the next start derives it again",
    "trace-ahead": "the trace file says more than the journal holds",
    "trace-differs": "the trace file is not what the journal renders to",
    "trace-unproven": "the journal is damaged, and the trace file is not what is left of it: it may hold more",
    "trace-orphan": "a trace file without a journal",
    "sums-wrong": "the trace file's own sums do not add up",
    "render-failed": "no trace file can be made of the journal",
    "unreadable": "a file cannot be read",
}
"""What makes a state directory not clean."""

NOTES: Final = {
    "tail-pending": "an incomplete end beside a running collector: it is being written",
    "trace-pending": "a run whose trace file a running collector still owes",
    "trace-unsettled": "a trace file that was replaced each time it was compared",
    "foreign-file": "nothing of collectord's",
    "temporary-file": "an export that is being written, or that was never finished: the next start removes it",
    "quarantined": "set aside by an earlier start",
}
"""What is named and is no fault."""


@frozen
class Finding:
    """One thing that was found.

    Attributes:
        code: a key of ``FAULTS`` or ``NOTES``.
        path: of the file.
        offset: in it, in bytes; of a trace file that differs, of the first byte that does.
        message: one sentence about this very case.
        length: how many bytes it concerns, where that is known.
        session_id: whose, where that is known.
        run: which run, where that is known.
    """

    code: str
    path: str
    offset: int
    message: str
    length: int | None = None
    session_id: str | None = None
    run: int | None = None

    @property
    def is_fault(self) -> bool:
        """Whether it makes the whole not clean."""
        return self.code in FAULTS


@define
class Findings:
    """Findings in the order in which they were made: the first ``FINDINGS_MAX`` of them, and how many there were.

    Attributes:
        items: those that are kept.
        faults: how many were faults.
        notes: how many were not.
    """

    items: list[Finding] = Factory(list)
    faults: int = 0
    notes: int = 0

    def add(self, finding: Finding) -> None:
        """One more."""
        if finding.is_fault:
            self.faults += 1
        else:
            self.notes += 1
        if len(self.items) < FINDINGS_MAX:
            self.items.append(finding)

    def extend(self, others: Findings) -> None:
        """All of another list, with those that it has not kept."""
        room = FINDINGS_MAX - len(self.items)
        self.items.extend(others.items[:room])
        self.faults += others.faults
        self.notes += others.notes

    @property
    def truncated(self) -> bool:
        """Whether there were more than are kept."""
        return len(self.items) < self.faults + self.notes
