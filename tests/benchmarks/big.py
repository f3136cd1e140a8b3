"""Big sessions: how soon a crash of 52 MB is durable and shown, and whether others wait while such documents are rendered."""

from __future__ import annotations

import os
import shutil
import statistics
import threading
import time
from pathlib import Path

from collectord.export.request import RenderRequest
from collectord.export.worker import carry_out
from collectord.journal.format import HEAD_SIZE_BYTES, HEADER_SIZE_BYTES, decode_head, decode_header
from collectord.model import RecordType
from tests.benchmarks.load import big_session
from tests.benchmarks.report import Figure, milliseconds
from tests.process.client import RawClient, log, span_end, span_start
from tests.process.daemon import Daemon, running

EXPORTS_AT_ONCE = 3


def main() -> list[Figure]:
    """Measure all."""
    return [*_crash(), *_flush(), *_budgets()]


def _fill(client: RawClient) -> None:
    for batch in big_session():
        client.send_events(batch)
    client.wait_acknowledged()


def _crash() -> list[Figure]:
    with running() as daemon:
        client = daemon.client()
        client.open("big")
        _fill(client)
        journal = daemon.state_dir / "journals" / "big~1.0.journal"
        trace = daemon.trace_path("big")
        before, size = trace.stat().st_ino, journal.stat().st_size
        began = time.monotonic()
        with daemon.client() as other:
            request = other.send_crash("measured", session_id="big")
            while not _has_terminal(journal, size):
                time.sleep(0.001)
            _sync(journal)
            durable = time.monotonic() - began
            other.terminal(request)
            shown = time.monotonic() - began
        assert trace.stat().st_ino != before
        copying = _timed(lambda: _copy(trace))
        rendering = _timed(lambda: _render(journal))
        client.close()
    bound = 3 * copying + rendering
    return [
        Figure("crash of 52 MB: the record is in the journal", milliseconds(durable), "<= 50 ms", durable <= 0.05),
        Figure(
            "  the crashed file is in place", milliseconds(shown), "<= 3 x copying + rendering", shown <= bound,
            f"copying with fsync {milliseconds(copying)}, rendering alone {milliseconds(rendering)}",
        ),
    ]  # fmt: skip


def _has_terminal(path: Path, size: int) -> bool:
    """Whether the record that was written behind the first ``size`` bytes is a terminal one."""
    with path.open("rb") as file:
        head = decode_head(file.read(HEAD_SIZE_BYTES))
        file.seek(size)
        raw = file.read(HEADER_SIZE_BYTES)
    if head is None or len(raw) < HEADER_SIZE_BYTES:
        return False
    header = decode_header(raw, head.salt, size)
    return header is not None and header.type == RecordType.TERMINAL


def _sync(path: Path) -> None:
    """When our own fdatasync returns, the record that we have seen is durable, whoever was first."""
    fd = os.open(path, os.O_WRONLY)
    os.fdatasync(fd)
    os.close(fd)


def _timed(call: object) -> float:
    began = time.monotonic()
    call()  # type: ignore[operator]
    return time.monotonic() - began


def _copy(path: Path) -> None:
    target = path.with_suffix(".copy")
    shutil.copyfile(path, target)
    fd = os.open(target, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    target.unlink()


def _render(journal: Path) -> None:
    out = journal.with_suffix(".out")
    carry_out(RenderRequest([(str(journal), journal.stat().st_size)], None, str(out), False))
    out.unlink()


def _flush() -> list[Figure]:
    with running() as daemon, daemon.client() as small:
        small.open("small")
        alone = _flushes(small, 1.0)
        big = [daemon.client() for _ in range(EXPORTS_AT_ONCE)]
        for number, client in enumerate(big):
            client.open(f"big-{number}")
            _fill(client)
        exporting = [threading.Thread(target=_export, args=(client,)) for client in big]
        for thread in exporting:
            thread.start()
        beside: list[float] = []
        while any(thread.is_alive() for thread in exporting):
            beside += _flushes(small, 0.05)
        for thread in exporting:
            thread.join()
        for client in big:
            client.close()
        small.end()
    median, worst = statistics.median(beside), sorted(beside)[int(len(beside) * 0.99)]
    return [
        Figure(
            f"flush beside {EXPORTS_AT_ONCE} exports of 52 MB, median", milliseconds(median), "< 20 ms", median < 0.02,
            f"alone {milliseconds(statistics.median(alone))}; p99 {milliseconds(worst)}, {len(beside)} flushes",
        )
    ]  # fmt: skip


def _flushes(client: RawClient, seconds: float) -> list[float]:
    found = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        client.send_events([log("x")])
        found.append(_timed(client.flush))
    return found


def _export(client: RawClient) -> None:
    client.flush(export=True)


def _budgets() -> list[Figure]:
    with running() as daemon:
        tools = min(_tools(daemon, number) for number in range(3))
        ending = min(_ending(daemon, number) for number in range(3))
    return [
        Figure("1,000 tool events, durable", milliseconds(tools), "< 500 ms", tools < 0.5),
        Figure("ending a run with 1,000 open spans ended", milliseconds(ending), "< 200 ms", ending < 0.2),
    ]


def _tools(daemon: Daemon, number: int) -> float:
    with daemon.client() as client:
        client.open(f"tools-{number}")
        began = time.monotonic()
        for _ in range(500):
            first = client.sequence + 1
            client.send_events([span_start("execute_tool bash", {"n": first}), span_end(first)])
        client.wait_acknowledged()
        took = time.monotonic() - began
        client.end()
    return took


def _ending(daemon: Daemon, number: int) -> float:
    with daemon.client() as client:
        client.open(f"ending-{number}")
        client.send_events([span_start(f"span {n}") for n in range(1_000)])
        client.wait_acknowledged()
        began = time.monotonic()
        client.send_events([span_end(n) for n in range(1, 1_001)])
        client.end()
        return time.monotonic() - began
