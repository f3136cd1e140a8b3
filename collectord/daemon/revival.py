"""What is done at start with the runs that an earlier collector left: before anybody can connect.

Owns the performing: ``journal.recovery`` decides and mends the journal, the renderers derive the file, the rename is made here,
where no owner exists yet. (Resume of open runs is the next step: for now an open run becomes crashed, reason
`collector-restarted`.)
"""

from __future__ import annotations

import logging
from functools import partial

from collectord.daemon.owner import Workbench
from collectord.errors import CollectordError
from collectord.export.request import RenderRequest
from collectord.journal.recovery import Decision, recover_run
from collectord.journal.store import RunFound
from collectord.journal.writer import JournalWriter, LeftOpen
from collectord.model import CrashReason, Verdict
from collectord.session import records

_log = logging.getLogger(__name__)

_NUMBER = 0
"""Of the temporary file: nothing else of the run is being rendered."""


async def derive_open_runs(bench: Workbench) -> None:
    """Bring every run that is found to its end, one after the other.

    A run whose files cannot be mended is reported and left as it is: the others are not its concern, and neither is the
    start of the daemon.

    Durability: a derived file and its directory are synced before the next run is looked at.
    """
    found = await bench.threads.publish(lambda: list(bench.store.runs_found()))
    for run in found:
        try:
            await _bring_to_its_end(bench, run)
        except (OSError, CollectordError) as error:
            _log.error("%s~%d could not be recovered: %s", run.stem, run.run, error)


async def _bring_to_its_end(bench: Workbench, run: RunFound) -> None:
    recovered = await bench.threads.publish(lambda: recover_run(bench.disk, bench.store, run, bench.new_salt, bench.clock_ns))
    if recovered.left is None:
        return
    if recovered.decision is Decision.REVIVE:
        await bench.threads.publish(partial(_end_as_crashed, bench, run, recovered.left))
    _log.info("%s~%d: %s", run.stem, run.run, recovered.decision.value)
    out = bench.store.temporary_path(run.uid, run.stem, run.run, _NUMBER)
    segments = bench.store.segments_of(run.uid, run.stem, run.run)
    sizes = [(path, bench.disk.size(path)) for path in segments]
    await bench.renderer.render(RenderRequest(segments=sizes, terminal=None, out=out, sync=True), urgent=True)
    path = bench.store.trace_path(run.uid, run.stem, run.run)
    await bench.threads.publish(lambda: bench.disk.rename(out, path))
    await bench.directories.sync(bench.store.trace_directory(run.uid))


def _end_as_crashed(bench: Workbench, run: RunFound, left: LeftOpen) -> None:
    directory = bench.store.journal_directory(run.uid)
    writer = JournalWriter(bench.disk, directory, run.stem, run.run, bench.new_salt, bench.clock_ns)
    writer.go_on(left)
    verdict = Verdict(CrashReason.COLLECTOR_RESTARTED, "the collector was restarted while the session ran")
    writer.append([records.crashed(bench.clock_ns(), verdict, None)])
    writer.close()
