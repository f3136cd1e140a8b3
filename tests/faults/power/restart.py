"""A start of the daemon without its process: the product's own revival and owners, every blocking call made where it stands.

The machine is said to have been restarted, so every run that was open is judged at once and brought to its end.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from collectord.daemon.deriver import OwedExports
from collectord.daemon.owner import RunOwner
from collectord.daemon.revival import Revivalist, Revived
from collectord.daemon.threads import DirectorySyncs
from collectord.daemon.workbench import Workbench
from collectord.errors import DiskError, RefusedError
from collectord.export.request import RenderRequest, RenderResult
from collectord.export.worker import carry_out
from collectord.journal.disk import RealDisk
from collectord.journal.recovery import Decision, Mending, recover_run
from collectord.journal.store import Store

T = TypeVar("T")

_PATIENCE_S = 20.0
_IN_ORDER = (Decision.NOTHING, Decision.REVIVE)
"""What is decided of a journal that was brought into order before."""


class _Here:
    """Threads and renderers that are not there: the calls are made in this one."""

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        yield

    async def commit(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return call()

    async def publish(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return call()

    async def render(self, request: RenderRequest, urgent: bool) -> RenderResult:
        await trio.lowlevel.checkpoint()
        try:
            return carry_out(request)
        except OSError as error:
            raise DiskError("export-failed", str(error)) from None


Key = tuple[str, int]


def restart(store: Store, told: Collection[Key], finished: Collection[Key]) -> list[str]:
    """Start on what is there, and bring every run to its end.

    Args:
        store: of the state directory.
        told: the runs that somebody was told of; others may be set aside.
        finished: those of them whose end was told: there is nothing to do with them, once or twice.

    Returns:
        What was wrong, in words.
    """
    return trio.run(_restart, store, told, finished)


async def _restart(store: Store, told: Collection[Key], finished: Collection[Key]) -> list[str]:
    disk, here = RealDisk(), _Here()
    directories = DirectorySyncs(here, disk.sync_directory)
    bench = Workbench(disk, store, here, directories, here, time.time_ns, lambda: secrets.randbits(32))
    revived: list[Revived] = []
    refused: list[str] = []
    owed = OwedExports()

    def refuse(uid: int, stem: str, run: int, error: RefusedError | None) -> None:
        if error is not None:
            refused.append(f"{stem} is refused: {error.message}")

    runs_before = {(run.stem, run.run) for run in store.runs_found()}
    revivalist = Revivalist(bench, owed, "another boot", revived.append, refuse)
    await revivalist.revive_all()
    found, was = refused, revivalist.told
    if was.damaged or was.left or owed.count:
        found.append(f"the start did not go well: {was}, {owed.count} documents owed")
    for stem, run in runs_before - {(run.stem, run.run) for run in store.runs_found()}:
        if (stem, run) in told:
            found.append(f"{stem}~{run} was set aside")
    found += _again(store, bench, _IN_ORDER, finished)
    async with trio.open_nursery() as owners:
        for one in revived:
            if not one.is_judged:
                found.append(f"{one.stem}: an agent of another boot is waited for")
            owner = RunOwner(one.core, one.stem, bench, lambda _: None, one.found)
            owners.start_soon(owner.run, None)
        owners.cancel_scope.deadline = trio.current_time() + _PATIENCE_S
    if owners.cancel_scope.cancelled_caught:
        found.append("some runs are not brought to their ends")
    return found + _again(store, bench, (Decision.NOTHING,), finished)


def _again(store: Store, bench: Workbench, decisions: tuple[Decision, ...], finished: Collection[Key]) -> list[str]:
    """What is in order must be left as it is."""
    found = []
    for run in [run for run in store.runs_found() if (run.stem, run.run) not in finished]:
        again = recover_run(bench.disk, store, run, bench.new_salt, bench.clock_ns)
        if again.decision not in decisions or again.mending is not Mending.NONE:
            found.append(f"{run.stem}~{run.run} was in order, and again: {again.decision.value}, {again.mending.value}")
    return found
