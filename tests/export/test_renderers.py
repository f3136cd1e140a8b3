"""What may go wrong around renderers: they hang, cannot be started, are given nonsense, or stand in the wrong directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from collectord.daemon.renderers import RendererPool
from collectord.errors import DiskError
from collectord.export.request import RenderRequest
from collectord.export.worker import encode_request, frame, unframe
from collectord.journal.disk import RealDisk
from collectord.journal.format import HEAD_SIZE_BYTES
from collectord.journal.writer import JournalWriter
from collectord.session import records
from tests.export.journals import T0, facts
from tests.export.otlp import check_document

PATIENCE_S = 40.0


class Place:
    """A directory with a small journal, and documents to be rendered in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        writer = JournalWriter(RealDisk(), str(path), "s", 1, lambda: 9, lambda: T0)
        writer.create([records.opened(facts())])
        writer.close()
        self.segments = [(part.path, part.durable_offset) for part in writer.segments]

    def request(self, name: str = "out") -> RenderRequest:
        """One that is carried out at once."""
        return RenderRequest(self.segments, None, str(self.path / name), False)

    def held(self, name: str) -> RenderRequest:
        """One whose renderer hangs until ``release``: it is to write into a pipe that nobody reads, and then finds no record."""
        pipe = self.path / name
        os.mkfifo(pipe)
        return RenderRequest([(path, HEAD_SIZE_BYTES) for path, _ in self.segments], None, str(pipe), False)

    async def release(self, name: str) -> None:
        """Wait until a renderer hangs on it, and let go."""
        pipe = self.path / name
        # abandoned where nobody ever opens it, so that a renderer that never came fails the test instead of hanging it
        os.close(await trio.to_thread.run_sync(partial(os.open, pipe, os.O_RDONLY), abandon_on_cancel=True))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A small journal on the real disk."""
    return Place(tmp_path)


@asynccontextmanager
async def pool_of(place: Place, timeout_s: float = 600.0) -> AsyncIterator[RendererPool]:
    """A pool whose renderers have all been started."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            pool = RendererPool(timeout_s=timeout_s)
            await pool.start(nursery)
            async with trio.open_nursery() as warming:
                for name in ("first", "second"):
                    warming.start_soon(fails, pool, place.held(name))
                await place.release("first")
                await place.release("second")
            yield pool
            await pool.aclose()


async def fails(pool: RendererPool, request: RenderRequest, urgent: bool = True) -> None:
    """Order something that cannot be rendered."""
    with pytest.raises(DiskError) as failure:
        await pool.render(request, urgent)
    assert failure.value.code == "export-failed"


async def test_one_renderer_is_kept_free_for_the_ends_of_runs(place: Place) -> None:
    async with pool_of(place) as pool, trio.open_nursery() as orders:
        for name in ("patient-1", "patient-2"):
            orders.start_soon(partial(fails, pool, place.held(name), urgent=False))
            await trio.testing.wait_all_tasks_blocked()
        assert pool.statistics().waiting_patient == 1
        for _ in range(2):
            await pool.render(place.request(), urgent=True)
        assert pool.statistics().waiting_patient == 1
        for name in ("patient-1", "patient-2"):
            await place.release(name)


async def test_an_order_that_is_cancelled_while_it_is_rendered_leaves_no_file_and_a_pool_that_works(place: Place) -> None:
    async with pool_of(place) as pool:
        async with trio.open_nursery() as orders:
            orders.start_soon(pool.render, place.held("dropped"), True)
            await trio.testing.wait_all_tasks_blocked()
            orders.cancel_scope.cancel()
        await place.release("dropped")
        await pool.render(place.request(), urgent=True)
    assert (place.path / "out").exists()
    assert not (place.path / "dropped").exists()
    assert pool.statistics().replaced == 0


async def test_a_document_that_hangs_every_renderer_is_given_up_and_the_renderers_are_replaced(place: Place) -> None:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            pool = RendererPool(timeout_s=0.2)
            await pool.start(nursery)
            with pytest.raises(DiskError, match=r"did not answer within 0\.2 s"):
                await pool.render(place.held("hangs"), urgent=True)
            assert pool.statistics().replaced >= 2
            await pool.aclose()


async def test_renderers_that_cannot_be_started_fail_the_order_and_not_the_daemon(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            pool = RendererPool()
            with monkeypatch.context() as broken:
                broken.setattr(sys, "executable", "/nonexistent/python")
                await pool.start(nursery)
                for _ in range(2):
                    with pytest.raises(DiskError, match="no renderer can be started: No such file"):
                        await pool.render(place.request(), urgent=True)
                assert pool.statistics().processes == 0
                await trio.testing.wait_all_tasks_blocked()
            await pool.render(place.request(), urgent=True)
            await pool.aclose()


async def test_a_pool_that_is_closed_takes_no_orders_and_answers(place: Place) -> None:
    async with pool_of(place) as pool:
        pass
    with pytest.raises(DiskError, match="the renderer was stopped"):
        await pool.render(place.request(), urgent=False)
    assert pool.statistics().processes == 0


async def test_renderers_import_nothing_from_the_directory_they_are_started_in(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("msgpack.py", "orjson.py", "attrs.py", "collectord.py"):
        (place.path / name).write_text("raise SystemExit('imported from the working directory')")
    monkeypatch.chdir(place.path)
    async with pool_of(place) as pool:
        await pool.render(place.request(), urgent=True)
        assert pool.statistics().replaced == 0


# ---------------------------------------------------------------- the process itself


@contextmanager
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A renderer process; it must end by itself when its input ends."""
    process = subprocess.Popen([sys.executable, "-m", "collectord.export.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def ask(process: subprocess.Popen[bytes], request: bytes) -> tuple[bool, object, object]:
    """One frame in, one answer out."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(request)
    process.stdin.flush()
    size = int.from_bytes(process.stdout.read(4), "big")
    done, first, second = unframe(process.stdout.read(size))
    return done, first, second


def test_a_worker_answers_nonsense_and_goes_on(place: Place) -> None:
    good = encode_request(place.request())
    with worker() as process:
        for bad in (
            frame(None),
            frame([1, 2]),
            frame([[["/x", "y"]], None, "/dev/null", False]),
            frame([[], [99, b"", 0, 0, 0, 0], str(place.path / "o"), False]),
            (3).to_bytes(4, "big") + b"\xc1\xc1\xc1",
            (0).to_bytes(4, "big"),
            encode_request(RenderRequest([(str(place.path), 100)], None, str(place.path / "o"), False)),
        ):
            assert ask(process, bad)[0] is False
            assert ask(process, good)[0] is True
    check_document((place.path / "out").read_bytes())


def test_a_journal_that_is_shorter_than_it_was_is_rendered_as_damaged(place: Place) -> None:
    with worker() as process:
        request = RenderRequest([(place.segments[0][0], 10_000)], None, str(place.path / "out"), False)
        assert ask(process, encode_request(request))[0] is True
    raw = (place.path / "out").read_bytes()
    check_document(raw)
    assert b'"integrity":"damaged"' in raw.partition(b"\n")[0]


def test_a_worker_outlives_the_signals_that_end_the_daemon(place: Place) -> None:
    with worker() as process:
        ask(process, encode_request(place.request()))
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
            assert ask(process, encode_request(place.request()))[0] is True


def test_a_worker_writes_files_that_are_the_owners_alone_and_follows_no_link(place: Place) -> None:
    target = place.path / "target"
    target.write_text("kept")
    (place.path / "link").symlink_to(target)
    with worker() as process:
        done, why, _ = ask(process, encode_request(place.request("link")))
        assert not done
        assert "symbolic links" in str(why)
        assert ask(process, encode_request(place.request()))[0] is True
    assert target.read_text() == "kept"
    assert (place.path / "out").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_said_in_words(place: Place) -> None:
    with worker() as process:
        done, why, errno = ask(process, encode_request(RenderRequest(place.segments, None, "/dev/full", False)))
    assert (done, errno) == (False, 28)
    assert "No space left on device" in str(why)


async def test_what_speaks_of_the_daemon_alone_is_kept_from_the_renderers(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("KEPT", "yes")
    async with pool_of(place):
        environments = [path.read_bytes() for path in _renderers()]
    assert len(environments) == 2
    for environment in environments:
        assert b"KEPT=yes" in environment
        assert b"NOTIFY_SOCKET" not in environment
        assert b"LISTEN_FDS" not in environment


def _renderers() -> list[Path]:
    pids = [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    return [
        Path(f"/proc/{pid}/environ") for pid in pids if b"collectord.export.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
