"""A workbench for the real owner task whose every step waits for the test: disk calls, slots and renders behind gates.

The owner, its core, the journal writer, the reader and the renderer's code are the real ones; the disk is the simulated one.
What a connection hears is checked the moment it is said: nothing is promised that a power cut now would take back.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import orjson
import trio
from attrs import Factory, define

from collectord.daemon.owner import RunOwner
from collectord.daemon.threads import DirectorySyncs
from collectord.daemon.workbench import Workbench
from collectord.errors import DiskError
from collectord.export.render import render
from collectord.export.request import RenderRequest, RenderResult
from collectord.journal.reader import JournalReader
from collectord.journal.store import Store
from collectord.model import Record, RecordType
from collectord.names import encode_session_id
from collectord.session.core import RunCore
from collectord.session.records import RunFacts, unpack
from collectord.wire import messages
from tests.simulation.disk import SimulatedDisk

T = TypeVar("T")


@define(eq=False)
class Gate:
    """One step that waits to be let through, or to fail."""

    kind: str
    open: trio.Event = Factory(trio.Event)
    error: OSError | None = None


class Gates:
    """Threads and renderer whose every call waits at a gate."""

    def __init__(self) -> None:
        self.disk: SimulatedDisk
        self.waiting: list[Gate] = []
        self.handed_over = 0
        self.on_commit: Callable[[], None] = lambda: None

    async def _pass(self, kind: str) -> None:
        gate = Gate(kind)
        self.waiting.append(gate)
        try:
            await gate.open.wait()
        finally:
            if gate in self.waiting:
                self.waiting.remove(gate)
        if gate.error is not None:
            raise gate.error

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A slot is waited for too: what is decided before it and done after it would show."""
        await self._pass("slot")
        yield

    async def commit(self, call: Callable[[], T]) -> T:
        """A journal's call: it has begun (the hand-over) before the gate, and is done behind it."""
        result: list[T] = []
        failure: list[BaseException] = []
        self.on_commit()
        await trio.lowlevel.checkpoint()
        await self._pass("commit")
        try:
            result.append(call())
        except (OSError, DiskError) as error:
            failure.append(error)
        if failure:
            raise failure[0]
        return result[0]

    async def publish(self, call: Callable[[], T]) -> T:
        """A rename, a removal, a directory sync."""
        await self._pass("publish")
        return call()

    async def render(self, request: RenderRequest, urgent: bool) -> RenderResult:
        """The renderer's own code, on the simulated disk, behind a gate."""
        try:
            await self._pass("render")
        except OSError as error:
            raise DiskError("export-failed", str(error)) from None
        parts: list[bytes] = []

        def reader() -> JournalReader:
            return JournalReader(self.disk, [path for path, _ in request.segments], [size for _, size in request.segments])

        result = render(reader, request.terminal, parts.append)
        self.disk.write_file(request.out, b"".join(parts), sync=request.sync)
        return RenderResult(result.size_bytes, result.last_position)

    def let(self, *kinds: str, error: OSError | None = None) -> bool:
        """Let the first waiting step of one of these kinds through; False where none waits."""
        for gate in self.waiting:
            if gate.kind in kinds:
                self.waiting.remove(gate)
                gate.error = error
                gate.open.set()
                return True
        return False


class Listener:
    """A connection as the owner sees it, that believes nothing."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.heard: list[messages.Answer] = []

    def say(self, message: messages.Answer) -> None:
        """Hear, and check at once."""
        self.heard.append(message)
        self._world.check_said(message)

    def answers(self, request_id: int) -> list[messages.Answer]:
        """What was answered to a request."""
        return [message for message in self.heard if getattr(message, "id", None) == request_id]


class World:
    """One run with its real owner, on a simulated disk, step by step.

    Args:
        session_id: whose run.
        disk: one that others have used; a new one where none is given.
        gates: what every step waits at.
    """

    def __init__(self, session_id: str = "s", disk: SimulatedDisk | None = None, gates: Gates | None = None) -> None:
        self.disk = SimulatedDisk() if disk is None else disk
        self.gates = Gates() if gates is None else gates
        self.gates.disk = self.disk
        self.store = Store(self.disk, "/state", 0)
        self.store.prepare()
        self.clock = itertools.count(1_700_000_000_000_000_000, 1_000_000)
        salts = itertools.count(7)
        directories = DirectorySyncs(self.gates, self.disk.sync_directory)
        self.bench = Workbench(
            self.disk, self.store, self.gates, directories, self.gates, lambda: next(self.clock), lambda: next(salts)
        )
        self.connection = Listener(self)
        self.stem = encode_session_id(session_id)
        facts = RunFacts(
            session_id, 1, b"t" * 16, next(self.clock), 0, 4242, 1, "boot", "host", "agent", "process", {}, {}, b"r" * 16
        )
        core = RunCore(facts, self.store.trace_path(0, self.stem, 1), self.connection)
        self.owner = RunOwner(core, self.stem, self.bench)
        self.gates.on_commit = self._note_hand_over
        self.handed_over: str | None = None
        self._told_refused: set[int] = set()

    # ------------------------------------------------------------ looking

    def records(self) -> list[Record]:
        """What a reader finds in the journal after a power cut that forgets everything unsynced."""
        survived = self.disk.power_cut(lambda options: min(options) if options else 0)
        return self._read(survived)

    def _read(self, disk: SimulatedDisk) -> list[Record]:
        store = Store(disk, "/state", 0)
        segments = store.segments_of(0, self.stem, 1)
        return [record for record in JournalReader(disk, segments, [None] * len(segments))]  # noqa: C416

    def terminal_records(self) -> list[Any]:
        """The bodies of the durable terminal records."""
        return [unpack(record.body) for record in self.records() if record.type is RecordType.TERMINAL]

    def document(self) -> dict[str, Any] | None:
        """The trace file as a reader sees it now."""
        path = self.store.trace_path(0, self.stem, 1)
        if not self.disk.exists(path):
            return None
        found: dict[str, Any] = orjson.loads(self.disk.read(path, 0, self.disk.size(path)))
        return found

    def temporary_files(self) -> list[str]:
        """What is left beside the trace file."""
        return [name for name in self.disk.list_directory(self.store.trace_directory(0)) if name.endswith(".tmp")]

    # ------------------------------------------------------------ checking

    def _note_hand_over(self) -> None:
        """The moment of truth as the outside can see it: the terminal record goes to the disk thread."""
        if self.handed_over is None and self.owner.core.state.outcome.is_terminal:
            self.handed_over = self.owner.core.state.outcome.value

    def check_said(self, message: messages.Answer) -> None:
        """Whatever is said must survive a power cut in this very moment."""
        if isinstance(message, messages.Ack):
            stored = self._sequences()
            for first, count, _ in message.refused:
                self._told_refused |= set(range(first, first + count))
            missing = set(range(1, message.sequence + 1)) - stored - self._told_refused
            assert not missing, f"acknowledged up to {message.sequence}, but {sorted(missing)} are not durable"
        elif isinstance(message, messages.Flushed):
            missing = set(range(1, message.sequence + 1)) - self._sequences() - self._refused_sequences()
            assert not missing, f"flushed up to {message.sequence}, but {sorted(missing)} are not durable"
        elif isinstance(message, messages.Opened):
            assert self.records(), "opened, but no record is durable"
        elif isinstance(message, messages.Terminal) and message.outcome.is_terminal:
            outcomes = [body["outcome"] for body in self.terminal_records()]
            assert outcomes == [message.outcome.value], f"said {message.outcome.value}, durable is {outcomes}"
            if message.path is not None:
                self._check_file(message.outcome.value)

    def _check_file(self, outcome: str) -> None:
        survived = self.disk.power_cut(lambda options: min(options) if options else 0)
        path = self.store.trace_path(0, self.stem, 1)
        assert survived.exists(path), "answered with a path, but the directory entry is not durable"
        document = orjson.loads(survived.read(path, 0, survived.size(path)))
        assert document["session"]["outcome"] == outcome, f"said {outcome}, the file says {document['session']['outcome']}"

    def _sequences(self) -> set[int]:
        found: set[int] = set()
        for record in self.records():
            if record.type is RecordType.EVENTS:
                found |= set(range(record.first_sequence, record.first_sequence + record.count))
        return found

    def _refused_sequences(self) -> set[int]:
        found: set[int] = set()
        for record in self.records():
            if record.type in (RecordType.REFUSED, RecordType.GAP):
                count = record.count or unpack(record.body)["count"]
                found |= set(range(record.first_sequence, record.first_sequence + count))
        return found
