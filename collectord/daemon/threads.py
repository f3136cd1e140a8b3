"""Calls that block, in threads: how many at once, and who waits for whom.

Owns the limiters. trio's default one is shared with everything and small; the journals have their own, so that a commit never
queues behind an export, and so that the number of threads is known.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar

import trio

from collectord.limits import EXPORT_THREADS, JOURNAL_THREADS

T = TypeVar("T")


class Threads(Protocol):
    """Where blocking calls run; the tests have one that runs them when they say so."""

    def slot(self) -> AbstractAsyncContextManager[None]:
        """A place among the journals' threads, held from before a decision until its call is done."""

    async def commit(self, call: Callable[[], T]) -> T:
        """Run a journal's call; only while holding a slot."""

    async def publish(self, call: Callable[[], T]) -> T:
        """Run a call about trace files and directories."""


class WorkerThreads:
    """trio's worker threads behind two limits.

    Cancellation: a call that has begun is always awaited to its end: what it does to a file happens in its turn or not at
    all. (An abandoned rename could land last.)
    """

    def __init__(self) -> None:
        self._slots = trio.CapacityLimiter(JOURNAL_THREADS)
        self._publishing = trio.CapacityLimiter(EXPORT_THREADS)
        self._unlimited = trio.CapacityLimiter(math.inf)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A place among the journals' threads.

        It is taken before the core is asked what to write, so that nothing can come between the decision and the call
        but the one tick in which the thread is started.
        """
        async with self._slots:
            yield

    async def commit(self, call: Callable[[], T]) -> T:
        """Run a journal's call in the slot that is held."""
        return await trio.to_thread.run_sync(call, limiter=self._unlimited)

    async def publish(self, call: Callable[[], T]) -> T:
        """Run a call about trace files and directories."""
        return await trio.to_thread.run_sync(call, limiter=self._publishing)


class DirectorySyncs:
    """Directory fsyncs, shared: one serves every rename that was completed before it began."""

    def __init__(self, threads: Threads, sync_directory: Callable[[str], None]) -> None:
        self._threads = threads
        self._sync_directory = sync_directory
        self._next: dict[str, _Round] = {}
        self._current: dict[str, _Round] = {}

    async def sync(self, path: str) -> None:
        """Return when a sync of the directory that began after this call has succeeded.

        Raises:
            OSError: that sync failed; each of those it was for is told.

        Durability: every entry made or renamed in the directory before the call is durable after it.
        """
        following = self._next.get(path)
        if following is None:
            following = self._next[path] = _Round()
            with trio.CancelScope(shield=True):  # others wait for this round: it is not given up for one of them
                await self._lead(path, following)
        else:
            await following.over.wait()
        if following.error is not None:
            raise OSError(following.error.errno, following.error.strerror, path)

    async def _lead(self, path: str, mine: _Round) -> None:
        running = self._current.get(path)
        if running is not None:
            await running.over.wait()
        self._current[path] = mine
        del self._next[path]
        try:
            await self._threads.publish(lambda: self._sync_directory(path))
        except OSError as error:
            mine.error = error
        finally:
            if self._current.get(path) is mine:
                del self._current[path]
            mine.over.set()


class _Round:
    """One fsync and those who wait for it."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.error: OSError | None = None
