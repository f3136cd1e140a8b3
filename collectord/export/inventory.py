"""What lies in a state directory: the runs with their files, and what belongs to none.

Pure over a disk. Looks at names only; knows nothing of what the files hold, and makes no directory that is missing.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import Factory, define, evolve, frozen

from collectord.export.findings import Finding
from collectord.journal.disk import Disk
from collectord.names import TEMPORARY_SUFFIX, journal_file_name, parse_journal_file_name, parse_trace_file_name, trace_file_name

_USER_PREFIX = "uid-"


@frozen
class RunFiles:
    """The files of one run.

    Attributes:
        journals: the directory of its journal.
        stem: of its files' names; None for a journal whose name is not one of ours.
        run: its number; None likewise.
        segment_paths: in order of their numbers.
        trace_path: where its trace file is or should be; None where nobody can say: the journal lies by itself.
    """

    journals: str
    stem: str | None
    run: int | None
    segment_paths: list[str]
    trace_path: str | None

    def looked_at_again(self, disk: Disk) -> RunFiles:
        """The same run with the segments that were begun since, and without those that were taken away. Raises ``OSError``."""
        if self.stem is None or self.run is None:
            return self
        return evolve(self, segment_paths=_segments_in(disk, self.journals, self.stem, self.run))


@define
class Inventory:
    """Everything that was found.

    Attributes:
        runs: those that have a journal.
        orphans: trace files that have none.
        findings: what is no run's.
    """

    runs: list[RunFiles] = Factory(list)
    orphans: list[str] = Factory(list)
    findings: list[Finding] = Factory(list)


def base_name(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


def directory_name(path: str) -> str:
    """What stands before the last part of a path."""
    return path.rpartition("/")[0] or "/"


def take_inventory(disk: Disk, state_dir: str) -> Inventory:
    """Look through a state directory.

    Trace files are listed before journals: a run that is opened in between has its journal first, so none is taken for an orphan.

    Args:
        disk: where it is.
        state_dir: absolute, without a slash at its end.
    """
    found = Inventory()
    traces = [(directory, list(names)) for directory, names in _directories(disk, f"{state_dir}/traces", found)]
    known: set[str] = set()
    for directory, names in _directories(disk, f"{state_dir}/journals", found):
        user = directory.removeprefix(f"{state_dir}/journals")
        for files in runs_among(directory, names, f"{state_dir}/traces{user}", found):
            found.runs.append(files)
            if files.trace_path is not None:
                known.add(files.trace_path)
    for directory, names in traces:
        _sort_traces(directory, names, known, found)
    _quarantine(disk, f"{state_dir}/quarantine", found)
    return found


def run_of_journal(disk: Disk, path: str) -> RunFiles:
    """The run that a journal file belongs to, with the other files of it that lie beside it; any file may be named.

    Raises:
        OSError: the directory cannot be listed.
    """
    directory = directory_name(path)
    name = parse_journal_file_name(base_name(path))
    if name is None:
        return RunFiles(directory, None, None, [path], None)
    return _run_beside(disk, directory, name.stem, name.run, _counterpart(directory, "journals", "traces"))


def run_of_trace(disk: Disk, path: str) -> RunFiles | None:
    """The run that a trace file belongs to, where it lies in a state directory and there is a journal for it.

    Raises:
        OSError: the directory of the journals cannot be listed.
    """
    traces = directory_name(path)
    name, journals = parse_trace_file_name(base_name(path)), _counterpart(traces, "traces", "journals")
    if name is None or journals is None or not disk.exists(journals):
        return None
    files = _run_beside(disk, journals, name.stem, name.run, traces)
    return files if files.segment_paths else None


def _counterpart(directory: str, here: str, there: str) -> str | None:
    """The directory of the same user on the other side of a state directory, or None where it is in none."""
    user = ""
    if base_name(directory).startswith(_USER_PREFIX):
        directory, _, name = directory.rpartition("/")
        user = f"/{name}"
    return f"{directory_name(directory)}/{there}{user}" if base_name(directory) == here else None


def state_directory_of(files: RunFiles) -> str | None:
    """The state directory that a run lies in, or None where it lies by itself."""
    traces = _counterpart(files.journals, "journals", "traces")
    if traces is None:
        return None
    return directory_name(directory_name(traces) if base_name(traces).startswith(_USER_PREFIX) else traces)


def _run_beside(disk: Disk, directory: str, stem: str, run: int, traces: str | None) -> RunFiles:
    paths = _segments_in(disk, directory, stem, run)
    return RunFiles(directory, stem, run, paths, None if traces is None else f"{traces}/{trace_file_name(stem, run)}")


def _segments_in(disk: Disk, directory: str, stem: str, run: int) -> list[str]:
    names = [parse_journal_file_name(name) for name in disk.list_directory(directory)]
    numbers = sorted(name.segment for name in names if name is not None and (name.stem, name.run) == (stem, run))
    return [f"{directory}/{journal_file_name(stem, run, number)}" for number in numbers]


def _directories(disk: Disk, base: str, found: Inventory) -> Iterator[tuple[str, list[str]]]:
    """A directory and those of other users below it, with the names in each."""
    names = _names_in(disk, base, found)
    users = sorted(name for name in names if name.startswith(_USER_PREFIX) and name[len(_USER_PREFIX) :].isdecimal())
    yield base, sorted(set(names) - set(users))
    for user in users:
        yield f"{base}/{user}", sorted(_names_in(disk, f"{base}/{user}", found))


def _names_in(disk: Disk, directory: str, found: Inventory) -> list[str]:
    try:
        return disk.list_directory(directory)
    except OSError as error:
        if disk.exists(directory):  # one that is missing holds nothing
            found.findings.append(unreadable(directory, error))
        return []


def unreadable(path: str, error: OSError) -> Finding:
    """A file or a directory that cannot be read."""
    return Finding("unreadable", path, 0, f"it cannot be read: {error.strerror or error}")


def runs_among(directory: str, names: list[str], traces: str | None, found: Inventory) -> Iterator[RunFiles]:
    """The runs whose segments are among some names; what is no segment is noted.

    Args:
        directory: that the names are in.
        names: of files.
        traces: the directory of the trace files, or None where there is none.
        found: takes what is no segment.
    """
    segments: dict[tuple[str, int], list[int]] = {}
    for name in names:
        parsed = parse_journal_file_name(name)
        if parsed is None:
            found.findings.append(Finding("foreign-file", f"{directory}/{name}", 0, "it is no journal of collectord's"))
        else:
            segments.setdefault((parsed.stem, parsed.run), []).append(parsed.segment)
    for (stem, run), numbers in sorted(segments.items()):
        paths = [f"{directory}/{journal_file_name(stem, run, number)}" for number in sorted(numbers)]
        trace = None if traces is None else f"{traces}/{trace_file_name(stem, run)}"
        yield RunFiles(directory, stem, run, paths, trace)


def _sort_traces(directory: str, names: list[str], known: set[str], found: Inventory) -> None:
    for name in names:
        path = f"{directory}/{name}"
        if path in known:
            continue
        if parse_trace_file_name(name) is not None:
            found.orphans.append(path)
        elif name.startswith(".") and name.endswith(TEMPORARY_SUFFIX):
            found.findings.append(Finding("temporary-file", path, 0, "an export that is being written, or was never finished"))
        else:
            found.findings.append(Finding("foreign-file", path, 0, "it is no trace file of collectord's"))


def _quarantine(disk: Disk, directory: str, found: Inventory) -> None:
    for name in sorted(_names_in(disk, directory, found)):
        if not name.endswith(".txt"):  # says why the file beside it was set aside
            found.findings.append(Finding("quarantined", f"{directory}/{name}", 0, "set aside by an earlier start"))
