"""What must be so after a life on a disk that failed, whatever failed: told, stored once, shown, and there after a power cut."""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterator

from collectord.journal.reader import JournalReader
from collectord.journal.recovery import recover_run
from collectord.journal.store import Store
from collectord.limits import STALL_RETRY_MAX_S
from collectord.model import Outcome, RecordType
from collectord.session.records import unpack
from collectord.wire import messages
from tests.daemon.failing import FAILURES, WELL_AGAIN_S, Ending, How, Moment, Stage, Trouble
from tests.simulation.disk import SimulatedDisk

JOURNALS = ("create", "write", "sync")
"""What is done to journals alone."""

LIMIT_BYTES = 4_096
PATIENCE_S = WELL_AGAIN_S + STALL_RETRY_MAX_S + 10
OUTCOMES = {Ending.ENDS: Outcome.COMPLETED, Ending.CRASHES: Outcome.CRASHED, Ending.GOES: Outcome.CRASHED}


class Log(logging.Handler):
    """What the collector has said since it was cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.lines.append(record.getMessage())


def troubles(calls: list[str], thin: int) -> Iterator[Trouble]:
    """Every way in which each call can fail; or, of each call, one of so many, another one each time."""
    turn = itertools.count()
    for number, operation in enumerate(calls):
        if operation not in FAILURES:
            continue
        errors, effects = FAILURES[operation]
        for error, effect, how in itertools.product(errors, effects, How):
            if (next(turn) + number) % thin == 0:
                yield Trouble(number, error, effect, how)


# ---------------------------------------------------------------- what must be so


def check_over(stage: Stage, ending: Ending) -> None:
    """The right outcome, once; every event once; nothing left open or lying about."""
    (terminal,) = stage.terminal_records()
    outcome = OUTCOMES[ending]
    assert terminal["outcome"] == outcome.value
    assert stage.told in (outcome, None if ending is Ending.GOES else outcome)
    stored = stage.stored()
    for producer, agent in stage.agents.items():
        assert stored.get(producer, Counter()) == Counter(range(1, agent.sent + 1)), "all that was sent is stored, once"
    assert stage.owner.core.stall_cause is None
    assert stage.disk.open_files() == 0
    document = stage.document()
    assert document is not None
    assert document["session"]["outcome"] == outcome.value
    assert document["session"]["integrity"]["stored"] == sum(agent.sent for agent in stage.agents.values())
    assert len([m for m in stage.agent.heard if isinstance(m, messages.Terminal)]) == 1


def check_told(stage: Stage, trouble: Trouble, logged: list[str]) -> None:
    """Somebody knows of the fault, and what the kernel called it.

    Of a journal that failed, those who write to it, or its next segment; of a document that did not come, whoever waited for it,
    or the log where nobody did. Of a file that could not be removed, the log.
    """
    words = os.strerror(trouble.error)
    told = list(stage.stalls)
    for agent in stage.agents.values():
        told += [m.message for m in agent.heard if isinstance(m, messages.Error)]
        told += [m.export_error for m in agent.heard if isinstance(m, messages.Terminal) and m.export_error]
    told += [unpack(record.body)["cause"] for record in stage.records() if record.type is RecordType.SEGMENT]
    if not any(operation in JOURNALS for operation, *_ in stage.fired):
        told += logged
    quiet = {operation for operation, *_ in stage.fired} <= {"close"}  # nothing depends on it: all was synced before
    assert quiet or any(words in sentence for sentence in told), f"nobody was told of {stage.fired}"


def check_moment(moment: Moment) -> None:
    """After a power cut in that moment, and the recovery: what was promised is there, once; a second time changes nothing."""
    for disk in moment.disks:
        store = Store(disk, "/state", 0)
        for found in store.runs_found():
            recover_run(disk, store, found, itertools.count(1_000).__next__, lambda: 7)
        after = everything(disk)
        stored: dict[int, Counter[int]] = {}
        outcomes = []
        for found in store.runs_found():
            reader = JournalReader(disk, found.segment_paths, [None] * len(found.segment_paths))
            for record in reader:
                if record.type is RecordType.EVENTS:
                    sequences = range(record.first_sequence, record.first_sequence + record.count)
                    stored.setdefault(record.producer, Counter()).update(sequences)
                elif record.type is RecordType.TERMINAL:
                    outcomes.append(unpack(record.body)["outcome"])
            assert reader.damage.corrupt_records == 0, reader.damage.faults
        assert not moment.opened or list(store.runs_found()), "it was told to be open"
        for producer, promised in moment.promised.items():
            counts = stored.get(producer, Counter())
            assert set(counts.values()) <= {1}, "an event is there twice"
            assert set(range(1, promised + 1)) <= set(counts), f"{promised} were promised, {len(counts)} are there"
        assert len(outcomes) <= 1
        assert moment.outcome is None or outcomes == [moment.outcome.value]
        for found in store.runs_found():
            recover_run(disk, store, found, itertools.count(2_000).__next__, lambda: 8)
        assert everything(disk) == after, "a second recovery changes something"


def everything(disk: SimulatedDisk) -> dict[str, bytes]:
    """All files and what is in them."""
    found = {}
    for directory in ("/state/journals", "/state/traces", "/state/quarantine"):
        for name in disk.list_directory(directory):
            path = f"{directory}/{name}"
            found[path] = disk.read(path, 0, disk.size(path))
    return found
