"""Many lives: what an idle session costs, and what a finished one leaves behind."""

from __future__ import annotations

import resource
import time

from tests.benchmarks.machine import children, descriptors, memory_bytes, wait_until_quiet, wakeups
from tests.benchmarks.report import Figure
from tests.process.client import RawClient, span_end, span_start
from tests.process.daemon import Daemon, running

IDLE_SESSIONS = 5_000
GOAL_IDLE_BYTES = 20 << 10
CYCLES = 1_000
LAPS = 5
GOAL_SLOPE_BYTES = 100
WATCHED_S = 5.0


def main() -> list[Figure]:
    """Measure both."""
    return [*_idle(), *_cycles()]


def _idle() -> list[Figure]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = min(IDLE_SESSIONS, hard - 200, (hard - 200) // 3)
    with running() as daemon:
        wait_until_quiet(daemon.pid)
        before = memory_bytes(daemon.pid)
        clients: list[RawClient] = []
        for number in range(wanted):
            client = daemon.client()
            client.open(f"idle-{number}")
            clients.append(client)
        wait_until_quiet(daemon.pid)
        each = (memory_bytes(daemon.pid) - before) / wanted
        woken = wakeups(daemon.pid)
        time.sleep(WATCHED_S)
        per_second = (wakeups(daemon.pid) - woken) / WATCHED_S
        for client in clients:
            client.send_end(wait=False)
            client.close()
        wait_until_quiet(daemon.pid)
        _remove_files(daemon)
    return [
        Figure(f"{wanted:,} idle sessions", f"{each / 1_024:.1f} KiB each", "<= 20 KiB", each <= GOAL_IDLE_BYTES),
        Figure("  wake-ups when nothing happens", f"{per_second:.1f} a second", "0", per_second == 0),
    ]


def _cycles() -> list[Figure]:
    with running() as daemon, daemon.client() as watcher:

        def lap(number: int) -> float:
            began = time.monotonic()
            for cycle in range(CYCLES):
                with daemon.client() as client:
                    client.open(f"lap-{number}-{cycle}")
                    client.send_events([span_start("x"), span_end(1)])
                    client.end()
            return CYCLES / (time.monotonic() - began)

        lap(0)
        wait_until_quiet(daemon.pid)
        first = watcher.status().daemon
        memory, descriptors_before = memory_bytes(daemon.pid), descriptors(daemon.pid)
        rate = max(lap(number) for number in range(1, LAPS + 1))
        wait_until_quiet(daemon.pid)
        last = watcher.status().daemon
        slope = (memory_bytes(daemon.pid) - memory) / (CYCLES * LAPS)
        baseline = last["tasks"] == first["tasks"] and descriptors(daemon.pid) == descriptors_before
        renderers = len(children(daemon.pid))
        _remove_files(daemon)
    return [
        Figure(
            f"{LAPS} x {CYCLES:,} times open, use, end", f"{slope:.0f} B of memory each", f"< {GOAL_SLOPE_BYTES} B",
            slope < GOAL_SLOPE_BYTES, f"{rate:.0f} a second",
        ),
        Figure("  tasks and descriptors", "at the baseline" if baseline else "above it", "at the baseline", baseline,
               f"{renderers} renderers"),
    ]  # fmt: skip


def _remove_files(daemon: Daemon) -> None:
    """Thousands of trace files need not be checked one by one here."""
    for path in daemon.state_dir.glob("traces/**/*.json"):
        path.unlink()
