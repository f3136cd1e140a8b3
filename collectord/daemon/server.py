"""The daemon from its start to its stop: locks, recovery, the tree of tasks, signals, the drain.

Owns the nurseries of design section 7 and their order: the owners' one is the outer and closes last, so that what was accepted
is stored; the peers' one is the inner and closes first.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import resource
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import trio

from collectord.daemon import listener, systemd
from collectord.daemon.collector import Collector
from collectord.daemon.deriver import OwedExports
from collectord.daemon.keeper import ReserveKeeper
from collectord.daemon.owner import RunOwner
from collectord.daemon.peer import Peer
from collectord.daemon.processes import DeathWatch, boot_id, identify
from collectord.daemon.renderers import RendererPool
from collectord.daemon.revival import Revivalist, Revived
from collectord.daemon.settings import Settings
from collectord.daemon.threads import DirectorySyncs, WorkerThreads
from collectord.daemon.workbench import Workbench
from collectord.errors import OperatorError
from collectord.journal.disk import RealDisk
from collectord.journal.reserve import Reserve
from collectord.journal.store import LOCK_NAME, StateLock, Store, refuse_network_file_system
from collectord.limits import (
    ACCEPT_RETRY_S,
    DESCRIPTOR_RESERVE,
    DESCRIPTORS_PER_SESSION,
    RECOVERY_LISTEN_WAIT_S,
    RESERVE_SHARE,
    RESERVE_SIZE_MAX_BYTES,
)
from collectord.model import Attributes

_log = logging.getLogger(__name__)

_ACCEPTS_AT_ONCE = 64
"""Why: a storm of connections must not keep the loop from those that are there."""

_GC_THRESHOLDS = (10_000, 20, 50)
"""Why: decoding makes many objects that die at once and never form cycles; the default looks at them all the time."""


async def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: checked.

    Returns:
        The exit status: 0 after a complete drain.

    Raises:
        OperatorError: the daemon cannot start with these directories or this socket.
    """
    _log_to_stderr(settings.log_level)
    began = time.monotonic()

    def surroundings() -> Attributes:
        return {
            "uptime_s": round(time.monotonic() - began, 3),
            "state_dir": settings.state_dir,
            "socket": settings.socket_path,
        }

    with ExitStack() as held:
        store = _take_state(settings, held)
        sessions_max = _raise_descriptor_limit()
        gc.set_threshold(*_GC_THRESHOLDS)
        threads = WorkerThreads()
        disk = RealDisk()
        directories = DirectorySyncs(threads, disk.sync_directory)
        async with trio.open_nursery() as owners:
            renderers = RendererPool()
            await renderers.start(owners)
            with _stated(settings.state_dir):
                keeper = ReserveKeeper(_reserve(disk, settings.state_dir), threads)
            bench = Workbench(disk, store, threads, directories, renderers, time.time_ns, lambda: secrets.randbits(32), keeper)
            owed = OwedExports()
            collector = Collector(bench, owners, sessions_max, surroundings, owed, settings.disk_free_min)
            owners.start_soon(keeper.run)
            owners.start_soon(owed.run)
            with _stated(settings.state_dir):
                await _recover(bench, owed, collector)
            await _serve(settings, collector, held)
            await renderers.aclose()
            owners.cancel_scope.cancel()
    return 0


def _take_state(settings: Settings, held: ExitStack) -> Store:
    """The directories and the two locks: from here on this is the only collector for both."""
    if not settings.allow_network_fs:
        refuse_network_file_system(settings.state_dir)
    store = Store(RealDisk(), settings.state_dir, os.geteuid())
    store.prepare()
    held.enter_context(StateLock(os.path.join(settings.state_dir, LOCK_NAME)))
    os.makedirs(os.path.dirname(settings.socket_path), 0o700, exist_ok=True)
    held.enter_context(StateLock(settings.socket_path + ".lock"))
    with _stated(settings.state_dir):
        store.sweep_temporary_files()
    return store


@contextmanager
def _stated(directory: str) -> Iterator[None]:
    """A disk that fails before anybody is served refuses the start, in words."""
    try:
        yield
    except OSError as error:
        where = error.filename or directory
        raise OperatorError("directory-unusable", f"{where}: {error.strerror or error}") from None


def _reserve(disk: RealDisk, state_dir: str) -> Reserve:
    size = min(RESERVE_SIZE_MAX_BYTES, int(RESERVE_SHARE * disk.total_bytes(state_dir)))
    return Reserve(disk, os.path.join(state_dir, "reserve"), state_dir, size)


async def _recover(bench: Workbench, owed: OwedExports, collector: Collector) -> None:
    """Bring what an earlier collector left into order; those that are known to be dead are mostly judged by then."""
    judged: list[RunOwner] = []

    def adopt(revived: Revived) -> None:
        owner = collector.adopt(revived)
        if revived.is_judged:
            judged.append(owner)

    await Revivalist(bench, owed, boot_id(), adopt, collector.refuse).revive_all()
    with trio.move_on_after(RECOVERY_LISTEN_WAIT_S):
        for owner in judged:
            await owner.finished.wait()


async def _serve(settings: Settings, collector: Collector, held: ExitStack) -> None:
    """Listen until told to stop, then drain."""
    listening = listener.listen(settings.socket_path)
    held.callback(listener.close, listening, settings.socket_path)
    deaths = DeathWatch()
    held.callback(deaths.close)
    async with trio.open_nursery() as peers:
        peers.start_soon(deaths.run)
        peers.start_soon(_accept, listening, collector, deaths, peers)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            gc.collect()
            gc.freeze()
            print(f"listening on {settings.socket_path}", file=sys.stderr, flush=True)
            systemd.notify("READY=1", f"STATUS=listening on {settings.socket_path}")
            async for number in signals:
                _log.info("stopping: %s", signal.Signals(number).name)
                break
            systemd.notify("STOPPING=1")
            _leave_for_certain(settings.drain_timeout_s)
            peers.cancel_scope.cancel()
    await _drain(collector, settings.drain_timeout_s)


async def _accept(listening: socket.socket, collector: Collector, deaths: DeathWatch, peers: trio.Nursery) -> None:
    """Take in connections as they come."""
    while True:
        await trio.lowlevel.wait_readable(listening)
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    _log.error("cannot accept: %s", error.strerror)
                    await trio.sleep(ACCEPT_RETRY_S)  # the others go on; who waits to be accepted waits in the backlog
                break
            _welcome(connection, collector, deaths, peers)
        await trio.lowlevel.checkpoint()


def _welcome(connection: socket.socket, collector: Collector, deaths: DeathWatch, peers: trio.Nursery) -> None:
    connection.setblocking(False)
    try:
        process = identify(connection)
    except OSError as error:
        _log.warning("a connection could not be identified: %s", error)
        connection.close()
        return
    peers.start_soon(Peer(connection, process, collector, deaths, peers).run)


async def _drain(collector: Collector, timeout_s: float) -> None:
    """Store what was accepted; leave every run open for a resume."""
    collector.drain()
    with trio.move_on_after(timeout_s):
        for owner in list(collector.live):
            await owner.finished.wait()
    if collector.running:
        _log.error("%d runs were not drained in time: what is durable of them is kept", collector.running)


def _leave_for_certain(timeout_s: float) -> None:
    """A thread that ends the process even if the disk never answers: nothing acknowledged depends on what is left."""
    timer = threading.Timer(timeout_s + 1.0, lambda: os._exit(1))
    timer.daemon = True
    timer.start()


def _raise_descriptor_limit() -> int:
    """As many descriptors as we may have; returns for how many sessions they are enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass  # go on with what there is
    return max(1, (soft - DESCRIPTOR_RESERVE) // DESCRIPTORS_PER_SESSION)


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", force=True)
