"""Trace files of runs that have no owner: derived from their journals, at a start and where an export had failed.

Owns the rename of a file whose run is over: no owner exists that could do it, and each run is derived by one task at a time.
Also keeps the list of what is owed: a disk that took no trace file when a run ended is tried again by timer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from collectord.daemon.workbench import Workbench
from collectord.errors import CollectordError
from collectord.export.request import RenderRequest
from collectord.journal.disk import Disk
from collectord.journal.finished import read_first_line
from collectord.limits import EXPORT_RETRY_FIRST_S, EXPORT_RETRY_MAX_S, EXPORTS_OWED_MAX
from collectord.model import Outcome

_log = logging.getLogger(__name__)

_NUMBER = 0
"""Of the temporary file: nothing else of the run is being rendered."""

RunName = tuple[int, str, int]
"""Whose run, its file name stem, and its number."""


async def derive(bench: Workbench, run: RunName, segments: list[tuple[str, int]]) -> None:
    """Render the trace file of a run that is over, and put it under its name.

    Args:
        bench: to work with.
        run: which.
        segments: path and durable size of each part of its journal.

    Raises:
        CollectordError: it could not be rendered.
        OSError: it could not be renamed, or its directory not be synced. Tried again, a file that was renamed stays.

    Durability: the file and its name are durable when this returns.
    """
    uid, stem, number = run
    path = bench.store.trace_path(uid, stem, number)
    if await bench.threads.publish(lambda: _is_finished(bench.disk, path)):
        await bench.directories.sync(bench.store.trace_directory(uid))  # it was renamed, and only then something failed
        return
    out = bench.store.temporary_path(uid, stem, number, _NUMBER)
    await bench.renderer.render(RenderRequest(segments=segments, terminal=None, out=out, sync=True), urgent=True)
    await bench.threads.publish(lambda: bench.disk.rename(out, path))
    await bench.directories.sync(bench.store.trace_directory(uid))


def _is_finished(disk: Disk, path: str) -> bool:
    """Whether the file says that it is final: then somebody may have read it, and it never changes."""
    told = read_first_line(disk, path) if disk.exists(path) else None
    return told is not None and told.get("outcome") not in (None, Outcome.RUNNING.value)


class OwedExports:
    """The trace files that are still to be written. One task works them off, by timer while the disk does not take them."""

    def __init__(self) -> None:
        self._owed: dict[RunName, Callable[[], Awaitable[None]]] = {}
        self._more = trio.Event()

    @property
    def count(self) -> int:
        """How many are owed."""
        return len(self._owed)

    def owe(self, run: RunName, attempt: Callable[[], Awaitable[None]]) -> None:
        """Remember one. ``attempt`` raises ``OSError`` or ``CollectordError`` as long as it does not succeed."""
        if len(self._owed) < EXPORTS_OWED_MAX:
            self._owed[run] = attempt
            self._more.set()
        else:
            _log.error("%s~%d: its trace file is left to the next start: too many are owed", run[1], run[2])

    async def run(self) -> None:
        """Work until cancelled. Sleeps while nothing is owed."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            pause = EXPORT_RETRY_FIRST_S
            while self._owed:
                await trio.sleep(pause)
                pause = EXPORT_RETRY_FIRST_S if await self._try_all() else min(2 * pause, EXPORT_RETRY_MAX_S)

    async def _try_all(self) -> bool:
        """Try each once; returns whether one succeeded. The first that fails ends the round: the disk is the same for all."""
        succeeded = False
        for run, attempt in list(self._owed.items()):
            try:
                await attempt()
            except (OSError, CollectordError) as error:
                _log.warning("%s~%d: what is owed cannot be done yet: %s", run[1], run[2], error)
                self._owed[run] = self._owed.pop(run)  # behind the others: it may be its own fault
                return succeeded
            del self._owed[run]
            succeeded = True
            _log.info("%s~%d: what was owed is done", run[1], run[2])
        return succeeded
