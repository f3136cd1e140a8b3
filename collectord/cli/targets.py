"""What a command works on without a daemon: the state directory, and the runs in it that a command line names.

A running daemon is asked for its state directory where only its socket is named. Reads names and first lines, and no more.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from attrs import Factory, define

from collectord.cli.naming import SessionName, name_session
from collectord.cli.options import Places
from collectord.errors import OperatorError, RefusedError
from collectord.export.inventory import Inventory, RunFiles, run_of_journal, run_of_trace, take_inventory
from collectord.journal.format import MAGIC
from collectord.names import encode_session_id, parse_journal_file_name, parse_trace_file_name

if TYPE_CHECKING:
    from collectord.journal.disk import Disk


@define
class Targets:
    """What is to be looked at.

    Attributes:
        runs: with their journals.
        orphans: trace files that have none.
        inventories: of whole state directories.
    """

    runs: list[RunFiles] = Factory(list)
    orphans: list[str] = Factory(list)
    inventories: list[Inventory] = Factory(list)


def state_directory(places: Places) -> str:
    """Where traces and journals are.

    As the command line and the environment say; else where the daemon whose socket they name keeps them; else the default.

    Raises:
        OperatorError: ``no-daemon``, ``config-invalid``.
    """
    from collectord.daemon.settings import load, locate_socket

    is_named = places.state_dir is not None or bool(os.environ.get("COLLECTORD_STATE_DIR"))
    has_socket = places.socket is not None or bool(os.environ.get("COLLECTORD_SOCKET"))
    if is_named or not has_socket:
        return load({"state_dir": places.state_dir}, None, os.environ, os.geteuid()).state_dir
    from collectord.cli.status import ask_status

    try:
        told: Any = ask_status(locate_socket(places.socket, os.environ, os.geteuid())).daemon.get("state_dir")
    except OperatorError as error:
        raise OperatorError(error.code, f"{error.message}; without it, say where the files are with --state-dir") from None
    if type(told) is not str:
        raise OperatorError("no-daemon", "the daemon does not say where its state directory is")
    return told


def look_through(disk: Disk, state_dir: str) -> Inventory:
    """A whole state directory.

    Raises:
        OperatorError: ``directory-unusable``: it is none.
    """
    path = os.path.abspath(state_dir)
    if not os.path.isdir(path):
        raise OperatorError("directory-unusable", f"{path} is not there, or no directory")
    if not os.path.isdir(f"{path}/journals") and not os.path.isdir(f"{path}/traces"):
        raise OperatorError("directory-unusable", f"{path} is no state directory: it holds neither journals/ nor traces/")
    return take_inventory(disk, path)


def find_target(disk: Disk, places: Places, name: str, run: int | None, targets: Targets) -> None:
    """Add what one word of the command line means.

    Args:
        disk: to look with.
        places: where the sessions are.
        name: a state directory, a journal file, a trace file, or a session id.
        run: which run of a session; None for all of them.
        targets: takes what is found.

    Raises:
        OperatorError: as ``state_directory`` and ``look_through``.
        RefusedError: ``session-unknown`` or ``run-unknown``.
        click.UsageError: an empty name.
    """
    path = os.path.abspath(name)
    if os.path.isdir(name):
        targets.inventories.append(look_through(disk, path))
    elif os.path.isfile(name) and (parse_journal_file_name(os.path.basename(path)) or _begins_like_a_journal(disk, path)):
        targets.runs.append(run_of_journal(disk, path))
    elif os.path.isfile(name) and name.endswith(".json"):
        _add_trace(disk, places, path, targets)
    else:
        add_session(disk, places, name_session(name, None, run), targets)


def _begins_like_a_journal(disk: Disk, path: str) -> bool:
    try:
        return disk.read(path, 0, len(MAGIC)) == MAGIC
    except OSError:
        return False


def _add_trace(disk: Disk, places: Places, path: str, targets: Targets) -> None:
    """A trace file in its place, or a copy of one, which is held against the journal of the session that it names."""
    files = run_of_trace(disk, path)
    if files is not None:
        targets.runs.append(files)
        return
    named = name_session(path, None, None)
    if named.run is None or _is_in_traces(path):
        targets.orphans.append(path)
        return
    found = Targets()
    try:
        add_session(disk, places, named, found)
    except (RefusedError, OperatorError):  # no such session here, or no state directory at all
        found.runs.clear()
    targets.runs.extend(RunFiles(one.journals, one.stem, one.run, one.segment_paths, path) for one in found.runs)
    if not found.runs:
        targets.orphans.append(path)


def _is_in_traces(path: str) -> bool:
    parts = path.split("/")
    return "traces" in (parts[-2:-1] + parts[-3:-2])


def add_session(disk: Disk, places: Places, named: SessionName, targets: Targets) -> None:
    """Add the runs of a session.

    Raises:
        OperatorError: as ``state_directory`` and ``look_through``.
        RefusedError: ``session-unknown`` or ``run-unknown``.
    """
    state_dir = state_directory(places)
    inventory = look_through(disk, state_dir)
    stem = encode_session_id(named.id)
    runs = [files for files in inventory.runs if files.stem == stem]
    parsed = [(path, parse_trace_file_name(os.path.basename(path))) for path in inventory.orphans]
    orphans = [(path, name.run) for path, name in parsed if name is not None and name.stem == stem]
    if not runs and not orphans:
        raise RefusedError("session-unknown", f"there is no session of that id in {state_dir}")
    runs = [files for files in runs if named.run in (None, files.run)]
    orphans = [(path, run) for path, run in orphans if named.run in (None, run)]
    if not runs and not orphans:
        raise RefusedError("run-unknown", f"the session has no run {named.run} in {state_dir}")
    targets.runs.extend(runs)
    targets.orphans.extend(path for path, _ in orphans)
