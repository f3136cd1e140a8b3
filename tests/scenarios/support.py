"""What the scenarios share: big sessions, agents that can be killed, and waiting for something to be so."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.process.client import RawClient, span_end, span_start
from tests.process.daemon import Daemon

PATIENCE_S = 60.0
"""How long a test waits for something that must come; on a busy machine it comes late, and that is no failure."""

BIG_SPANS = 5_000
BIG_TEXT = "x" * 5_000


def until(found: Callable[[], Any], what: str = "it did not come to pass") -> Any:
    """Wait until a condition holds, looking often; returns what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while not (result := found()):
        if time.monotonic() > deadline:
            raise AssertionError(what)
        time.sleep(0.01)
    return result


def send_big(client: RawClient, spans: int = BIG_SPANS, text: str = BIG_TEXT) -> None:
    """Spans with two attributes of that text each, some 52 MB at full size, until all are acknowledged."""
    for _ in range(0, spans, 50):
        first = client.sequence + 1
        batch = []
        for number in range(50):
            batch.append(span_start(f"span {number}", {"input": text}))
            batch.append(span_end(first + 2 * number, {"output": text}))
        client.send_events(batch)
    client.wait_acknowledged()


def agent(daemon: Daemon, script: str, *arguments: str) -> subprocess.Popen[str]:
    """A process of its own that runs a script with ``client`` connected and hello said; it prints what it has reached."""
    code = (
        "import os, signal, sys, time\n"
        "from tests.process.client import *\n"
        f"client = RawClient({str(daemon.socket)!r}); client.hello()\n"
        "def reached(what):\n    print(what, flush=True)\n" + script
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )


def wait_for(process: subprocess.Popen[str], what: str) -> None:
    """Until an agent says that it has reached a point."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == what:
            return
    raise AssertionError(f"the agent ended before it reached {what!r}")


def finish(process: subprocess.Popen[str]) -> None:
    """Reap an agent and close what led to it."""
    process.wait(PATIENCE_S)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def slow(calls: str, delay_us: int) -> list[str]:
    """Words that make the kernel delay system calls of a daemon and its renderers; skips where strace does not work."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run(
        [strace, "-f", "-o", "/dev/null", "-e", "trace=fsync", "true"], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"strace does not work here: {probe.stderr.strip()[:200]}")
    return [
        strace, "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={calls}",
        "-e", f"inject={calls}:delay_enter={delay_us}",
    ]  # fmt: skip


def crashed_row(daemon: Daemon, session_id: str) -> dict[str, Any]:
    """The row of a session in `status`, once it has crashed and its file stands."""

    def look() -> dict[str, Any] | None:
        rows = [row for row in daemon.status().sessions if row["id"] == session_id]
        return rows[0] if rows and rows[0]["outcome"] == "crashed" and rows[0]["ended_at"] else None

    found: dict[str, Any] = until(look, f"{session_id} did not become crashed")
    return found
