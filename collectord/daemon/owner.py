"""The owner task: the one task that changes one run's files, and the only code that renames a trace file.

Owns the order of things on disk: append and sync, then speak, then rename, each awaited before the next. What is to be done
it asks of ``session.core``; how bytes get to the disk it asks of the journal and the renderers. It knows nothing of sockets:
those who want something put an input into its queue, and are spoken to through the token they came with.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import trio

from collectord.daemon.absence import Absence
from collectord.daemon.workbench import FoundOpen, Workbench
from collectord.errors import CollectordError, DiskError
from collectord.export.render import render
from collectord.export.request import RenderRequest
from collectord.export.schedule import ExportSchedule
from collectord.journal.reader import JournalReader
from collectord.journal.writer import JournalWriter
from collectord.limits import GROUP_MAX_BYTES, PENDING_MAX_BYTES, STALL_RETRY_FIRST_S, STALL_RETRY_MAX_S
from collectord.model import Attributes, CrashReason, Record, RecordType, Verdict
from collectord.session import inputs
from collectord.session.core import RunCore
from collectord.session.effects import Effects, ExportKind, ExportOrder, Say
from collectord.session.inputs import AnyInput
from collectord.session.state import State
from collectord.wire.messages import Error

_log = logging.getLogger(__name__)

_INPUT_SIZE_BYTES = 256
"""What an input takes that carries no events, about: on a disk that does not answer they wait by the thousand."""

_DRAIN_EXPORTS_MAX = 2
"""Why: a drain shows what was accepted, but a document that cannot be rendered must not hold it up for ever."""


_MUST_BE_RECORDED = (inputs.End, inputs.Cancel, inputs.Crash, inputs.ExitInfo)
"""What ends a run: where its disk is full, the reserve is given up for it, at once."""


class RunOwner:
    """One run's owner.

    Args:
        core: the run, not yet opened.
        stem: its file name stem.
        workbench: what to work with.
        when_over: called once, when the run's files are closed and before its last answer.
        found: the journal, and how long to wait for its owner, of a run that an earlier collector left open.
    """

    def __init__(
        self,
        core: RunCore,
        stem: str,
        workbench: Workbench,
        when_over: Callable[[RunOwner], None] = lambda _: None,
        found: FoundOpen | None = None,
    ) -> None:
        facts = core.facts
        store = workbench.store
        self.core = core
        self.stem = stem
        self.finished = trio.Event()
        self._when_over = when_over
        self._bench = workbench
        self._trace_directory = store.trace_directory(facts.uid)
        self._trace_path = store.trace_path(facts.uid, stem, facts.run)
        self._writer = JournalWriter(
            workbench.disk,
            store.journal_directory(facts.uid),
            stem,
            facts.run,
            new_salt=workbench.new_salt,
            clock_ns=workbench.clock_ns,
            reserve=None if workbench.keeper is None else workbench.keeper.reserve,
        )
        self._found = found
        self._absence_over: trio.CancelScope | None = None
        self._must_fit = False
        self._queue: list[AnyInput] = []
        self._queued_bytes = 0
        self._unsynced_bytes = 0
        self._room: trio.Event | None = None
        self._wake: trio.Event | None = None
        self._schedule = ExportSchedule()
        self._retry_at: float | None = None
        self._retry_pause_s = STALL_RETRY_FIRST_S
        self._draining = False
        self._drain_exports_left = _DRAIN_EXPORTS_MAX
        self._export_cause: str | None = None
        self._is_created = False
        self._children: trio.Nursery | None = None
        self._last_words: list[Say] = []

    # ------------------------------------------------------------ what peers call, without waiting

    def post(self, event: AnyInput) -> None:
        """Put something into the queue; crash reports are marked at once as well."""
        if isinstance(event, inputs.Crash | inputs.OwnerGone):
            self.core.mark(event)
        self._queued_bytes += _size_of(event)
        self._queue.append(event)
        if self._retry_at is not None and isinstance(event, _MUST_BE_RECORDED):
            self._must_fit, self._retry_at = True, trio.current_time()
        self._stir()

    def mark_owner_gone(self) -> None:
        """The owner's connection or process is gone: said in memory, at once; what was unread is posted after."""
        self.core.mark(inputs.OwnerGone(self._bench.clock_ns()))

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for the disk that the run's connections should not be read."""
        return self._queued_bytes + self._unsynced_bytes > PENDING_MAX_BYTES

    @property
    def is_over(self) -> bool:
        """Whether the task is gone and nothing posted is read any more.

        Until then whatever is asked goes through the queue, also once the run is closed: an answer that took the short way
        would overtake those to what was asked before.
        """
        return self.finished.is_set()

    async def wait_for_room(self) -> None:
        """Return when the run is no longer behind, or is over. Cancellation: at any point."""
        while self.is_behind and not self.is_over:
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()

    def drain(self) -> None:
        """Store what was accepted, show it, and leave the run open for a resume."""
        self._draining = True
        self.post(inputs.Drain())

    # ------------------------------------------------------------ the task

    async def run(self, request_id: int | None) -> None:
        """Live as long as the run does.

        Args:
            request_id: of the ``open`` to answer when the run is durable; None for a run that was found open.

        An exception of ours ends this run's task and nothing else: the journal stays open for the next recovery.

        Cancellation: only when the daemon has given up waiting for it at the end of a drain.
        """
        try:
            async with trio.open_nursery() as self._children:
                await self._begin(request_id)
                await self._advance()
                while not self.core.closed or self._queue:
                    if self._draining and self._is_at_rest():  # before the wait: nothing more comes that would end it
                        await self._commit_checkpoint()
                        break
                    await self._wait_for_work()
                    await self._advance()
                    self._stop_missing()
                self._children.cancel_scope.cancel()
            while self._queue:  # what was posted while the children left; from here to the last word nothing is awaited
                await self._advance()
        except Exception:  # noqa: BLE001 — the owner's boundary: one run's fault stays its own
            _log.exception("run %s~%d: internal error; its journal stays for recovery", self.stem, self.core.facts.run)
            self._last_words = [
                Say(hears, Error("internal-error", "this run's task failed; its journal is kept", False))
                for hears in self.core.everyone()
            ]
        finally:
            self._leave()

    async def _begin(self, request_id: int | None) -> None:
        """Open the run, or take up one that was found open, and wait for its owner."""
        found = self._found
        if found is None:
            assert request_id is not None
            self.core.open(request_id)
            return
        self._is_created = True
        await self._bench.threads.publish(lambda: self._writer.go_on(found.left))
        self._schedule.stored(trio.current_time(), self.journal_bytes)
        if found.absence is not None:
            self._nursery.start_soon(self._wait_for_absent, found.absence)

    async def _wait_for_absent(self, absence: Absence) -> None:
        """A child task: tells the run when nobody need be waited for any more; ends when nobody is missed."""
        try:
            with trio.CancelScope() as self._absence_over:
                await absence.over()
                self.post(inputs.ResumeExpired(self._bench.clock_ns(), absence.verdict()))
        finally:
            absence.close()
            self._absence_over = None

    def _stop_missing(self) -> None:
        if self._absence_over is not None and not self.core.misses_somebody:
            self._absence_over.cancel()

    async def _wait_longer(self, seconds: float) -> None:
        await trio.sleep(seconds)
        verdict = Verdict(CrashReason.COLLECTOR_RESTARTED, "the collector was restarted, and the agent did not come back in time")
        self.post(inputs.ResumeExpired(self._bench.clock_ns(), verdict))

    async def _commit_checkpoint(self) -> None:
        """So that the next collector need not write again what is durable."""
        if self.core.state is not State.STALLED:
            async with self._bench.threads.slot():
                await self._bench.threads.commit(self._writer.checkpoint)

    def _leave(self) -> None:
        """Nothing outlives the run: files closed and the registry told before the last word is said."""
        self._writer.close()
        self.finished.set()
        self._make_room()
        self._when_over(self)
        self._children = None
        for say in self._last_words:
            say.to.say(say.message)
        self.core.forget_everyone()

    async def _advance(self) -> None:
        """One turn: decide and commit what waits, then do what follows from it, until nothing does."""
        effects = await self._commit()
        while True:
            await self._follow(effects)
            effects = self.core.take()
            if effects.records:
                async with self._bench.threads.slot():
                    await self._append(effects)
            elif effects == Effects():
                return

    async def _commit(self) -> Effects:
        """Take what waits, ask the core, append and sync in one call.

        The slot is taken first: what comes while we wait for it joins the group, and what is decided is handed over at once.
        """
        async with self._bench.threads.slot():
            self._feed()
            effects = self.core.take()
            if effects.records:
                await self._append(effects)
            elif self._retry_at is None:
                self._unsynced_bytes = 0
                self._make_room()
        return effects

    def _feed(self) -> None:
        """Give the core what waits, up to the size of a group.

        A list turned around for the while, since a deque takes three quarters of a kilobyte in each idle run.
        """
        size = 0
        now = trio.current_time()
        self._queue.reverse()
        while self._queue and size < GROUP_MAX_BYTES:
            event = self._queue.pop()
            taken = _size_of(event)
            size += taken
            self._queued_bytes -= taken
            self._unsynced_bytes += taken
            if isinstance(event, inputs.Events):
                self._schedule.stored(now, taken)
            self.core.handle(event)
        self._queue.reverse()

    async def _append(self, effects: Effects) -> None:
        """Records to the disk, and the core told what became of them.

        Durability: ``Synced`` is fed only when every record handed over so far has been fdatasynced.
        """
        records = effects.records
        if not self._is_created:
            await self._open(records)
            return
        try:
            await self._bench.threads.commit(lambda: self._writer.append(records))
        except DiskError as error:
            self._failed(error.message)
        else:
            self._synced()

    async def _open(self, records: list[Record]) -> None:
        """The first records. A run that cannot be begun has never existed: what there is of it is removed again."""
        self._is_created = True
        try:
            await self._bench.threads.commit(lambda: self._create(records))
        except (OSError, DiskError) as error:
            cause = error.message if isinstance(error, DiskError) else f"{error.strerror or error} ({error.filename})"
            _log.error("run %s~%d could not be opened: %s", self.stem, self.core.facts.run, cause)
            await self._bench.threads.publish(self._discard)
            self.core.give_up(cause)
        else:
            self._synced()

    def _discard(self) -> None:
        """In a thread: remove what a failed opening left, as far as the disk lets us."""
        store, facts = self._bench.store, self.core.facts
        journal = store.segment_path(facts.uid, self.stem, facts.run, 0)
        for path in (journal, self._temporary_path(0), self._trace_path):
            try:
                self._bench.disk.unlink(path)
            except OSError as error:
                _log.warning("%s could not be removed: %s", path, error.strerror)

    def _create(self, records: list[Record]) -> None:
        """In a thread: the journal with its directory entry, then a first trace file.

        Whose agent has gone before it could be told has crashed already: a file that says so is final, and synced like any.
        """
        self._writer.create(records)
        temporary = self._temporary_path(0)
        lines: list[bytes] = []
        render(self._reader, None, lines.append)
        is_final = any(record.type is RecordType.TERMINAL for record in records)
        self._bench.disk.write_file(temporary, b"".join(lines), sync=is_final)
        self._bench.disk.rename(temporary, self._trace_path)

    def _synced(self) -> None:
        self._retry_at = None
        self._must_fit = False
        self._retry_pause_s = STALL_RETRY_FIRST_S
        self._unsynced_bytes = 0
        if self._bench.keeper is not None:
            self._bench.keeper.look()
        self.core.handle(inputs.Synced())
        self._make_room()

    def _failed(self, cause: str) -> None:
        _log.error("run %s~%d is stalled: %s", self.stem, self.core.facts.run, cause)
        self._retry_at = trio.current_time() + self._retry_pause_s
        self._retry_pause_s = min(2 * self._retry_pause_s, STALL_RETRY_MAX_S)
        self.core.handle(inputs.SyncFailed(cause))

    async def _retry(self) -> None:
        """Try the disk again with what is not durable, in a fresh segment."""
        async with self._bench.threads.slot():
            try:
                await self._bench.threads.commit(partial(self._writer.retry, self._must_fit))
            except DiskError as error:
                self._failed(error.message)
            else:
                self._synced()

    async def _follow(self, effects: Effects) -> None:
        """What comes after the records: speak, and work on the trace file, one thing after the other."""
        if self.core.closed:
            self._last_words += effects.say
        else:
            for say in effects.say:
                say.to.say(say.message)
        for number in effects.drop:
            await self._remove(self._temporary_path(number))
        if effects.rename is not None:
            await self._rename(effects.rename)
        if effects.start is not None and not self.core.closed:
            self._start(effects.start)
        if effects.grace_s is not None:
            self._nursery.start_soon(self._wait_out_grace, effects.grace_s)
        if effects.resume_again_s is not None:
            self._nursery.start_soon(self._wait_longer, effects.resume_again_s)

    async def _remove(self, path: str) -> None:
        """Remove a temporary file; where the disk does not let us, the next start sweeps it."""
        try:
            await self._bench.threads.publish(partial(self._bench.disk.unlink, path))
        except OSError as error:
            _log.warning("%s could not be removed: %s", path, error.strerror)

    async def _rename(self, order: ExportOrder) -> None:
        """Put a rendered document under its name. Always awaited, and always by this task: that order is the proof.

        Durability: a final document was synced when it was rendered, and its directory is synced here.
        """
        temporary = self._temporary_path(order.number)
        try:
            await self._bench.threads.publish(lambda: self._bench.disk.rename(temporary, self._trace_path))
            if order.kind is ExportKind.FINAL:
                await self._bench.directories.sync(self._trace_directory)
        except OSError as error:
            cause = f"{error.strerror or error} ({self._trace_path})"
            self._schedule.failed(trio.current_time())
            self._report_export(cause)
            self.core.handle(inputs.ExportFailed(self._bench.clock_ns(), order.number, cause))
        else:
            self._export_cause = None
            self.core.handle(inputs.Renamed(order.number))

    def _report_export(self, cause: str) -> None:
        """Once, as long as it is the same: what nobody asked for is tried again by timer, every second on a full disk."""
        if cause != self._export_cause:
            _log.warning("run %s~%d: its trace file cannot be written: %s", self.stem, self.core.facts.run, cause)
        self._export_cause = cause

    def _start(self, order: ExportOrder) -> None:
        if self._retry_at is not None:
            cause = "the journal is not durable: nothing is rendered from it"
            self._queue.append(inputs.ExportFailed(self._bench.clock_ns(), order.number, cause))
            return
        self._schedule.started()
        self._nursery.start_soon(self._render, order)

    async def _render(self, order: ExportOrder) -> None:
        """A child task: has the document rendered into its temporary file and tells the owner; renames nothing."""
        final = order.kind is ExportKind.FINAL
        request = RenderRequest(
            segments=self.segments,
            terminal=order.terminal,
            out=self._temporary_path(order.number),
            sync=final,
        )
        try:
            result = await self._bench.renderer.render(request, urgent=final)
        except CollectordError as error:
            self._schedule.failed(trio.current_time())
            self._report_export(error.message)
            self.post(inputs.ExportFailed(self._bench.clock_ns(), order.number, error.message))
        else:
            self._schedule.written(result.size_bytes)
            self.post(inputs.Rendered(self._bench.clock_ns(), order.number))

    async def _wait_out_grace(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.post(inputs.GraceExpired(self._bench.clock_ns()))

    # ------------------------------------------------------------ waiting

    async def _wait_for_work(self) -> None:
        """Sleep until something is posted, an export is due, or the disk is to be tried again."""
        if self._queue:
            await trio.lowlevel.checkpoint()
            return
        deadline = self._next_deadline()
        self._wake = trio.Event()
        with trio.move_on_at(deadline) if deadline < math.inf else nullcontext():  # a scope costs an idle run half a kilobyte
            await self._wake.wait()
        self._wake = None
        now = trio.current_time()
        if self._retry_at is not None:
            if now >= self._retry_at:
                await self._retry()
        elif self._export_is_due(now):
            self._queue.append(inputs.ExportDue())

    def _next_deadline(self) -> float:
        if self._retry_at is not None:
            return self._retry_at
        if not self.core.is_dirty:
            return math.inf
        if self._draining and self._drain_exports_left:
            return -math.inf
        due = self._schedule.due()
        return math.inf if due is None else due

    def _export_is_due(self, now: float) -> bool:
        if now < self._next_deadline():
            return False
        self._drain_exports_left -= self._draining
        return True

    def _is_at_rest(self) -> bool:
        """Whether a draining run has nothing left that was accepted: all durable, and shown if that was possible."""
        if self._queue or not self.core.is_live or self.core.state is State.OPENING:
            return False
        if self.core.state is State.STALLED:
            return True
        shown = not self.core.is_exporting and (not self.core.is_dirty or not self._drain_exports_left)
        return shown and self._retry_at is None

    def _stir(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    # ------------------------------------------------------------ small things

    @property
    def _nursery(self) -> trio.Nursery:
        assert self._children is not None
        return self._children

    @property
    def is_unsynced(self) -> bool:
        """Whether the disk failed and something handed to it waits for the next try."""
        return self._retry_at is not None

    @property
    def is_durable(self) -> bool:
        """Whether what is said of the run is on the disk."""
        return self._retry_at is None and self.core.is_durable

    @property
    def segments(self) -> list[tuple[str, int]]:
        """Path and durable size of each part of the journal."""
        return [(part.path, part.durable_offset) for part in self._writer.segments]

    @property
    def journal_bytes(self) -> int:
        """How much of the run is durable."""
        return sum(part.durable_offset for part in self._writer.segments)

    def _reader(self) -> JournalReader:
        parts = self._writer.segments
        return JournalReader(self._bench.disk, [part.path for part in parts], [part.durable_offset for part in parts])

    def _temporary_path(self, number: int) -> str:
        facts = self.core.facts
        return self._bench.store.temporary_path(facts.uid, self.stem, facts.run, number)


def _size_of(event: AnyInput) -> int:
    """What an input takes while it waits, about: its events, or what people and programs wrote."""
    match event:
        case inputs.Events():
            return len(event.batch.raw)
        case inputs.Crash():
            return _INPUT_SIZE_BYTES + len(event.verdict.message) + _size_of_texts(event.verdict.exception)
        case inputs.End():
            return _INPUT_SIZE_BYTES + len(event.message or "") + _size_of_texts(event.exception)
        case inputs.Cancel() | inputs.CancelRequested():
            return _INPUT_SIZE_BYTES + len(event.reason)
        case inputs.ParticipantGone():
            return _INPUT_SIZE_BYTES + _size_of_texts(event.error)
        case _:
            return _INPUT_SIZE_BYTES


def _size_of_texts(exception: Attributes | None) -> int:
    return 0 if exception is None else sum(len(text) for text in exception.values() if type(text) is str)
