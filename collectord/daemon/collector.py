"""Which runs there are: opening, joining, and what is asked of a run by its name.

Owns the registry of live runs and the rules about who may do what to which; each run's life is its owner's. Knows nothing of
sockets or signals: ``server`` brings the connections, ``peer`` speaks with them.
"""

from __future__ import annotations

import logging
import os
import platform
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import trio

from collectord import __version__, limits
from collectord.daemon.deriver import OwedExports, derive
from collectord.daemon.owner import RunOwner
from collectord.daemon.peer import Peer
from collectord.daemon.processes import boot_id, start_time
from collectord.daemon.revival import Revived
from collectord.daemon.statistics import Statistics
from collectord.daemon.workbench import Workbench
from collectord.errors import DiskError, RefusedError
from collectord.journal.finished import FinishedRun, append_note, read_finished
from collectord.model import Attributes, CrashReason, Outcome, Verdict
from collectord.names import encode_session_id
from collectord.session import inputs, records
from collectord.session.core import RunCore
from collectord.session.records import RunFacts
from collectord.wire import messages

_log = logging.getLogger(__name__)

Key = tuple[int, str]
"""A session: whose, and its id. The same id of another user is another session."""


class Collector:
    """All the runs of one daemon.

    Args:
        workbench: what owners work with.
        owners: the nursery in which owner tasks live; the outer one, which closes last.
        sessions_max: how many may run at once, by the descriptors there are.
        surroundings: gives the daemon's own part of a status answer.
        owed: trace files that could not be written when their runs ended.
        free_min_bytes: below so much free space no new session begins; None is a share of the file system.
    """

    def __init__(
        self,
        workbench: Workbench,
        owners: trio.Nursery,
        sessions_max: int,
        surroundings: Callable[[], Attributes],
        owed: OwedExports,
        free_min_bytes: int | None = None,
    ) -> None:
        self._bench = workbench
        self._owners = owners
        self._sessions_max = sessions_max
        self._surroundings = surroundings
        self._live: dict[Key, RunOwner] = {}
        self._opening: dict[Key, trio.Event] = {}
        self._statistics = Statistics()
        self._owed = owed
        self._free_min_bytes = free_min_bytes
        self._refused: dict[tuple[int, str], dict[int, RefusedError]] = {}
        self._notes = trio.Lock()
        self._boot_id = boot_id()
        self._host = platform.node()
        self._draining = False

    # ------------------------------------------------------------ what peers ask

    async def open(self, peer: Peer, request: messages.Open) -> RunOwner | None:
        """The run to write to.

        Waits while a run of that session is ending, then starts the next.

        Raises:
            RefusedError: ``session-busy``, ``session-unknown``, ``session-ended``, ``too-many-sessions``,
                ``collector-draining``, ``disk-full``, ``disk-failed`` or ``journal-too-new``.
        """
        key = (peer.uid, request.session_id)
        while True:
            if self._draining:
                raise RefusedError("collector-draining", "the collector is stopping")
            opening = self._opening.get(key)
            if opening is not None:
                await opening.wait()
                continue
            owner = self._live.get(key)
            if owner is None:
                for refused in self._refused.get((key[0], encode_session_id(key[1])), {}).values():
                    raise RefusedError(refused.code, refused.message)
            if request.resume_token is not None:
                return await self._resume(owner, peer, request, request.resume_token)
            if request.join:
                return await self._join(owner, peer, request)
            if owner is None:
                return await self._begin(key, peer, request)
            if owner.core.is_live:
                unheard = self._unheard_token(owner, peer)
                if unheard is not None:
                    return await self._resume(owner, peer, request, unheard)
                raise RefusedError("session-busy", f"session {_shown(request.session_id)} is running: join it, or wait")
            await owner.finished.wait()

    def _unheard_token(self, owner: RunOwner, peer: Peer) -> bytes | None:
        """A run that was found open, and that its owner opens again since it never heard the answer: it is the same run.

        Only for the same process, of which nothing shows that it had heard.
        """
        facts, pid = owner.core.facts, peer.process.pid
        if pid <= 0 or facts.pid != pid or facts.boot_id != self._boot_id or facts.process_start_time != start_time(pid):
            return None
        return owner.core.unheard_token()

    async def _resume(self, owner: RunOwner | None, peer: Peer, request: messages.Open, token: bytes) -> RunOwner | None:
        """A producer of a run that was found open is back. Who has gone meanwhile is not taken for one that is back."""
        if owner is None or owner.is_over:
            finished = await self._finished(peer.uid, request.session_id, None)
            raise RefusedError("session-ended", f"the run is over: {finished.outcome}")
        if peer.is_gone:
            raise RefusedError("resume-refused", "the connection was closed before the run was taken up again")
        pid = peer.process.pid
        owner.post(inputs.Resume(self.now_ns(), peer, request.id, token, pid, start_time(pid), self._boot_id, peer.command()))
        return owner if await peer.wait_answered() else None

    async def _join(self, owner: RunOwner | None, peer: Peer, request: messages.Open) -> RunOwner | None:
        if owner is None:
            raise RefusedError("session-unknown", f"no session {_shown(request.session_id)} is running for this user")
        pid, token = peer.process.pid, secrets.token_bytes(16)
        now = self.now_ns()
        owner.post(inputs.Join(now, peer, request.id, pid, peer.command(), request.resource, token))
        return owner if await peer.wait_answered() else None

    async def _begin(self, key: Key, peer: Peer, request: messages.Open) -> RunOwner:
        if len(self._live) + len(self._opening) >= self._sessions_max:
            raise RefusedError("too-many-sessions", f"{len(self._live)} sessions are running, the most this process can")
        stem = encode_session_id(request.session_id)
        opened = self._opening[key] = trio.Event()
        try:
            run = await self._bench.threads.publish(lambda: self._next_run(key[0], stem))
        except OSError as error:
            raise RefusedError("disk-failed", f"{error.strerror} ({error.filename})") from None
        finally:
            del self._opening[key]
            opened.set()
        if self._draining:
            raise RefusedError("collector-draining", "the collector is stopping")
        core = RunCore(self._facts(peer, request, run), self._bench.store.trace_path(key[0], stem, run), peer)
        owner = RunOwner(core, stem, self._bench, self._forget)
        self._live[key] = owner
        self._statistics.run_opened()
        self._owners.start_soon(owner.run, request.id)
        return owner

    def _next_run(self, uid: int, stem: str) -> int:
        """In a thread: the number of a run that may begin. Raises ``OSError`` or ``RefusedError``."""
        disk, directory = self._bench.disk, self._bench.store.journal_directory(uid)
        wanted = self._free_min_bytes
        if wanted is None:
            wanted = min(limits.DISK_FREE_MIN_MAX_BYTES, int(limits.DISK_FREE_MIN_SHARE * disk.total_bytes(directory)))
        free = disk.free_bytes(directory)
        if free < wanted:
            raise RefusedError("disk-full", f"{free} bytes are free in {directory}, and new sessions begin above {wanted}")
        return self._bench.store.next_run(uid, stem)

    def _facts(self, peer: Peer, request: messages.Open, run: int) -> RunFacts:
        pid = peer.process.pid
        assert peer.hello is not None
        return RunFacts(
            session_id=request.session_id,
            run=run,
            trace_id=request.trace_id or _random_id(16),
            opened_at=self.now_ns(),
            uid=peer.uid,
            pid=pid,
            process_start_time=start_time(pid),
            boot_id=self._boot_id,
            host=self._host,
            command=peer.command(),
            liveness=peer.hello.liveness,
            attributes=request.attributes,
            resource=request.resource,
            resume_token=secrets.token_bytes(16),
        )

    async def crash(self, peer: Peer, request: messages.Crash) -> None:
        """A report about a run by name, or one that came after the end of the peer's own."""
        owner, session_id = await self._named(peer, request.session_id)
        verdict = Verdict(CrashReason.REPORTED, request.reason, None, None, request.exception)
        if owner is not None and not owner.is_over and request.run in (None, owner.core.facts.run):
            if owner.is_behind and owner.core.outcome is Outcome.CRASHED:
                raise RefusedError("disk-failed", "the run has crashed already, and waits for the disk to say so")
            owner.post(inputs.Crash(self.now_ns(), peer, request.id, verdict, 0, None))
            return
        run = request.run
        if run is None and owner is not None:
            run = owner.core.facts.run
        await self._report_late(peer, request.id, session_id, run, verdict)

    async def cancel(self, peer: Peer, request: messages.Cancel) -> None:
        """A wish about a run by name: its owner is told, or the asker what stands."""
        owner, session_id = await self._named(peer, request.session_id)
        if owner is not None and not owner.is_over and request.run in (None, owner.core.facts.run):
            if owner.is_behind:
                raise RefusedError("disk-failed", "the run waits for its disk: ask again when it answers")
            owner.post(inputs.CancelRequested(self.now_ns(), peer, request.id, request.reason, peer.process.pid))
            return
        finished = await self._finished(self._uid_for(peer, owner), session_id, request.run)
        peer.say(_terminal(finished, request.id))

    async def _named(self, peer: Peer, session_id: str | None) -> tuple[RunOwner | None, str]:
        """The live run that is meant, if any, and its session's id.

        Who sees the sessions of everybody means its own one all the same where it has one of that name, running or over.
        """
        if session_id is None:
            if peer.owner is None:
                raise RefusedError("session-unknown", "name the session: this connection has opened none")
            return peer.owner, peer.owner.core.facts.session_id
        owner = self._live.get((peer.uid, session_id))
        if owner is None and self._sees_all(peer):
            owner = next((o for (_, name), o in self._live.items() if name == session_id), None)
            if owner is not None and await self._has_run(peer.uid, owner.stem):
                owner = self._live.get((peer.uid, session_id))
        return owner, session_id

    def _uid_for(self, peer: Peer, owner: RunOwner | None) -> int:
        return peer.uid if owner is None else owner.core.facts.uid

    def _sees_all(self, peer: Peer) -> bool:
        """Root and the daemon's own user see the sessions of everybody."""
        return peer.uid in (0, os.geteuid())

    async def _report_late(self, peer: Peer, request_id: int, session_id: str, run: int | None, verdict: Verdict) -> None:
        """Answer with what stands, and note the report behind it."""
        uid = self._uid_for(peer, peer.owner)
        finished = await self._finished(uid, session_id, run)
        note = records.note(self.now_ns(), "crash", f"reported late: {verdict.message}")
        async with self._notes:  # the run has no owner any more: one note at a time takes its place
            try:
                await self._bench.threads.publish(lambda: append_note(self._bench.disk, finished.segments, note))
            except (OSError, DiskError) as error:
                _log.warning("a late report about %s could not be noted: %s", _shown(session_id), error)
        peer.say(_terminal(finished, request_id))

    async def _finished(self, uid: int, session_id: str, run: int | None) -> FinishedRun:
        """What a run that is over came to, from its files."""
        stem = encode_session_id(session_id)
        try:
            found = await self._bench.threads.publish(lambda: read_finished(self._bench.disk, self._bench.store, uid, stem, run))
        except OSError as error:
            raise RefusedError("disk-failed", f"{error.strerror} ({error.filename})") from None
        if found is None:
            if run is not None and await self._has_run(uid, stem):
                raise RefusedError("run-unknown", f"session {_shown(session_id)} has no finished run {run}")
            raise RefusedError("session-unknown", f"no session {_shown(session_id)} is known for this user")
        return found

    async def _has_run(self, uid: int, stem: str) -> bool:
        try:
            return await self._bench.threads.publish(lambda: self._bench.store.last_run(uid, stem) is not None)
        except OSError as error:
            raise RefusedError("disk-failed", f"{error.strerror} ({error.filename})") from None

    def status(self, request_id: int, peer: Peer) -> messages.StatusAnswer:
        """How the collector stands."""
        uid = None if self._sees_all(peer) else peer.uid
        surroundings = {**self._surroundings(), "exports_owed": self._owed.count}
        return self._statistics.answer(request_id, self._live.values(), surroundings, uid)

    def welcome(self, request_id: int) -> messages.Welcome:
        """The answer to a hello, with the limits a client must know."""
        told = {
            "frame_size_max_bytes": limits.FRAME_SIZE_MAX_BYTES,
            "events_per_message_max": limits.EVENTS_PER_MESSAGE_MAX,
            "value_depth_max": limits.VALUE_DEPTH_MAX,
            "attributes_max": limits.ATTRIBUTES_MAX,
            "open_spans_max": limits.OPEN_SPANS_MAX,
            "session_id_size_max_bytes": limits.SESSION_ID_SIZE_MAX_BYTES,
        }
        server = f"collectord/{__version__}"
        return messages.Welcome(request_id, limits.PROTOCOL_VERSION, server, self._boot_id, told)

    def refused_late(self, count: int) -> None:
        """Events came for a run that is over."""
        self._statistics.refused_late(count)

    def now_ns(self) -> int:
        """Unix nanoseconds."""
        return self._bench.clock_ns()

    # ------------------------------------------------------------ the life of the registry

    def adopt(self, revived: Revived) -> RunOwner:
        """Take in a run that an earlier collector left open."""
        facts = revived.core.facts
        owner = RunOwner(revived.core, revived.stem, self._bench, self._forget, revived.found)
        other = self._live.get((facts.uid, facts.session_id))
        older = other if other is None or other.core.facts.run < facts.run else owner
        if older is not owner:
            self._live[facts.uid, facts.session_id] = owner
        if older is not None:  # two open runs of one session: nobody can come back to the older
            message = "a later run of the session was found open too"
            older.post(inputs.ResumeExpired(self.now_ns(), Verdict(CrashReason.COLLECTOR_RESTARTED, message)))
        self._statistics.run_opened()
        self._owners.start_soon(owner.run, None)
        return owner

    def refuse(self, uid: int, stem: str, run: int, error: RefusedError | None) -> None:
        """Let nobody open a session because of one of its runs, or let them again as far as that one goes."""
        refused = self._refused.setdefault((uid, stem), {})
        refused.pop(run, None)
        if error is not None:
            refused[run] = error

    def _forget(self, owner: RunOwner) -> None:
        """A run is over, or its task: its name is free, its counts are kept."""
        facts = owner.core.facts
        if self._live.get((facts.uid, facts.session_id)) is owner:
            del self._live[facts.uid, facts.session_id]
        self._statistics.run_over(owner, self.now_ns())
        if owner.core.export_error is not None:
            run = (facts.uid, owner.stem, facts.run)
            self._owed.owe(run, partial(derive, self._bench, run, owner.segments))

    def drain(self) -> None:
        """Refuse new runs, and tell every owner to store what was accepted."""
        self._draining = True
        for owner in list(self._live.values()):
            owner.drain()

    @property
    def live(self) -> Iterator[RunOwner]:
        """The owners of all live runs."""
        return iter(self._live.values())

    @property
    def running(self) -> int:
        """How many runs are live."""
        return len(self._live)


def _terminal(finished: FinishedRun, request_id: int) -> messages.Terminal:
    return messages.Terminal(
        outcome=Outcome(finished.outcome),
        run=finished.run,
        path=finished.path,
        id=request_id,
        reason=finished.reason,
        message=finished.message,
    )


def _random_id(size: int) -> bytes:
    """Random bytes that are not all zero, as OpenTelemetry wants its ids."""
    while not any(found := secrets.token_bytes(size)):
        pass
    return found


def _shown(session_id: str) -> str:
    """An id as a message may show it: short, and with nothing a terminal would act on."""
    text: Any = ascii(session_id) if len(session_id) <= 80 else ascii(session_id[:77]) + "…"
    return str(text)
