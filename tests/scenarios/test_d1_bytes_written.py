"""Scenario D1: what a session costs the disk, over 2,000 events within 20 s, steady and in bursts.

Counted are the bytes that the daemon and its renderers hand to write(2) and its kin (``wchar`` of /proc/PID/io): journal, running
documents and the final one together, on whatever file system. The trace file itself is watched beside that: every document that
ever had its name, and when.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attrs import Factory, define

from collectord.limits import EXPORT_RATE_BYTES_PER_S
from collectord.model import Outcome
from tests.export.otlp import spans_of
from tests.process.client import RawClient, span_end, span_start
from tests.process.daemon import Daemon, running

pytestmark = pytest.mark.process

SIZE_BYTES = 700
"""Of the one attribute of each event."""


@define
class Cost:
    """What one session cost.

    Attributes:
        final: size of the trace file.
        streaming: bytes written while events came.
        total: with the end.
        documents: ``(when, size)`` of every document that had the trace file's name.
    """

    final: int = 0
    streaming: int = 0
    total: int = 0
    documents: list[tuple[float, int]] = Factory(list)

    @property
    def ratio(self) -> float:
        return self.total / self.final


def written(daemon: Daemon) -> int:
    """Bytes so far, of the daemon and its renderers (which live as long as it does)."""
    tasks = Path(f"/proc/{daemon.pid}/task").glob("*/children")
    pids = [daemon.pid, *(int(child) for path in tasks for child in path.read_text().split())]
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/io").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def _watch(path: Path, cost: Cost, over: threading.Event) -> None:
    inode = 0
    while not over.wait(0.005):
        found = path.stat()
        if found.st_ino != inode:
            inode = found.st_ino
            cost.documents.append((time.monotonic(), found.st_size))


def _send(client: RawClient, events: int) -> None:
    first = client.sequence + 1
    batch = []
    for number in range(0, events, 2):
        batch.append(span_start("execute_tool bash", {"input": "x" * SIZE_BYTES}))
        batch.append(span_end(first + number, {"output": "y" * SIZE_BYTES}))
    client.send_events(batch)


def measured(batches: int, events: int, seconds: float) -> Cost:
    """A session of its own daemon that sends its events in so many batches, evenly over the time."""
    cost, over = Cost(), threading.Event()
    with running() as daemon, daemon.client() as client:
        path = Path(client.open("d1").path)
        before = written(daemon)
        watcher = threading.Thread(target=_watch, args=(path, cost, over))
        watcher.start()
        try:
            began = time.monotonic()
            for number in range(1, batches + 1):
                _send(client, events // batches)
                time.sleep(max(0.0, began + number * seconds / batches - time.monotonic()))  # the scenario's pace
            client.wait_acknowledged()
            cost.streaming = written(daemon) - before
        finally:
            over.set()
            watcher.join()
        assert client.end().outcome is Outcome.COMPLETED
        cost.total, cost.final = written(daemon) - before, path.stat().st_size
        assert len(spans_of(daemon.trace("d1"))) == events // 2
    return cost


@pytest.mark.parametrize(
    ("events", "seconds", "steadily", "bursts"),
    [(600, 6, 60, 3), pytest.param(2_000, 20, 200, 10, marks=pytest.mark.bed)],
    ids=["6 s", "20 s, as the scenario says"],
)
def test_d1_a_session_costs_a_small_multiple_of_its_final_file_and_no_more_than_1_mib_a_second(
    events: int, seconds: int, steadily: int, bursts: int
) -> None:
    with ThreadPoolExecutor(2) as pool:
        costs = pool.map(lambda batches: measured(batches, events, seconds), (steadily, bursts))
    for name, most, cost in zip(("steady", "bursts"), (4, 8), costs, strict=True):
        print(f"{name}: {cost.total} bytes for a file of {cost.final}: {cost.ratio:.1f} times, {len(cost.documents)} documents")
        assert cost.streaming / seconds < EXPORT_RATE_BYTES_PER_S
        for (earlier, _), (later, size) in zip(cost.documents, cost.documents[1:], strict=False):
            assert size < (later - earlier + 0.5) * EXPORT_RATE_BYTES_PER_S
        assert cost.ratio <= most
        assert len(cost.documents) >= 3, "and the file followed"
