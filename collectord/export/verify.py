"""Whether what lies on a disk is what it should be: each run's journal by itself, and its trace file against the journal.

Pure over a disk, and changes nothing. Stays right beside a running collector: a trace file is read before its journal, which can
only be ahead of it; what was found wrong is looked for again where the files have changed meanwhile; and what a running collector
still owes is noted and is no fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final

from attrs import Factory, define, evolve, frozen

from collectord.export.audit import Audit, Prefix, audit_journal
from collectord.export.claim import Claim, first_difference, read_claim
from collectord.export.findings import Finding, Findings
from collectord.export.inventory import RunFiles, unreadable
from collectord.export.render import JournalIsEmpty
from collectord.export.request import RENDER_FAULTS
from collectord.journal.disk import Disk
from collectord.limits import VERIFY_TRIES_MAX
from collectord.model import Outcome

IsLive = Callable[[], bool]
"""Whether a collector is running on the state directory, now."""

_CANNOT_RENDER: Final = (JournalIsEmpty, *RENDER_FAULTS)


class TraceState(Enum):
    """A trace file beside its journal."""

    EQUAL = "equal"
    OLDER = "older"
    MISSING = "missing"
    DIFFERENT = "different"
    UNCHECKED = "unchecked"


@frozen
class RunReport:
    """What is known of one run.

    Attributes:
        files: that were looked at.
        findings: everything that was found.
        session_id: whose run; None where the journal does not say.
        run: its number; None likewise.
        outcome: by its journal; None likewise.
        records: how many sound ones there are.
        events: how many are stored.
        trace: how the trace file stands to the journal.
        is_damaged: whether something in the journal is wrong, but for an incomplete end.
        has_finished_trace: whether there is a trace file that begins as one does and says how the run ended.
    """

    files: RunFiles
    findings: Findings
    session_id: str | None = None
    run: int | None = None
    outcome: str | None = None
    records: int = 0
    events: int = 0
    trace: TraceState = TraceState.UNCHECKED
    is_damaged: bool = False
    has_finished_trace: bool = False


@define
class Verification:
    """What came of several runs.

    Attributes:
        findings: of all of them.
        runs: how many were looked at.
        records: how many sound ones.
        events: how many are stored.
        running: how many of the runs are not over.
        lagging: how many of those have a trace file that is older than the journal, as it may be.
    """

    findings: Findings = Factory(Findings)
    runs: int = 0
    records: int = 0
    events: int = 0
    running: int = 0
    lagging: int = 0

    def add(self, report: RunReport) -> None:
        """One more run."""
        self.runs += 1
        self.records += report.records
        self.events += report.events
        if report.outcome == Outcome.RUNNING.value:
            self.running += 1
            self.lagging += report.trace is TraceState.OLDER
        self.findings.extend(report.findings)


def verify_runs(disk: Disk, runs: Iterable[RunFiles], is_live: IsLive) -> Verification:
    """Check runs, one after the other."""
    verification = Verification()
    for files in runs:
        verification.add(verify_run(disk, files, is_live))
    return verification


def verify_orphan(disk: Disk, path: str) -> Findings:
    """Check a trace file that has no journal: what can be said of it."""
    findings = Findings()
    try:
        claim = read_claim(disk, path)
    except OSError as error:
        findings.add(unreadable(path, error))
        return findings
    findings.add(Finding("trace-orphan", path, 0, "there is no journal that it could be compared with"))
    _check_claim_alone(path, claim, findings)
    return findings


def verify_run(disk: Disk, files: RunFiles, is_live: IsLive) -> RunReport:
    """Check one run. Never raises, whatever the files hold.

    Args:
        disk: where they are.
        files: of the run; segments that were begun since are found.
        is_live: asked only where the answer makes a difference.
    """
    before = _stamp(disk, files)
    report, has_moved = _verify_once(disk, files, is_live)
    for _ in range(VERIFY_TRIES_MAX - 1):
        if not has_moved and not report.findings.faults:
            break
        try:
            files = files.looked_at_again(disk)
        except OSError:
            break
        now = _stamp(disk, files)
        if now == before and not has_moved:
            break
        before = now
        report, has_moved = _verify_once(disk, files, is_live)
    return _named(report)


def _stamp(disk: Disk, files: RunFiles) -> tuple[object, ...]:
    """Changes with every change of the files that could make a finding a false one."""
    found: list[object] = []
    for path in (*files.segment_paths, files.trace_path):
        try:
            found.append(None if path is None else disk.size(path))
            found.append(None if path is None or path != files.trace_path else read_claim(disk, path).lines)
        except OSError as error:
            found.append(error.errno)
    return (*files.segment_paths, *found)


def _named(report: RunReport) -> RunReport:
    """Every finding says whose it is."""
    items = [evolve(one, session_id=report.session_id, run=report.run) for one in report.findings.items]
    return evolve(report, findings=Findings(items, report.findings.faults, report.findings.notes))


def _verify_once(disk: Disk, files: RunFiles, is_live: IsLive) -> tuple[RunReport, bool]:
    """One look, and whether the trace file was replaced under it."""
    findings = Findings()
    if not files.segment_paths:  # a start has set the journal aside since
        if files.trace_path is not None and disk.exists(files.trace_path):
            findings = verify_orphan(disk, files.trace_path)
        return RunReport(files, findings, run=files.run), False
    try:
        claim = None if files.trace_path is None else read_claim(disk, files.trace_path)
    except FileNotFoundError:
        claim = None
    except OSError as error:
        findings.add(unreadable(files.trace_path or "", error))
        claim = None
    is_hidden = bool(findings.faults)
    try:
        audit = audit_journal(disk, files, claim)
    except OSError as error:
        findings.add(unreadable(str(error.filename or files.segment_paths[0]), error))
        return RunReport(files, findings, run=files.run), False
    except RENDER_FAULTS as error:  # a seam that is none, or a file that became shorter while it was read
        findings.add(Finding("body-malformed", files.segment_paths[-1], 0, f"`segment`: {type(error).__name__}: {error}"))
        return RunReport(files, findings, run=files.run, is_damaged=True), False
    findings.extend(audit.findings)
    _add_tail(audit, findings, is_live)
    trace, has_moved = TraceState.UNCHECKED, False
    if files.trace_path is not None and not is_hidden:
        trace, has_moved = _check_trace(disk, files.trace_path, audit, claim, findings, is_live)
    return _report(files, findings, audit, claim, trace), has_moved


def _report(files: RunFiles, findings: Findings, audit: Audit, claim: Claim | None, trace: TraceState) -> RunReport:
    summary = audit.summary
    return RunReport(
        files,
        findings,
        None if summary is None else summary.facts.session_id,
        files.run if summary is None else summary.facts.run,
        None if summary is None else summary.outcome,
        audit.records,
        audit.events,
        trace,
        audit.is_damaged,
        claim is not None and claim.is_ours and claim.is_finished,
    )


def _add_tail(audit: Audit, findings: Findings, is_live: IsLive) -> None:
    for tail in audit.tails:
        findings.add(evolve(tail, code="tail-pending") if is_live() else tail)


# ---------------------------------------------------------------- the trace file


def _check_trace(
    disk: Disk, path: str, audit: Audit, claim: Claim | None, findings: Findings, is_live: IsLive
) -> tuple[TraceState, bool]:
    """Compare a trace file with its journal. What is found goes to ``findings``; the second value as in ``_verify_once``."""
    summary = audit.summary
    if claim is None:
        if summary is None:
            return TraceState.UNCHECKED, False  # what is wrong with the journal is said; nothing could be rendered
        _owed(path, "there is no trace file", "trace-missing", findings, is_live)
        return TraceState.MISSING, False
    if not claim.is_ours:
        return _judged(disk, path, claim, Finding("trace-damaged", path, 0, "it does not begin as a trace file does"), findings)
    if summary is None:
        _check_claim_alone(path, claim, findings)
        return TraceState.UNCHECKED, False
    try:
        if audit.matching is None:
            return _judged(disk, path, claim, _why_no_state_matches(disk, path, audit, claim), findings)
        offset = first_difference(disk, path, claim.size, lambda: audit.reader(disk, audit.matching or audit.whole))
    except OSError as error:
        return _judged(disk, path, claim, unreadable(path, error), findings)
    except _CANNOT_RENDER as error:
        message = f"no trace file can be made of the journal: {type(error).__name__}: {error}"
        return _judged(disk, path, claim, Finding("render-failed", path, 0, message), findings)
    if offset is not None:
        return _judged(disk, path, claim, _difference(path, audit, offset), findings)
    if audit.terminal is not None and not claim.is_finished:
        _owed(path, f"the run is {summary.outcome}, and the trace file says that it runs", "trace-behind", findings, is_live)
        return TraceState.OLDER, False
    is_older = claim.last_position != summary.ledger.last_position
    return TraceState.OLDER if is_older else TraceState.EQUAL, False


def _owed(path: str, message: str, code: str, findings: Findings, is_live: IsLive) -> None:
    """What the collector is about to do where there is one, and a fault where there is none."""
    findings.add(Finding("trace-pending" if is_live() else code, path, 0, message))


def _judged(disk: Disk, path: str, claim: Claim, finding: Finding, findings: Findings) -> tuple[TraceState, bool]:
    """What is found against a trace file counts only if the file is still the one that was looked at."""
    try:
        now = read_claim(disk, path)
        has_moved = (now.lines, now.size) != (claim.lines, claim.size)
    except OSError:
        has_moved = False
    if has_moved:
        finding = Finding("trace-unsettled", path, 0, "it was replaced each time it was compared")
    findings.add(finding)
    return TraceState.UNCHECKED if has_moved else TraceState.DIFFERENT, has_moved


def _why_no_state_matches(disk: Disk, path: str, audit: Audit, claim: Claim) -> Finding:
    """The trace file claims a state in which the journal never was."""
    summary = audit.summary
    stored = 0 if summary is None else summary.ledger.last_position
    if not audit.is_damaged:
        if claim.is_finished and audit.terminal is None:
            return Finding("trace-ahead", path, 0, "it says how the run ended, and the journal holds no terminal record")
        if claim.last_position is not None and claim.last_position > stored:
            message = f"it claims {claim.last_position} events, and the journal holds {stored}"
            return Finding("trace-ahead", path, 0, message)
    return _difference(path, audit, max(_differences(disk, path, audit, claim), default=0))


def _differences(disk: Disk, path: str, audit: Audit, claim: Claim) -> list[int]:
    """Where the file leaves each of the states that it may have been meant to show."""
    wanted: list[Prefix] = [one for one in (audit.terminal, audit.same_position, audit.whole) if one is not None]
    found = [first_difference(disk, path, claim.size, lambda one=one: audit.reader(disk, one)) for one in dict.fromkeys(wanted)]  # type: ignore[misc]
    return [offset for offset in found if offset is not None]


def _difference(path: str, audit: Audit, offset: int) -> Finding:
    if audit.is_damaged:
        message = "it is not what is left of the journal: it may hold what is damaged there"
        return Finding("trace-unproven", path, offset, message)
    return Finding("trace-differs", path, offset, "from here on it is not what the journal renders to")


def _check_claim_alone(path: str, claim: Claim, findings: Findings) -> None:
    """What can be said of a trace file without a journal."""
    if not claim.is_ours:
        findings.add(Finding("trace-damaged", path, 0, "it does not begin as a trace file does"))
        return
    why = claim.why_sums_are_wrong()
    if why is not None:
        findings.add(Finding("sums-wrong", path, 0, why))
