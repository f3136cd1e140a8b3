"""``collectord recover``: a trace file is rebuilt from its journal, without a daemon.

Owns what may be put in place of what: a trace file that is right stays, and so does one that may hold more than its journal; what
is replaced is set aside first. Holds the lock of the state directory while it puts a file under its name there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from collectord.cli.options import Places, command_options

if TYPE_CHECKING:
    from collectord.export.inventory import RunFiles
    from collectord.export.verify import RunReport
    from collectord.journal.disk import Disk
    from collectord.journal.reader import JournalReader


@click.command("recover")
@command_options
@click.argument("journals", nargs=-1, metavar="[SESSION|JOURNAL]...")
@click.option("--id-json", metavar="STRING", help="The session's id as a JSON string, for ids that cannot be typed.")
@click.option("--run", type=click.IntRange(min=1), metavar="N", help="Which run of the session; the latest by default.")
@click.option("--output", metavar="FILE|-", help="Write it there, and leave the state directory alone.")
@click.option("--json", "as_json", is_flag=True, help="For programs: say what was done as one JSON document.")
def command(
    places: Places, journals: tuple[str, ...], id_json: str | None, run: int | None, output: str | None, as_json: bool
) -> int:
    """Rebuild a trace file from its journal.

    What is named is a session, its trace file, or a file of its journal. Without --output the trace file is put under its name,
    which no running collector allows; one that is right, or may hold more than the journal, stays.
    """
    from collectord.journal.disk import RealDisk
    from collectord.times import rfc3339

    disk = RealDisk()
    found = _find(disk, places, journals, id_json, run)
    if output is not None and len(found) != 1:
        raise click.UsageError("--output takes one trace file: name one run")
    if output == "-" and as_json:
        raise click.UsageError("--output - and --json both want standard output")
    as_of = rfc3339(time.time_ns())
    with ExitStack() as held:
        for state_dir in sorted({_state_dir(files) for files in found} if output is None else ()):
            held.enter_context(_lock(state_dir))
        items = [_recover(disk, files, output) for files in found]
    if as_json:
        click.echo(json.dumps({"as_of": as_of, "items": items, "truncated": False}, indent=2))
    else:
        _say(items, is_err=output == "-")
    return 0


def _find(disk: Disk, places: Places, journals: tuple[str, ...], id_json: str | None, run: int | None) -> list[RunFiles]:
    """The runs that are named, each by its journal."""
    from collectord.cli.naming import name_session
    from collectord.cli.targets import Targets, add_session, find_target
    from collectord.errors import OperatorError
    from collectord.export.inventory import run_of_journal

    if not journals and id_json is None:
        raise click.UsageError("name a session, by its id, its trace file or its journal, or with --id-json")
    found: list[RunFiles] = []
    for name in [*journals, None] if id_json is not None else journals:
        targets = Targets()
        if name is None:
            add_session(disk, places, name_session(None, id_json, run), targets)
        else:
            find_target(disk, places, name, run, targets)
        if targets.inventories:
            raise click.UsageError(f"{name} is a directory: name a session or a journal in it")
        if not targets.runs:
            raise OperatorError("journal-unreadable", f"there is no journal for {targets.orphans[0]}")
        latest = _latest(targets.runs)
        found.append(run_of_journal(disk, latest.segment_paths[0]))  # a copy of a trace file names a run, and no place
    return found


def _latest(runs: list[RunFiles]) -> RunFiles:
    """The last run, where a session was named; that there are several users with it must be said."""
    if len({files.journals for files in runs}) > 1:
        raise click.UsageError("several users have a session of that id: name one by its trace file or its journal")
    return max(runs, key=lambda files: files.run or 0)


def _state_dir(files: RunFiles) -> str:
    from collectord.export.inventory import state_directory_of

    found = state_directory_of(files)
    if found is None or files.trace_path is None:
        raise click.UsageError(f"{files.segment_paths[0]} lies in no state directory: say where to write with --output")
    return found


def _lock(state_dir: str) -> Any:
    from collectord.journal.store import LOCK_NAME, StateLock

    return StateLock(os.path.join(state_dir, LOCK_NAME))


def _recover(disk: Disk, files: RunFiles, output: str | None) -> dict[str, Any]:
    """Rebuild one; what was done, as ``--json`` lists it."""
    from collectord.cli.verify import is_live
    from collectord.errors import DiskError, OperatorError, RefusedError
    from collectord.export.request import RENDER_FAULTS
    from collectord.export.verify import verify_run

    report = verify_run(disk, files, (lambda: False) if output is None else lambda: is_live(files))
    files = report.files
    codes = {finding.code for finding in report.findings.items}
    if "journal-newer" in codes:
        raise RefusedError("journal-too-new", f"{files.segment_paths[0]} was written by a newer collectord")
    if report.outcome is None:
        raise OperatorError("journal-unreadable", _first_sentence(report))
    path = files.trace_path if output is None else output
    try:
        action = _put(disk, report) if output is None else _write_elsewhere(disk, report, output)
    except OSError as error:
        raise DiskError("disk-failed", f"{path}: {error.strerror or error}") from None
    except RENDER_FAULTS as error:
        raise OperatorError("journal-unreadable", f"{files.segment_paths[0]}: {type(error).__name__}: {error}") from None
    return {
        "id": report.session_id,
        "run": report.run,
        "outcome": report.outcome,
        "events": report.events,
        "path": None if path == "-" else path,
        "action": action,
        "damaged": report.is_damaged or "tail-torn" in codes,
    }


def _first_sentence(report: RunReport) -> str:
    for finding in report.findings.items:
        if finding.is_fault:
            return f"{finding.path}, offset {finding.offset}: {finding.message}"
    return f"{report.files.segment_paths[0]} cannot be read"


def _reader(disk: Disk, report: RunReport) -> JournalReader:
    """Over all of the journal but what a running collector is just writing."""
    from collectord.journal.reader import JournalReader

    pending = {one.path: one.offset for one in report.findings.items if one.code == "tail-pending"}
    paths = [path for path in report.files.segment_paths if pending.get(path) != 0]
    return JournalReader(disk, paths, [pending.get(path) for path in paths])


# ---------------------------------------------------------------- where it goes


def _put(disk: Disk, report: RunReport) -> str:
    """Under its name, where that is right; what was done, in one word."""
    from collectord.errors import OperatorError
    from collectord.export.publish import publish
    from collectord.export.verify import TraceState
    from collectord.names import temporary_file_name

    files = report.files
    assert files.trace_path is not None
    assert files.stem is not None
    assert files.run is not None
    if report.trace is TraceState.EQUAL:
        return "kept"
    if report.has_finished_trace and (report.is_damaged or report.outcome == "running"):
        raise OperatorError("trace-kept", f"{files.trace_path} is finished, and its journal is not whole any more")
    if report.trace is TraceState.UNCHECKED:
        raise OperatorError("trace-kept", f"{files.trace_path} cannot be read")
    aside = _aside(disk, files) if report.trace is TraceState.DIFFERENT else None
    directory = os.path.dirname(files.trace_path)
    temporary = os.path.join(directory, temporary_file_name(files.stem, files.run, 0))
    disk.make_directory(directory)
    publish(disk, lambda: _reader(disk, report), temporary, files.trace_path, aside)
    return "written" if aside is None else "replaced"


def _aside(disk: Disk, files: RunFiles) -> str:
    """A place in the quarantine for the file that is replaced, with a note that says why it is there."""
    from collectord.journal.store import Store

    state_dir = _state_dir(files)
    store = Store(disk, state_dir, os.geteuid())
    store.prepare()
    assert files.trace_path is not None
    aside = store.free_quarantine_path(os.path.basename(files.trace_path))
    note = f"was {files.trace_path}\nwhy: it was not what its journal renders to, and `collectord recover` replaced it\n"
    disk.write_file(aside + ".txt", note.encode("utf-8", "surrogateescape"), sync=True)
    return aside


def _write_elsewhere(disk: Disk, report: RunReport, output: str) -> str:
    from collectord.export.publish import publish
    from collectord.export.render import render

    if output == "-":
        render(lambda: _reader(disk, report), None, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        return "written"
    path = os.path.abspath(output)
    if os.path.lexists(path) and (os.path.islink(path) or not os.path.isfile(path)):
        raise click.UsageError(f"{output} is there, and is no plain file")
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}.tmp")
    publish(disk, lambda: _reader(disk, report), temporary, path)
    return "written"


def _say(items: list[dict[str, Any]], is_err: bool) -> None:
    from collectord.cli.text import counted, cut_middle, plain

    for item in items:
        who = f"{cut_middle(str(item['id']), 100)} run {item['run']}: {item['outcome']}, {counted(item['events'], 'event')}"
        done = {
            "kept": "the trace file is right already",
            "written": "written",
            "replaced": "written; the old file is in quarantine/",
        }
        click.echo(f"{who}: {done[item['action']]}", err=is_err)
        if item["path"] is not None:
            click.echo(plain(item["path"]))
        if item["outcome"] == "running":
            click.echo("its journal holds no end: it is rendered as it stands", err=True)
        if item["damaged"]:
            click.echo("its journal is damaged: see `collectord verify`, and `integrity` in the trace file", err=True)
