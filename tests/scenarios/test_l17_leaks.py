"""Scenario L17: nothing outlives its run. With COLLECTORD_FULL=1 at the scenario's full numbers."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from collectord.limits import EXPORT_THREADS, JOURNAL_THREADS
from collectord.model import Outcome
from tests.process.client import RawClient, span_end, span_start
from tests.process.daemon import Daemon, running
from tests.scenarios.support import until

pytestmark = pytest.mark.process

FULL = os.environ.get("COLLECTORD_FULL") == "1"
LAPS, CYCLES = (5, 1_000) if FULL else (3, 200)
WARM_LAPS = 5 if FULL else 1
"""The allocator settles in some 5,000 cycles: 400 bytes a cycle at first, 4 at the end of that."""

SLOPE_MAX_BYTES = 100 if FULL else 1_000
"""A cycle: short laps cannot tell 100 bytes from the noise of pages, but they tell the 12 KB that the originals kept."""

AT_ONCE = 4


def cycle(daemon: Daemon, name: str) -> None:
    """Open, use, end."""
    with daemon.client() as client:
        client.open(name)
        client.send_events([span_start("x", {"k": "v"}), span_end(1)])
        assert client.end().outcome is Outcome.COMPLETED


def lap(daemon: Daemon, name: str, cycles: int) -> None:
    """Many cycles, a few at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda number: cycle(daemon, f"{name}-{number}"), range(cycles)):
            pass


def kept(client: RawClient) -> tuple[int, int, int]:
    """What the daemon has of runs, descriptors and tasks."""
    standing = client.status().daemon
    return standing["sessions_running"], standing["descriptors"], standing["tasks"]


def threads(daemon: Daemon) -> int:
    """How many threads the daemon has."""
    return len(list(Path(f"/proc/{daemon.pid}/task").iterdir()))


def slope(sizes: list[int]) -> float:
    """Bytes a cycle, from the first lap to the last."""
    return (sizes[-1] - sizes[0]) / ((len(sizes) - 1) * CYCLES)


def test_l17_a_run_leaves_nothing_behind_when_its_end_is_answered() -> None:
    with running() as daemon, daemon.client() as watcher:
        lap(daemon, "warm", 100)
        until(lambda: kept(watcher)[0] == 0)
        alone = kept(watcher)
        for number in range(100):
            until(lambda: kept(watcher) == alone, f"the cycle before left something: {kept(watcher)} instead of {alone}")
            with daemon.client() as client:
                before = kept(client)
                client.open(f"exact-{number}")
                client.send_events([span_start("x"), span_end(1)])
                assert kept(client)[2] == before[2] + 1, "the owner's task, and no other"
                assert client.end().outcome is Outcome.COMPLETED
                assert kept(client) == before, "exactly at the baseline when the end is answered"


@pytest.mark.bed
def test_l17_memory_and_threads_do_not_grow_by_the_run() -> None:
    with running() as daemon, daemon.client() as watcher:
        alone = kept(watcher)
        sizes = []
        for number in range(WARM_LAPS + LAPS):
            lap(daemon, f"lap-{number}", CYCLES)
            assert threads(daemon) <= 1 + JOURNAL_THREADS + EXPORT_THREADS
            sizes.append(watcher.status().daemon["memory_bytes"])
        until(lambda: kept(watcher) == alone, f"kept after all: {kept(watcher)} instead of {alone}")
        sizes = sizes[WARM_LAPS - 1 :]
        print(f"memory after each lap of {CYCLES}: {sizes}, {slope(sizes):.0f} bytes a cycle")
        assert slope(sizes) < SLOPE_MAX_BYTES, sizes
        if FULL:
            time.sleep(15)  # the scenario's: idle threads linger that long and no longer
            assert threads(daemon) == 1, "only the one that has the loop"
