"""What is done at start with the runs that an earlier collector left: before anybody can connect.

Owns the performing: ``journal.recovery`` decides and mends the journals, the missing trace files of runs that are over are
derived, and open runs get an owner that waits for their agents to come back. One journal at a time is in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from attrs import define, frozen

from collectord.daemon.absence import Absence, absence_of
from collectord.daemon.deriver import OwedExports, derive
from collectord.daemon.workbench import FoundOpen, Workbench
from collectord.errors import CollectordError, DiskError, RefusedError
from collectord.export.fold import RunSummary, fold
from collectord.journal.condition import Journal
from collectord.journal.finished import shown_position
from collectord.journal.reader import JournalReader
from collectord.journal.recovery import Decision, Recovered, is_over, recover_run
from collectord.journal.store import RunFound
from collectord.model import OWNER_PRODUCER, Outcome
from collectord.session.absent import Absent
from collectord.session.core import EndWanted, RunCore

_log = logging.getLogger(__name__)


@frozen
class Revived:
    """An open run that is to go on."""

    core: RunCore
    stem: str
    found: FoundOpen

    @property
    def is_judged(self) -> bool:
        """Whether it is known already how it ends: it need not be waited for."""
        return self.found.absence is None or not self.found.absence.patience_s


@define
class Revival:
    """What a start found, in numbers."""

    revived: int = 0
    derived: int = 0
    damaged: int = 0
    left: int = 0
    quarantined: int = 0


class Revivalist:
    """Brings the runs of one state directory into order.

    Args:
        bench: to work with.
        owed: where trace files go that cannot be written now.
        boot_id: of the machine.
        adopt: takes an open run in.
        refuse: takes the name of a run because of which nobody may open its session, and with what error; None lifts that.
    """

    def __init__(
        self,
        bench: Workbench,
        owed: OwedExports,
        boot_id: str,
        adopt: Callable[[Revived], None],
        refuse: Callable[[int, str, int, RefusedError | None], None],
    ) -> None:
        self._bench = bench
        self._owed = owed
        self._boot_id = boot_id
        self._adopt = adopt
        self._refuse = refuse
        self.told = Revival()

    async def revive_all(self) -> None:
        """Look at every run that is there, one after the other.

        A run whose files cannot be mended is reported and left as it is: the others are not its concern, and neither is the
        start of the daemon.

        Raises:
            OSError: the journals cannot be listed.

        Durability: a derived file and its directory are synced before the next run is looked at.
        """
        for found in await self._bench.threads.publish(self._list_unfinished):
            try:
                await self._bring_into_order(found)
            except Exception as error:  # noqa: BLE001 — a run's boundary: no journal may keep the others from being recovered
                self.told.left += 1
                _log.exception("%s~%d could not be recovered: its files are left as they are", found.stem, found.run)
                refusal = RefusedError("internal-error", f"the run cannot be recovered: {error}")
                self._refuse(found.uid, found.stem, found.run, refusal)
        if self.told != Revival():
            _log.info(
                "found %d open runs, derived %d trace files, set %d journals aside, left %d alone; %d are damaged",
                self.told.revived, self.told.derived, self.told.quarantined, self.told.left, self.told.damaged,
            )  # fmt: skip

    def _list_unfinished(self) -> list[RunFound]:
        """In a thread: every run for which something may be left to do."""
        disk, unfinished = self._bench.disk, []
        for found in self._bench.store.runs_found():
            try:
                if not is_over(disk, found):
                    unfinished.append(found)
            except OSError:
                unfinished.append(found)  # who looks closer says what it is
        return unfinished

    async def _bring_into_order(self, found: RunFound) -> None:
        try:
            recovered, revived = await self._bench.threads.publish(partial(self._recover, found))
        except (OSError, DiskError) as error:
            _log.error("%s~%d cannot be recovered yet: %s", found.stem, found.run, error)
            refusal = RefusedError("disk-failed", f"the run cannot be recovered yet: {error}")
            self._refuse(found.uid, found.stem, found.run, refusal)
            self._owed.owe((found.uid, found.stem, found.run), partial(self._bring_into_order_later, found))
            return
        self._report(found, recovered)
        await self._act_on(found, recovered, revived)

    async def _bring_into_order_later(self, found: RunFound) -> None:
        """Again, with the files that are there by then."""
        bench = self._bench
        again = await bench.threads.publish(lambda: bench.store.find_run(found.uid, found.stem, found.run))
        if again is None:
            self._refuse(found.uid, found.stem, found.run, None)
            return
        recovered, revived = await bench.threads.publish(partial(self._recover, again))
        self._refuse(found.uid, found.stem, found.run, None)
        self._report(again, recovered)
        await self._act_on(again, recovered, revived)

    def _recover(self, found: RunFound) -> tuple[Recovered, Revived | None]:
        """In a thread: the journal mended, and a run that is to go on read from it. Raises ``OSError`` and ``DiskError``."""
        bench = self._bench
        bench.store.journal_directory(found.uid)  # made durable here, in a thread, and not by the first who asks for it
        recovered = recover_run(bench.disk, bench.store, found, bench.new_salt, bench.clock_ns)
        return recovered, self._revive(found, recovered) if recovered.decision is Decision.REVIVE else None

    async def _act_on(self, found: RunFound, recovered: Recovered, revived: Revived | None) -> None:
        if recovered.journal is Journal.NEWER:
            message = f"{found.segment_paths[0]} was written by a newer collectord, and is left as it is"
            self._refuse(found.uid, found.stem, found.run, RefusedError("journal-too-new", message))
        if recovered.decision is Decision.QUARANTINE:
            self.told.quarantined += 1
        elif recovered.decision is Decision.LEAVE:
            self.told.left += 1
        elif recovered.decision is Decision.DERIVE:
            await self._derive(found, recovered)
        elif revived is not None:
            self._adopt(revived)
            self.told.revived += 1

    def _report(self, found: RunFound, recovered: Recovered) -> None:
        """Say what is wrong, with file and offset: nothing is silent."""
        self.told.damaged += bool(recovered.damage.faults)
        for fault in recovered.damage.faults:
            _log.error("%s at offset %d, %d bytes: %s", fault.path, fault.offset, fault.length, fault.what)
        if recovered.torn_bytes:
            _log.warning("%s~%d: %d torn bytes were set aside", found.stem, found.run, recovered.torn_bytes)
        if recovered.decision in (Decision.QUARANTINE, Decision.LEAVE):
            _log.error("%s~%d: the journal is %s: %s", found.stem, found.run, recovered.journal.value, recovered.decision.value)

    async def _derive(self, found: RunFound, recovered: Recovered) -> None:
        assert recovered.left is not None
        run = (found.uid, found.stem, found.run)
        attempt = partial(derive, self._bench, run, [(part.path, part.durable_offset) for part in recovered.left.parts])
        try:
            await attempt()
        except (OSError, CollectordError) as error:
            _log.error("%s~%d: its trace file cannot be written yet: %s", found.stem, found.run, error)
            self._owed.owe(run, attempt)
        else:
            self.told.derived += 1

    def _revive(self, found: RunFound, recovered: Recovered) -> Revived:
        """In a thread: from the journal to a core that goes on where it was. Raises ``OSError``."""
        store = self._bench.store
        assert recovered.left is not None
        paths = list(dict.fromkeys([*found.segment_paths, *(part.path for part in recovered.left.parts)]))
        reader = JournalReader(self._bench.disk, paths, [None] * len(paths))
        summary = fold(reader.locate())
        assert summary is not None
        summary.ledger.corrupt_records = reader.damage.corrupt_records
        core = RunCore(summary.facts, store.trace_path(found.uid, found.stem, found.run), None, summary.ledger)
        if found.trace_path is not None and summary.facts.boot_id == self._boot_id:  # a running file is never synced
            core.exported_position = shown_position(self._bench.disk, found.trace_path) or -1
        wanted = summary.end_requested
        if wanted is not None and not wanted["wait"]:
            core.end_as_wanted(EndWanted(Outcome(wanted["outcome"]), wanted["message"], wanted["exception"], False, wanted["at"]))
            return Revived(core, found.stem, FoundOpen(recovered.left, None))
        core.wait_for(_absent(summary))
        return Revived(core, found.stem, FoundOpen(recovered.left, self._absence(summary)))

    def _absence(self, summary: RunSummary) -> Absence:
        """The owner's, by the process in which it was seen last."""
        facts, last = summary.facts, summary.resumed
        if last is None:
            return absence_of(facts.pid, facts.process_start_time, facts.boot_id, self._boot_id, facts.liveness)
        return absence_of(last["pid"], last["process_start_time"], last["boot_id"], self._boot_id, facts.liveness)


def _absent(summary: RunSummary) -> Absent:
    """Everybody who has not left."""
    tokens = {OWNER_PRODUCER: summary.facts.resume_token}
    for number, participant in summary.participants.items():
        if participant.left_at is None:
            tokens[number] = participant.resume_token
    cancel, end = summary.cancel_requested, summary.end_requested
    return Absent(
        tokens,
        None if cancel is None else cancel["reason"],
        None if end is None else Outcome(end["outcome"]),
        was_heard=summary.resumed is not None
        or bool(summary.participants)
        or summary.ledger.producer(OWNER_PRODUCER).next_sequence > 1,
    )
