"""Keeps the reserve: it is given up by whoever must write on a full disk, and taken again when there is room.

Owns the timer of that. Nothing here runs while the reserve is held.
"""

from __future__ import annotations

import logging

import trio

from collectord.daemon.threads import Threads
from collectord.journal.reserve import Reserve
from collectord.limits import STALL_RETRY_MAX_S

_log = logging.getLogger(__name__)


class ReserveKeeper:
    """The keeper of one reserve.

    Args:
        reserve: to keep.
        threads: where it is taken.
    """

    def __init__(self, reserve: Reserve, threads: Threads) -> None:
        self.reserve = reserve
        self._threads = threads
        self._missed = trio.Event()

    def look(self) -> None:
        """After something was written: was it given up for that? Cheap."""
        if self.reserve.is_given_up and not self._missed.is_set():
            _log.warning("the disk is full: the reserve was given up so that ends of sessions can be recorded")
            self._missed.set()

    async def run(self) -> None:
        """Take it, and take it again whenever it was given up. Cancellation: at any point."""
        while True:
            while not await self._threads.publish(self.reserve.hold):  # noqa: ASYNC110 — nobody tells when a disk has room
                await trio.sleep(STALL_RETRY_MAX_S)
            if self._missed.is_set():
                _log.info("there is room again: the reserve is kept")
                self._missed = trio.Event()
            await self._missed.wait()
