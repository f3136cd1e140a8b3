"""One machine: a disk, processes, a clock, and a daemon that is started, stopped, killed and loses its power.

Owns the lives of the daemon. The core in it is the real one (collector, peers, owners, journal, recovery, renderer's code), on
the simulated disk, with real socket pairs between it and its clients; only threads, renderer processes and the kernel's word
about processes are played. Everything that happens is noted, with its time, and follows from the seed. What must hold is
``rules``'.
"""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import trio

from collectord.daemon import server
from collectord.daemon.collector import Collector
from collectord.daemon.deriver import OwedExports
from collectord.daemon.keeper import ReserveKeeper
from collectord.daemon.owner import RunOwner
from collectord.daemon.peer import Peer
from collectord.daemon.processes import DeathWatch, PeerProcess
from collectord.daemon.threads import DirectorySyncs
from collectord.daemon.workbench import Workbench
from collectord.errors import DiskError, OperatorError
from collectord.export.render import JournalIsEmpty, render
from collectord.export.request import RenderRequest, RenderResult
from collectord.journal.disk import Disk
from collectord.journal.reader import JournalReader
from collectord.journal.reserve import Reserve
from collectord.journal.store import Store
from collectord.limits import EXPORT_THREADS, JOURNAL_THREADS
from tests.simulation.disk import SimulatedDisk
from tests.simulation.kernel import Kernel, Process

T = TypeVar("T")

EPOCH_NS = 1_800_000_000_000_000_000
STATE = "/state"
DRAIN_TIMEOUT_S = 20.0
RESERVE_BYTES = 32_768
FREE_MIN_BYTES = 8_192


class Killed(BaseException):
    """The daemon is gone, here. No `except Exception` of it may see that."""


class Machine:
    """Everything that outlives a daemon.

    Args:
        seed: of all that follows.
        nursery: for what goes on by itself.
    """

    def __init__(self, seed: int, nursery: trio.Nursery) -> None:
        self.dice = random.Random(seed)
        self.nursery = nursery
        self.kernel = Kernel()
        self.disk = SimulatedDisk(block=self.dice.choice((512, 512, 4_096)))
        self.life: Life | None = None
        self.lives = 0
        self.happened: Counter[str] = Counter()
        self.trace: list[str] = []
        self.slow = False
        self.renders_fail = False
        self.pending_max_bytes = 0
        self.keep_going = True
        self._connections: list[socket.socket] = []
        self.on_daemon_death: Callable[[], None] = lambda: None

    def note(self, text: str) -> None:
        """Something happened."""
        self.trace.append(f"{trio.current_time():.6f} {text}")

    def count(self, what: str) -> None:
        """Something happened that the anti-vacuity rules ask for."""
        self.happened[what] += 1
        self.note(what)

    def now_ns(self) -> int:
        """Unix nanoseconds."""
        return EPOCH_NS + round(trio.current_time() * 1e9)

    # ------------------------------------------------------------ the daemon

    async def keep_daemon(self) -> None:
        """Start it, and again whenever it has ended, as a service manager does."""
        while self.keep_going:
            self.lives += 1
            self.life = Life(self, self.lives)
            self.note(f"daemon {self.lives} starts")
            await self.life.run()
            self.note(f"daemon {self.lives} is gone")
            await trio.sleep(self.dice.choice((0.0, 0.1, 0.1, 1.0, 5.0)))

    def kill_daemon(self, why: str) -> None:
        """SIGKILL, now."""
        if self.life is not None and not self.life.dead:
            self.count(why)
            self.life.die()
            self.on_daemon_death()

    def stop_daemon(self) -> None:
        """SIGTERM."""
        if self.life is not None and self.life.is_listening:
            self.count("daemon stopped")
            self.on_daemon_death()
            self.life.stop.set()

    def power_cut(self) -> None:
        """Everything stops, and the disk is as it may be found after that."""
        self.count("power cut")
        if self.life is not None and not self.life.dead:
            self.life.die()
        self.kernel.reboot()
        self.count_faults()
        self.disk = self.disk.random_power_cut(self.dice)

    def count_faults(self) -> None:
        """What failed on this disk is counted; before it is replaced, and at the end."""
        for (operation, error, effect), times in self.disk.fired.items():
            self.happened[f"{operation} {error} {effect}"] += times
        self.disk.fired.clear()

    def heal(self) -> None:
        """Nothing fails any more."""
        self.disk.disarm()
        self.slow = self.renders_fail = False

    def connect(self, process: Process, uid: int) -> socket.socket | None:
        """A connection to the daemon, or None where nobody listens."""
        if self.life is None or not self.life.is_listening or self.life.dead:
            return None
        ours, theirs = socket.socketpair()
        self._connections += [ours, theirs]
        self.life.accept(theirs, process, uid)
        return ours

    def close(self) -> None:
        """The machine is no more; before that, whoever has something of it is gone."""
        for connection in self._connections:
            connection.close()
        self.kernel.close()

    def owner_of(self, uid: int, session_id: str) -> RunOwner | None:
        """The live run of a session."""
        if self.life is None or self.life.dead or self.life.collector is None:
            return None
        return next(
            (o for o in self.life.collector.live if (o.core.facts.uid, o.core.facts.session_id) == (uid, session_id)), None
        )

    def watch_memory(self) -> None:
        """How much of the runs waits in the daemon's memory now."""
        if self.life is not None and self.life.collector is not None:
            for owner in self.life.collector.live:
                self.pending_max_bytes = max(self.pending_max_bytes, owner._queued_bytes + owner._unsynced_bytes)

    def latency(self, kind: str) -> float:
        """How long a call takes, in a thread or a renderer."""
        longest = {"commit": 0.005, "publish": 0.005, "render": 0.05}[kind]
        if self.slow:
            longest *= 100
        return self.dice.random() ** 3 * longest


class Life:
    """One daemon, from its start to its end."""

    def __init__(self, machine: Machine, number: int) -> None:
        self.machine = machine
        self.number = number
        self.dead = False
        self.died = trio.Event()
        self.stop = trio.Event()
        self.calls_left: int | None = None
        self.collector: Collector | None = None
        self.is_listening = False
        self._disk = LifeDisk(self)
        self.disk = cast(Disk, self._disk)
        self._scope = trio.CancelScope()
        self._sockets: list[socket.socket] = []
        self._peers: trio.Nursery | None = None
        self._deaths: DeathWatch | None = None

    # ------------------------------------------------------------ its end

    def die(self) -> None:
        """At once: what it has begun on the disk stays begun, what it has sent is on its way, and nothing more comes of it."""
        self.dead = True
        self.is_listening = False
        self.died.set()
        self.machine.disk.abandon(self._disk.descriptors)
        for connection in self._sockets:
            if connection.fileno() >= 0:
                connection.shutdown(socket.SHUT_RDWR)
        self._scope.cancel()

    def step(self) -> None:
        """A call to the disk is about to be made."""
        if self.dead:
            raise Killed
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                self.machine.kill_daemon("daemon killed at a call to the disk")
                raise Killed

    async def pause(self, seconds: float) -> None:
        """Time passes in a thread: not to be cancelled, and nothing comes behind it where the daemon has died meanwhile."""
        with trio.CancelScope(shield=True):
            with trio.move_on_after(seconds):
                await self.died.wait()
        if self.dead:
            raise Killed

    # ------------------------------------------------------------ its life

    async def run(self) -> None:
        """As ``server.run``."""
        try:
            with self._scope:
                await self._serve()
        except (Killed, BaseExceptionGroup):
            if not self.dead:
                raise
        finally:
            for connection in self._sockets:
                if self._peers is None or connection.fileno() < 0:
                    continue
                connection.close()
            if not self.dead:
                self.dead = True
                self.died.set()
                assert not self._disk.descriptors, "a daemon that has stopped holds descriptors"

    async def _serve(self) -> None:
        store = Store(self.disk, STATE, 0)
        threads = SimulatedThreads(self)
        try:
            store.prepare()
            store.sweep_temporary_files()
        except (OperatorError, OSError) as error:
            self.machine.count("daemon refused to start")
            self.machine.note(f"daemon {self.number}: {error}")
            return
        keeper = ReserveKeeper(Reserve(self.disk, f"{STATE}/reserve", STATE, RESERVE_BYTES), threads)
        bench = Workbench(
            self.disk,
            store,
            threads,
            DirectorySyncs(threads, self.disk.sync_directory),
            SimulatedRenderer(self),
            self.machine.now_ns,
            lambda: self.machine.dice.getrandbits(32),
            keeper,
        )
        async with trio.open_nursery() as owners:
            owed = OwedExports()
            self.collector = Collector(bench, owners, 1_000, dict, owed, FREE_MIN_BYTES)
            owners.start_soon(keeper.run)
            owners.start_soon(owed.run)
            try:
                await server._recover(bench, owed, self.collector)
            except OSError as error:
                self.machine.count("daemon refused to start")
                self.machine.note(f"daemon {self.number}: {error}")
            else:
                await self._listen()
                await server._drain(self.collector, DRAIN_TIMEOUT_S)
                if self.collector.running:
                    self.machine.count("drain not done in time")
            owners.cancel_scope.cancel()

    async def _listen(self) -> None:
        self._deaths = DeathWatch()
        try:
            async with trio.open_nursery() as self._peers:
                self._peers.start_soon(self._deaths.run)
                self.is_listening = True
                self.machine.note(f"daemon {self.number} listens")
                await self.stop.wait()
                self.is_listening = False
                self._peers.cancel_scope.cancel()
        finally:
            self._deaths.close()

    def accept(self, theirs: socket.socket, process: Process, uid: int) -> None:
        """As the listener does."""
        assert self.collector is not None
        assert self._peers is not None
        assert self._deaths is not None
        theirs.setblocking(False)
        self._sockets.append(theirs)
        who = PeerProcess(process.pid, uid, process.pidfd(), False)
        self._peers.start_soon(Peer(theirs, who, self.collector, self._deaths, self._peers).run)


class LifeDisk:
    """The machine's disk as one daemon has it: until that dies."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self.descriptors: set[int] = set()

    def create(self, path: str) -> int:
        """As ``Disk.create``."""
        return self._opened("create", path)

    def open_append(self, path: str) -> int:
        """As ``Disk.open_append``."""
        return self._opened("open_append", path)

    def _opened(self, operation: str, path: str) -> int:
        self._life.step()
        fd: int = getattr(self._life.machine.disk, operation)(path)
        self.descriptors.add(fd)
        return fd

    def close(self, fd: int) -> None:
        """As ``Disk.close``."""
        self._life.step()
        self.descriptors.discard(fd)
        self._life.machine.disk.close(fd)

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._life.step()
            return getattr(self._life.machine.disk, operation)(*arguments, **named)

        return call


class SimulatedThreads:
    """Calls that take their time, and are made at one moment of it."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._slots = trio.CapacityLimiter(JOURNAL_THREADS)
        self._publishing = trio.CapacityLimiter(EXPORT_THREADS)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """As ``WorkerThreads.slot``."""
        async with self._slots:
            yield

    async def commit(self, call: Callable[[], T]) -> T:
        """As ``WorkerThreads.commit``."""
        return await self._call("commit", call)

    async def publish(self, call: Callable[[], T]) -> T:
        """As ``WorkerThreads.publish``."""
        async with self._publishing:
            return await self._call("publish", call)

    async def _call(self, kind: str, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        await self._life.pause(self._life.machine.latency(kind))
        try:
            return call()
        finally:
            await self._life.pause(self._life.machine.latency(kind))


class SimulatedRenderer:
    """The renderer's own code, in a process that is played: it outlives the daemon by what it is doing."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def render(self, request: RenderRequest, urgent: bool) -> RenderResult:
        """As ``RendererPool.render``."""
        machine = self._life.machine
        await trio.lowlevel.checkpoint()
        disk, life = machine.disk, self._life
        if life.dead:
            raise Killed
        try:
            with trio.CancelScope(shield=True):
                result = await self._carry_out(disk, request)
        except (OSError, JournalIsEmpty) as error:
            if life.dead:
                raise Killed from None
            machine.count("render met a failing disk")
            raise DiskError("export-failed", str(error)) from None
        if life.dead:
            machine.count("renderer outlived its daemon")  # type: ignore[unreachable]  # it changes while we wait
            raise Killed
        if machine.renders_fail:
            machine.count("render failed")
            raise DiskError("export-failed", "the renderer was told to fail")
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            try:
                disk.unlink(request.out)
            except OSError:
                pass  # swept at the next start
            raise
        return result

    async def _carry_out(self, disk: SimulatedDisk, request: RenderRequest) -> RenderResult:
        """As ``export.worker.carry_out``: the file is opened at once, and written later, whoever has died meanwhile."""
        machine = self._life.machine
        disk.write_file(request.out, b"", sync=False)
        fd = disk.open_append(request.out)
        try:
            await trio.sleep(machine.latency("render"))
            if self._life.dead and machine.dice.random() < 0.5:
                raise Killed  # it goes with its daemon, after all
            paths, limits = [path for path, _ in request.segments], [size for _, size in request.segments]
            parts: list[bytes] = []
            result = render(lambda: JournalReader(disk, paths, list(limits)), request.terminal, parts.append)
            disk.write(fd, parts)
            if request.sync:
                disk.sync(fd)
            await trio.sleep(machine.latency("render"))
        finally:
            disk.abandon({fd})
        return RenderResult(result.size_bytes, result.last_position)
