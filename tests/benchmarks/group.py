"""Group commit: many busy sessions on one disk: how many syncs that takes, and how long an acknowledgement.

Syncs are counted in the journals: a group is what was written and synced together, and the flag of its first record says where it
begins. Beside it, in the same run: what the disk can do without a daemon, and what one session alone gets.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from attrs import frozen

from collectord.journal.disk import RealDisk
from collectord.journal.scan import FoundRecord, scan_segment
from collectord.limits import JOURNAL_THREADS
from collectord.model import RecordType
from tests.benchmarks.crowd import BATCH_EVENTS, batches
from tests.benchmarks.report import Figure, milliseconds
from tests.process.daemon import running

SESSIONS: Final = 200
SECONDS: Final = 6.0
AHEAD: Final = 16
"""Batches that a session sends without waiting, where it does not wait."""

_ROOT = Path(__file__).resolve().parents[2]


@frozen
class Load:
    """What came of a load, or of the disk alone."""

    seconds: float
    syncs: int
    latencies: list[float]

    @property
    def syncs_per_s(self) -> float:
        """How many fdatasync calls a second."""
        return self.syncs / self.seconds

    @property
    def batches_per_sync(self) -> float:
        """How many batches one fdatasync made durable."""
        return len(self.latencies) / self.syncs

    @property
    def events_per_s(self) -> float:
        """How many events a second were acknowledged."""
        return len(self.latencies) * BATCH_EVENTS / self.seconds

    @property
    def p50(self) -> float:
        """The median of the latencies."""
        return statistics.median(self.latencies)

    @property
    def p99(self) -> float:
        """Their 99th percentile."""
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]


def main() -> list[Figure]:
    """Measure; the disk first and last, since others may use it too: the better one counts."""
    disk = {threads: _disk(threads) for threads in (1, JOURNAL_THREADS)}
    alone = _load(1, 1)
    crowd = _load(SESSIONS, 1)
    flood = _load(SESSIONS, AHEAD)
    for threads, before in disk.items():
        disk[threads] = max(before, _disk(threads), key=lambda found: found.syncs_per_s)
    raw, most = disk[1], disk[JOURNAL_THREADS]
    return [
        Figure("fdatasync of a batch, no daemon, 1 thread", f"{raw.syncs_per_s:,.0f}/s",
               ratio=f"p50 {milliseconds(raw.p50)}, p99 {milliseconds(raw.p99)}"),
        Figure(f"  {JOURNAL_THREADS} threads, a file each", f"{most.syncs_per_s:,.0f}/s", ratio=_latency(most, raw, "1 thread")),
        Figure("1 session waits for each acknowledgement: fdatasync", f"{alone.syncs_per_s:,.0f}/s",
               ratio=f"{alone.syncs_per_s / raw.syncs_per_s:.2f} x the disk with 1 thread"),
        Figure("  acknowledgement p50, p99", _both(alone), ratio=_latency(alone, raw, "the bare call")),
        Figure(f"{SESSIONS} sessions wait for each: fdatasync", f"{crowd.syncs_per_s:,.0f}/s",
               ratio=f"{crowd.syncs_per_s / most.syncs_per_s:.2f} x the disk with {JOURNAL_THREADS} threads, {_grouped(crowd)}"),
        Figure("  acknowledgement p50, p99", _both(crowd), ratio=_latency(crowd, alone, "1 session")),
        Figure(f"{SESSIONS} sessions stay {AHEAD} batches ahead: fdatasync", f"{flood.syncs_per_s:,.0f}/s",
               ratio=f"{flood.syncs_per_s / most.syncs_per_s:.2f} x the disk with {JOURNAL_THREADS} threads, {_grouped(flood)}"),
        Figure("  acknowledgement p50, p99", _both(flood),
               ratio=f"{flood.events_per_s / crowd.events_per_s:.1f} x the events of those who wait, "
                     f"{flood.p50 / crowd.p50:.1f} x and {flood.p99 / crowd.p99:.1f} x their latency"),
    ]  # fmt: skip


def _both(load: Load) -> str:
    return f"{milliseconds(load.p50)}, {milliseconds(load.p99)}"


def _latency(load: Load, beside: Load, name: str) -> str:
    return f"{load.p50 / beside.p50:.1f} x and {load.p99 / beside.p99:.1f} x those of {name}"


def _grouped(load: Load) -> str:
    return f"{load.batches_per_sync:.2f} batches each, {load.events_per_s:,.0f} events/s"


def _disk(threads: int) -> Load:
    """Write and sync batches as a journal does, for a second: what can be had of the disk."""
    batch = batches(1)[0]
    with tempfile.TemporaryDirectory(prefix="cd-") as directory:

        def work(number: int) -> list[float]:
            found = []
            fd = os.open(os.path.join(directory, str(number)), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            deadline = time.perf_counter() + 1.0
            while (began := time.perf_counter()) < deadline:
                os.write(fd, batch)
                os.fdatasync(fd)
                found.append(time.perf_counter() - began)
            os.close(fd)
            return found

        with ThreadPoolExecutor(threads) as pool:
            began = time.perf_counter()
            latencies = [latency for found in pool.map(work, range(threads)) for latency in found]
            return Load(time.perf_counter() - began, len(latencies), latencies)


def _load(sessions: int, window: int) -> Load:
    with running() as daemon:
        command = [sys.executable, "-m", "tests.benchmarks.crowd", str(daemon.socket), str(sessions), str(SECONDS), str(window)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as crowd:
            assert crowd.stdin is not None
            assert crowd.stdout is not None
            assert crowd.stdout.readline() == "ready\n"
            crowd.stdin.write("go\n")
            crowd.stdin.flush()
            found = json.loads(crowd.stdout.readline())
            syncs = _groups_of_events(daemon.state_dir / "journals")
            crowd.stdin.write("end\n")
        assert crowd.returncode == 0
        daemon.stop()
        for path in daemon.state_dir.glob("traces/**/*.json"):
            path.unlink()  # hundreds of trace files need not be checked one by one here
    return Load(found["seconds"], syncs, found["latencies"])


def _groups_of_events(journals: Path) -> int:
    """How many groups with events were written and synced: those of opening and ending are not part of the load."""
    disk, groups = RealDisk(), 0
    for path in map(str, journals.glob("*.journal")):
        is_counted = False
        for found in scan_segment(lambda offset, length, path=path: disk.read(path, offset, length), disk.size(path)):  # type: ignore[misc]
            if isinstance(found, FoundRecord):
                is_counted = is_counted and not found.begins_group
                if found.record.type is RecordType.EVENTS and not is_counted:
                    groups += 1
                    is_counted = True
    return groups
