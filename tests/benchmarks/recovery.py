"""A start over a thousand open journals of a megabyte: how long until it listens, until all are judged, in what memory?

Of the agents every other one is dead, which is judged at once, and the others live until the daemon listens and has judged
the dead. Beside it, the same with ten journals, and with ten that are sixteen times as long: a start holds no journal in
memory, only what an open run is remembered by.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from attrs import frozen

from tests.benchmarks.leftovers import leave_open
from tests.benchmarks.machine import memory_bytes
from tests.benchmarks.report import Figure, mebibytes, milliseconds
from tests.process.daemon import Daemon

FEW: Final = 10
MANY: Final = 1_000
SIZE_BYTES: Final = 1 << 20
LONGER: Final = 16
NOBODY: Final = 1 << 22
"""No process has this id: the kernel gives out none as high."""
POLL_S: Final = 0.1


@frozen
class Start:
    """One start over what was left.

    Attributes:
        listening_s: until clients can connect.
        dead_s: until those who died with the daemon are judged, and their trace files in place.
        others_s: from the death of the others until the same of them.
        peak_bytes: the most that the daemon had in memory.
    """

    listening_s: float
    dead_s: float
    others_s: float
    peak_bytes: int


def main() -> list[Figure]:
    """Measure the three starts."""
    few, longer, many = _start(FEW, SIZE_BYTES), _start(FEW, LONGER * SIZE_BYTES), _start(MANY, SIZE_BYTES)
    each = (many.peak_bytes - few.peak_bytes) / (MANY - FEW)
    journal = mebibytes(SIZE_BYTES)
    return [
        Figure(f"start over {MANY:,} open journals of {journal}: listening", milliseconds(many.listening_s),
               ratio=f"{milliseconds(many.listening_s / MANY)} each; {FEW} journals: {milliseconds(few.listening_s)}"),
        Figure(f"  {MANY // 2} dead agents judged, files in place", milliseconds(many.dead_s),
               ratio=f"{FEW} journals: {milliseconds(few.dead_s)}"),
        Figure(f"  {MANY // 2} others, from their death", milliseconds(many.others_s),
               ratio=f"{milliseconds(many.others_s / (MANY // 2))} each; {FEW // 2} others: {milliseconds(few.others_s)}"),
        Figure("  peak memory", mebibytes(many.peak_bytes), "one journal, not all", each < SIZE_BYTES / 8,
               f"{many.peak_bytes / few.peak_bytes:.1f} x that of {FEW} journals; {each / 1_024:.0f} KiB for each more"),
        Figure(f"  peak memory, {FEW} journals of {LONGER} MiB", mebibytes(longer.peak_bytes),
               "+ one journal", longer.peak_bytes - few.peak_bytes <= LONGER * SIZE_BYTES,
               f"{longer.peak_bytes / few.peak_bytes:.1f} x that of {FEW} journals of {journal}"),
    ]  # fmt: skip


def _start(journals: int, size_bytes: int) -> Start:
    with tempfile.TemporaryDirectory(prefix="cd-") as directory, subprocess.Popen(["sleep", "infinity"]) as agent:
        daemon = Daemon(Path(directory))
        try:
            leave_open(daemon.state_dir, [agent.pid if number % 2 else NOBODY for number in range(journals)], size_bytes)
            began = time.monotonic()
            daemon.start()
            listening = time.monotonic()
            _wait(daemon, journals // 2)
            judged = time.monotonic()
            agent.kill()
            _wait(daemon, 0)
            over = time.monotonic()
            peak = memory_bytes(daemon.pid, "VmHWM")
            files = len(list(daemon.state_dir.glob("traces/*.json")))
            assert files == journals, f"{files} trace files"
        finally:
            agent.kill()
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.stop()
    return Start(listening - began, judged - began, over - judged, peak)


def _wait(daemon: Daemon, running: int) -> None:
    """Until no more runs than that are not over."""
    with daemon.client() as client:
        while client.status().daemon["sessions_running"] > running:
            assert daemon.process is not None
            assert daemon.process.poll() is None
            time.sleep(POLL_S)
