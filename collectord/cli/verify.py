"""``collectord verify``: what lies on the disk is checked, and everything that is wrong is named.

Owns the output's form: for people, or JSON. What is right is ``export.verify``'s.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import click

from collectord.cli.options import Places, command_options

if TYPE_CHECKING:
    from collectord.cli.targets import Targets
    from collectord.export.findings import Finding
    from collectord.export.inventory import Inventory, RunFiles
    from collectord.export.verify import Verification
    from collectord.journal.disk import Disk


@click.command("verify")
@command_options
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--id-json", metavar="STRING", help="A session's id as a JSON string, for ids that cannot be typed.")
@click.option("--run", type=click.IntRange(min=1), metavar="N", help="Which run of the sessions; all by default.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON document.")
def command(places: Places, paths: tuple[str, ...], id_json: str | None, run: int | None, as_json: bool) -> int:
    """Check journals and trace files.

    PATH is a state directory, a journal file, a trace file or a session id; without any, the whole state directory is checked.
    Nothing is changed, and a collector may be running. Exit status 0 where all is clean, 1 where it is not.
    """
    from collectord.journal.disk import RealDisk
    from collectord.times import rfc3339

    as_of = rfc3339(time.time_ns())
    disk = RealDisk()
    verification = check(disk, _targets(disk, places, paths, id_json, run))
    if as_json:
        click.echo(json.dumps(as_document(verification, as_of), indent=2))
    else:
        _print(verification)
    return 1 if verification.findings.faults else 0


def _targets(disk: Disk, places: Places, paths: tuple[str, ...], id_json: str | None, run: int | None) -> Targets:
    from collectord.cli.naming import name_session
    from collectord.cli.targets import Targets, add_session, find_target, look_through, state_directory

    targets = Targets()
    for path in paths:
        find_target(disk, places, path, run, targets)
    if id_json is not None:
        add_session(disk, places, name_session(None, id_json, run), targets)
    elif not paths:
        if run is not None:
            raise click.UsageError("--run says which run of a session: name the session")
        targets.inventories.append(look_through(disk, state_directory(places)))
    return targets


def check(disk: Disk, targets: Targets) -> Verification:
    """Check everything that was named."""
    from collectord.export.verify import Verification, verify_orphan, verify_run

    verification = Verification()
    for files in _runs(targets):
        verification.add(verify_run(disk, files, lambda files=files: is_live(files)))  # type: ignore[misc]
    for path in [*targets.orphans, *(path for inventory in targets.inventories for path in inventory.orphans)]:
        verification.findings.extend(verify_orphan(disk, path))
    for inventory in targets.inventories:
        for finding in inventory.findings:
            verification.findings.add(finding)
    return verification


def _runs(targets: Targets) -> list[RunFiles]:
    """Each run once, however often it was named."""
    named: list[Inventory] = targets.inventories
    runs = [*targets.runs, *(files for inventory in named for files in inventory.runs)]
    return list(
        {(files.journals, files.stem, files.run, files.trace_path, files.segment_paths[0]): files for files in runs}.values()
    )


def is_live(files: RunFiles) -> bool:
    """Whether a collector is running on the state directory of a run."""
    from collectord.export.inventory import state_directory_of
    from collectord.journal.store import LOCK_NAME, is_locked

    state_dir = state_directory_of(files)
    return state_dir is not None and is_locked(os.path.join(state_dir, LOCK_NAME))


def as_document(verification: Verification, as_of: str) -> dict[str, Any]:
    """What ``--json`` prints."""
    findings = verification.findings
    return {
        "as_of": as_of,
        "clean": not findings.faults,
        "items": [_item(finding) for finding in findings.items],
        "truncated": findings.truncated,
        "counts": {
            "runs": verification.runs,
            "running": verification.running,
            "lagging": verification.lagging,
            "records": verification.records,
            "events": verification.events,
            "faults": findings.faults,
            "notes": findings.notes,
        },
    }


def _item(finding: Finding) -> dict[str, Any]:
    return {
        "kind": "fault" if finding.is_fault else "note",
        "code": finding.code,
        "path": finding.path,
        "offset": finding.offset,
        "length": finding.length,
        "id": finding.session_id,
        "run": finding.run,
        "message": finding.message,
    }


def _print(verification: Verification) -> None:
    from collectord.cli.text import counted, plain

    findings = verification.findings
    for finding in findings.items:
        word = "" if finding.is_fault else "note: "
        click.echo(plain(f"{finding.path}:{finding.offset}: {word}{finding.code}: {finding.message}"))
    if findings.truncated:
        click.echo(f"{findings.faults + findings.notes - len(findings.items):,} more are not shown")
    if verification.lagging:
        running = counted(verification.running, "running session")
        click.echo(f"of {running}, {verification.lagging:,} have a trace file that is older, as it may be")
    checked = [counted(verification.runs, "run"), counted(verification.records, "record"), counted(verification.events, "event")]
    verdict = counted(findings.faults, "fault") if findings.faults else "clean"
    click.echo(f"{', '.join(checked)} checked: {verdict}")
