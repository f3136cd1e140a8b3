"""A disk that fills up under a live daemon, and has room again: a tmpfs of a fixed size, filled by somebody else.

What the daemon says while it is full is held against what is there afterwards: nothing acknowledged is lost, and
it goes on by itself, without another event to remind it.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from collectord.journal.disk import RealDisk
from collectord.journal.reader import JournalReader
from collectord.limits import PENDING_MAX_BYTES
from collectord.model import RecordType
from collectord.session.records import unpack
from collectord.wire import messages
from tests.export.otlp import check_document, logs_of
from tests.faults import figures
from tests.faults.power.volumes import mount, remount, unmount
from tests.process.client import RawClient, Refused, log
from tests.process.daemon import Daemon
from tests.scenarios.support import until

BED = "full tmpfs under a live daemon"
MIB = 1 << 20
TEXT = "x" * 20_000
"""In each event, so that none fits into the rest of a page that the journal has already."""

pytestmark = [
    pytest.mark.bed,
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts a tmpfs"),
]


class SmallDisk:
    """A tmpfs, and what others put on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all the room that there is, or all but some."""
        fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for size in (MIB, 4096):
                try:
                    while True:
                        os.write(fd, bytes(size))
                except OSError:
                    pass  # full
            os.ftruncate(fd, os.fstat(fd).st_size - leave_bytes)
        finally:
            os.close(fd)

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink()

    def resize(self, size_bytes: int, options: str = "") -> None:
        """The disk gets larger or smaller."""
        remount(str(self.path), "tmpfs", f"size={size_bytes}{options}")

    @property
    def used_bytes(self) -> int:
        """By everybody."""
        found = os.statvfs(self.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize


@contextmanager
def small_disk(path: Path, size_mib: int = 64, options: str = "") -> Iterator[SmallDisk]:
    """A tmpfs for the length of a block."""
    path.mkdir()
    try:
        mount("tmpfs", str(path), "tmpfs", f"size={size_mib}m{options}")
    except OSError as error:
        pytest.skip(f"no tmpfs can be mounted: {error.strerror}")
    try:
        yield SmallDisk(path)
    finally:
        unmount(str(path))


@contextmanager
def daemon_on(disk: SmallDisk, directory: Path, *options: str) -> Iterator[Daemon]:
    """A daemon whose state is on that disk, and its reserve held. Every trace file that is there at the end is checked."""
    daemon = Daemon(directory, (), None, *options)
    daemon.state_dir = disk.path / "state"
    daemon.start()
    try:
        until((daemon.state_dir / "reserve").exists, "no reserve is held")
        yield daemon
        for path in sorted(daemon.state_dir.glob("traces/**/*.json")):
            check_document(path.read_bytes())
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.stop(signal.SIGKILL)


def opened(daemon: Daemon, session_id: str) -> RawClient:
    """A session with a few acknowledged events."""
    client = daemon.client()
    client.open(session_id)
    send(client, 3)
    client.wait_acknowledged()
    return client


def send(client: RawClient, count: int) -> None:
    """Events that say which they are."""
    client.send_events([log(f"{client.sequence + 1 + number} {TEXT}") for number in range(count)])


def hear_stalled(client: RawClient) -> messages.Stalled:
    """The next thing that is pushed, which must be that."""
    told = client.pushed.pop(0) if client.pushed else client.receive()
    assert isinstance(told, messages.Stalled), told
    return told


def hears_nothing(client: RawClient) -> bool:
    """Whether nothing has come that was not read."""
    client.socket.setblocking(False)
    try:
        return not client.socket.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        client.socket.settimeout(60.0)


def check_stored(daemon: Daemon, name: str, count: int) -> None:
    """The trace file has these events, each once and in order."""
    document = daemon.trace(name)
    told = [record["body"]["stringValue"].split(" ")[0] for record in logs_of(document)]
    figures.record(BED, "acknowledged events lost", len({str(n) for n in range(1, count + 1)} - set(told)))
    figures.record(BED, "duplicates", len(told) - len(set(told)))
    assert told == [str(number) for number in range(1, count + 1)]
    figures.record(BED, "events looked for", count)


@pytest.mark.parametrize("how", ["filled by others", "made smaller"])
def test_d7_a_full_disk_is_told_and_shown_and_freed_it_goes_on_by_itself(how: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, daemon_on(disk, tmp_path) as daemon:
        with opened(daemon, "full") as client, opened(daemon, "idle"):
            if how == "filled by others":
                disk.fill()
            else:
                disk.resize(disk.used_bytes)
            figures.record(BED, "times full", 1)
            send(client, 2)
            told = hear_stalled(client)
            assert told.code == "disk-failed"
            assert "space" in told.message
            row = daemon.session("full")
            assert row["outcome"] == "running"
            assert "space" in row["stalled"]
            assert daemon.session("idle")["stalled"] is None
            assert daemon.status().daemon["stalled"] == 1
            first_retry = daemon.said().count("is stalled")
            until(lambda: daemon.said().count("is stalled") > first_retry, "it was not tried again")
            assert hears_nothing(client), "an acknowledgement, or told twice"
            assert client.acknowledged == 3
            disk.free() if how == "filled by others" else disk.resize(64 * MIB)
            client.wait_acknowledged()  # nothing is sent: the timer does it
            assert client.acknowledged == 5
            assert daemon.session("full")["stalled"] is None
            send(client, 1)
            assert client.end().outcome.value == "completed"
        check_stored(daemon, "full", 6)


def test_d7_a_client_that_goes_on_while_the_disk_is_full_is_held_up_and_the_memory_is_bounded(tmp_path: Path) -> None:
    frames = 60
    with small_disk(tmp_path / "disk", 256) as disk, daemon_on(disk, tmp_path) as daemon:
        with opened(daemon, "pushing") as client:
            disk.fill()
            before = daemon.status().daemon["memory_bytes"]
            sent = 0

            def push() -> None:
                nonlocal sent
                for _ in range(frames):
                    send(client, 50)  # 1 MB
                    sent += 1

            pushing = threading.Thread(target=push, daemon=True)
            pushing.start()
            hear_stalled(client)
            retries = daemon.said().count("is stalled")
            until(lambda: daemon.said().count("is stalled") > retries + 1, "it was not tried again")
            assert sent < frames, "nobody held the client up"
            assert sent * MIB < PENDING_MAX_BYTES * 2 + 4 * MIB
            grown = daemon.status().daemon["memory_bytes"] - before
            assert grown < 4 * PENDING_MAX_BYTES, f"{grown} bytes more"
            assert client.acknowledged == 3
            disk.free()
            pushing.join(60)
            assert not pushing.is_alive()
            client.wait_acknowledged()
            assert client.end().outcome.value == "completed"
        check_stored(daemon, "pushing", 3 + 50 * frames)


def test_d7_a_daemon_that_is_killed_while_the_disk_is_full_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, daemon_on(disk, tmp_path) as daemon:
        with opened(daemon, "killed") as client:
            for _ in range(10):
                send(client, 2)
                client.wait_acknowledged()
            disk.fill()
            send(client, 2)
            hear_stalled(client)
            daemon.stop(signal.SIGKILL)
            assert client.acknowledged == 23
        daemon.start()
        disk.free()
        daemon.stop()
        daemon.start()
        with daemon.client() as other:
            assert other.crash("nobody comes back", session_id="killed").outcome.value == "crashed"
        stored = stored_of(daemon, "killed")
        assert stored[:23] == [str(number) for number in range(1, 24)]
        assert len(stored) == len(set(stored))


def open_until_refused(daemon: Daemon) -> tuple[int, Refused]:
    """Sessions until one is refused; how many there were, and why no more."""
    others: list[RawClient] = []
    try:
        while True:
            others.append(daemon.client())
            others[-1].open(f"another-{len(others) - 1}")
    except Refused as error:
        return len(others) - 1, error
    finally:
        for other in others:
            other.close()


def stored_of(daemon: Daemon, name: str) -> list[str]:
    """Which events the trace file has, once there is a finished one."""

    def look() -> Any:
        document = daemon.trace(name)
        return document if document["session"]["outcome"] != "running" else None

    return [record["body"]["stringValue"].split(" ")[0] for record in logs_of(until(look, "the run is not brought to its end"))]


def test_d7_without_inodes_a_session_cannot_begin_and_those_that_run_go_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64, ",nr_inodes=40") as disk, daemon_on(disk, tmp_path) as daemon:
        with opened(daemon, "running") as client:
            others, refused = open_until_refused(daemon)
            assert refused.code in ("disk-failed", "disk-full")
            assert others > 5
            send(client, 3)
            client.wait_acknowledged()
            assert not daemon.trace_path(f"another-{others}").exists(), "refused, and yet there"
            disk.resize(64 * MIB, ",nr_inodes=400")
            assert client.end().path is not None
        check_stored(daemon, "running", 6)


def terminal_records(daemon: Daemon, name: str) -> list[str]:
    """The outcomes in the journal as it lies there."""
    paths = sorted(str(path) for path in (daemon.state_dir / "journals").glob(f"{name}~1.*.journal"))
    reader = JournalReader(RealDisk(), paths, [None] * len(paths))
    return [unpack(record.body)["outcome"] for record in reader if record.type is RecordType.TERMINAL]


@pytest.mark.parametrize("stalled_before", [False, True])
def test_d7_an_end_on_a_full_disk_is_recorded_through_the_reserve_and_its_file_written_when_there_is_room(
    stalled_before: bool, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk, daemon_on(disk, tmp_path) as daemon:
        with opened(daemon, "ending") as client, opened(daemon, "other") as other:
            for _ in range(4):  # 4 MB: more than the reserve has room for in one more document
                send(client, 50)
                client.wait_acknowledged()
            disk.fill()
            if stalled_before:
                send(client, 3)
                hear_stalled(client)
            answer = client.end()
            assert answer.outcome.value == "completed"
            assert answer.path is None
            assert answer.export_error is not None
            assert "space" in answer.export_error
            assert terminal_records(daemon, "ending") == ["completed"]
            assert daemon.trace("ending")["collectord"]["outcome"] == "running", "what it said before"
            if stalled_before:  # else the record may have fitted into the page that the journal had begun
                assert not (daemon.state_dir / "reserve").exists()
            send(other, 2)  # what is left of the reserve is not for events
            assert hear_stalled(other).code == "disk-failed"
            disk.free()
            other.wait_acknowledged()
            until(lambda: daemon.trace("ending")["collectord"]["outcome"] == "completed", "its file is still owed")
            assert other.end().path is not None
        check_stored(daemon, "ending", client.sequence)
        check_stored(daemon, "other", 5)


def test_d7_below_the_floor_new_sessions_are_refused_and_running_ones_go_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, daemon_on(disk, tmp_path) as daemon:
        with opened(daemon, "running") as client:
            disk.fill(leave_bytes=2 * MIB)  # a twentieth of the disk is 3.2 MiB
            with daemon.client() as another, pytest.raises(Refused) as refused:
                another.open("another")
            assert refused.value.code == "disk-full"
            assert refused.value.error.retryable
            send(client, 3)
            client.wait_acknowledged()
            assert not client.pushed
            disk.free()
            with opened(daemon, "another") as another:
                assert another.end().path is not None
            assert client.end().path is not None
        check_stored(daemon, "running", 6)


def test_d7_the_floor_is_a_setting(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, daemon_on(disk, tmp_path, "--disk-free-min", "1000000") as daemon:
        disk.fill(leave_bytes=2 * MIB)
        with opened(daemon, "above") as client:
            assert client.end().path is not None
        disk.fill(leave_bytes=500_000)
        with daemon.client() as another, pytest.raises(Refused) as refused:
            another.open("below")
        assert refused.value.code == "disk-full"
