"""Ingest: one agent sends as fast as it can; how many events a second are acknowledged, which means durable?

Beside it, the same bytes through the same kind of socket into a plain file, by `socat`: what the machine can do at all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.machine import cpu_seconds, memory_bytes
from tests.benchmarks.report import Figure, mebibytes
from tests.process.daemon import running

EVENTS = 1_000_000
ROUNDS = 3
GOAL_EVENTS_PER_S = 300_000

_ROOT = Path(__file__).resolve().parents[2]
_COPY = """
import socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen(1)
connection, _ = listening.accept()
with open(sys.argv[2], "wb", buffering=0) as file:
    while chunk := connection.recv(1 << 16):
        file.write(chunk)
"""


def main() -> list[Figure]:
    """Measure; of the rounds the best one counts, since whatever else runs here can only slow us down."""
    rounds = [_collect() for _ in range(ROUNDS)]
    best = max(rounds, key=lambda found: float(found["events"] / found["seconds"]))
    rate = best["events"] / best["seconds"]
    name, sink_seconds = min((_sink() for _ in range(ROUNDS)), key=lambda found: found[1])
    size = best["bytes"] / best["events"]
    spread = ", ".join(f"{found['events'] / found['seconds'] / 1e3:.0f}" for found in rounds)
    return [
        Figure(
            f"ingest, one client, {size:.0f} B an event, acknowledged durable",
            f"{rate:,.0f} events/s",
            f">= {GOAL_EVENTS_PER_S:,}",
            rate >= GOAL_EVENTS_PER_S,
            f"{best['seconds'] / sink_seconds:.1f} x the time of {name} ({best['bytes'] / sink_seconds / 1e6:.0f} MB/s)",
        ),
        Figure("  rounds", f"{spread} thousand/s", ratio=f"daemon {best['cpu'] / best['events'] * 1e6:.2f} µs CPU an event"),
        Figure("  daemon's peak memory", mebibytes(best["peak"]), ratio=f"for {mebibytes(best['bytes'])} of events"),
    ]


def _collect() -> dict[str, Any]:
    with running() as daemon:
        used = cpu_seconds(daemon.pid)
        found = _send(daemon.socket)
        return {**found, "peak": memory_bytes(daemon.pid, "VmHWM"), "cpu": cpu_seconds(daemon.pid) - used}


def _sink() -> tuple[str, float]:
    """The same bytes to a file; the name of what wrote them, and the seconds until it had, without any sync."""
    with tempfile.TemporaryDirectory(prefix="cd-") as directory:
        path, file = Path(directory) / "s", Path(directory) / "file"
        socat = shutil.which("socat")
        if socat is not None:
            name, command = "socat", [socat, "-u", f"UNIX-LISTEN:{path}", f"CREATE:{file}"]
        else:
            name, command = "a copy loop in Python (no socat here)", [sys.executable, "-c", _COPY, str(path), str(file)]
        with subprocess.Popen(command) as process:
            while not path.exists():
                assert process.poll() is None
                time.sleep(0.01)
            found = _send(path, "--sink")
        assert os.path.getsize(file) == found["bytes"]
        return name, found["seconds"]


def _send(path: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.sender", str(path), str(EVENTS), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as sender:
        assert sender.stdout is not None
        assert sender.stdin is not None
        assert sender.stdout.readline() == "ready\n"
        sender.stdin.write("go\n")
        sender.stdin.flush()
        found: dict[str, Any] = json.loads(sender.stdout.readline())
    return found
