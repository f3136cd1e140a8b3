"""The renderer processes: urgent orders first, one kept free, replaced when they die, gone when they are not needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from collectord.daemon.renderers import RendererPool
from collectord.errors import DiskError
from collectord.export.request import RenderRequest
from collectord.export.worker import encode_request
from collectord.journal.disk import RealDisk
from collectord.journal.writer import JournalWriter
from collectord.model import Outcome
from collectord.session import records
from tests.export.journals import T0, facts
from tests.export.otlp import check_document


@pytest.fixture
def segments(tmp_path: Path) -> list[tuple[str, int]]:
    """A small journal on the real disk."""
    writer = JournalWriter(RealDisk(), str(tmp_path), "s", 1, lambda: 9, lambda: T0)
    writer.create([records.opened(facts())])
    writer.close()
    return [(part.path, part.durable_offset) for part in writer.segments]


def children() -> set[int]:
    """The renderers there are."""
    raw = [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    found = set()
    for pid in map(int, raw):
        try:
            if b"collectord.export.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
        except OSError:
            continue
    return found


async def test_documents_are_rendered_and_faults_are_told(tmp_path: Path, segments: list[tuple[str, int]]) -> None:
    async with trio.open_nursery() as nursery:
        pool = RendererPool()
        await pool.start(nursery)
        terminal = records.ended(Outcome.COMPLETED, T0 + 5, None, None)
        for number, wanted in enumerate((None, terminal)):
            out = str(tmp_path / f"out{number}")
            result = await pool.render(RenderRequest(segments, wanted, out, True), urgent=bool(number))
            raw = Path(out).read_bytes()
            assert len(raw) == result.size_bytes
            assert check_document(raw)["session"]["outcome"] == ("completed" if wanted else "running")
        for request in (
            RenderRequest([("/nonexistent", 10)], None, str(tmp_path / "o"), False),
            RenderRequest(segments, None, str(tmp_path / "no" / "dir"), False),
            RenderRequest([(segments[0][0], 32)], None, str(tmp_path / "o"), False),
        ):
            with pytest.raises(DiskError) as failure:
                await pool.render(request, urgent=True)
            assert failure.value.code == "export-failed"
        await pool.aclose()
    assert children() == set()


async def test_a_renderer_that_dies_is_replaced_and_its_order_carried_out(
    tmp_path: Path, segments: list[tuple[str, int]]
) -> None:
    async with trio.open_nursery() as nursery:
        pool = RendererPool()
        await pool.start(nursery)
        out = str(tmp_path / "out")
        await pool.render(RenderRequest(segments, None, out, False), urgent=True)
        for _ in range(3):
            for pid in children():
                os.kill(pid, signal.SIGKILL)
            result = await pool.render(RenderRequest(segments, None, out, False), urgent=True)
            assert result.size_bytes == Path(out).stat().st_size
        assert pool.replaced >= 1
        await pool.aclose()
    assert children() == set()


async def test_an_order_that_nobody_waits_for_any_more_leaves_the_pool_usable(
    tmp_path: Path, segments: list[tuple[str, int]]
) -> None:
    async with trio.open_nursery() as nursery:
        pool = RendererPool()
        await pool.start(nursery)
        for number in range(5):
            with trio.CancelScope() as scope:
                scope.cancel()
                await pool.render(RenderRequest(segments, None, str(tmp_path / f"dropped{number}"), False), urgent=False)
        out = str(tmp_path / "out")
        await pool.render(RenderRequest(segments, None, out, False), urgent=False)
        assert Path(out).exists()
        await pool.aclose()
    assert not list(tmp_path.glob("dropped*"))


async def test_many_orders_are_all_carried_out(tmp_path: Path, segments: list[tuple[str, int]]) -> None:
    async with trio.open_nursery() as nursery:
        pool = RendererPool()
        await pool.start(nursery)

        async def one(number: int) -> None:
            out = str(tmp_path / f"out{number}")
            await pool.render(RenderRequest(segments, None, out, False), urgent=number % 3 == 0)

        async with trio.open_nursery() as orders:
            for number in range(40):
                orders.start_soon(one, number)
        assert len(list(tmp_path.glob("out*"))) == 40
        await pool.aclose()


def test_an_order_of_a_daemon_that_is_gone_is_not_carried_out(tmp_path: Path, segments: list[tuple[str, int]]) -> None:
    """Its temporary file has the name that the next daemon may just be writing to."""
    orders_from, orders_to = os.pipe()
    answers_from, answers_to = os.pipe()
    start = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-m', 'collectord.export.worker'], stdin=int(sys.argv[1]), stdout=int(sys.argv[2]))\n"
        "sys.stdin.readline()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", start, str(orders_from), str(answers_to)],
        stdin=subprocess.PIPE, pass_fds=(orders_from, answers_to),
    )  # fmt: skip
    os.close(orders_from)
    os.close(answers_to)
    with open(orders_to, "wb", 0) as orders, open(answers_from, "rb", 0) as answers:
        orders.write(encode_request(RenderRequest(segments, None, str(tmp_path / "first"), False)))
        assert answers.read(4)
        assert (tmp_path / "first").exists()
        parent.communicate(b"\n")
        orders.write(encode_request(RenderRequest(segments, None, str(tmp_path / "second"), False)))
        orders.close()
        while answers.read(4096):
            pass  # the rest of the first answer, and then the end
    assert not (tmp_path / "second").exists()
