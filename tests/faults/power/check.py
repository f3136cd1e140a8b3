"""Holds a state directory that was left by a power cut against what had been told by then.

First the files are looked at as they lie: a finished file that was told must be there before anybody mends anything. Then the
product's own recovery goes over them, as it does at the start of a daemon, and everything told is looked for in what it leaves.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from typing import Any

import msgpack
import orjson

from collectord.export.request import RenderRequest
from collectord.export.worker import carry_out
from collectord.journal.disk import RealDisk
from collectord.journal.reader import JournalReader
from collectord.journal.recovery import Decision, Mending, Recovered, recover_run
from collectord.journal.store import RunFound, Store
from collectord.model import Outcome, RecordType
from collectord.session.records import unpack
from tests.faults.power.workload import Told, ToldRun, text_of

_ORDERED = (Decision.NOTHING, Decision.REVIVE)
"""What is decided of a journal that was brought into order before."""

Key = tuple[str, int]


def violations(state_dir: str, told: Told) -> list[str]:
    """Everything told that is not so; empty where all is well.

    Args:
        state_dir: on a file system that was mounted after a power cut. It is recovered here.
        told: what had been told when the power went.
    """
    found = _finished_files(told)
    if not os.path.isdir(state_dir):
        return found + [f"{stem}~{run} was opened, and there is no state directory" for stem, run in told.runs]
    store = Store(RealDisk(), state_dir, os.geteuid())
    store.prepare()
    store.sweep_temporary_files()
    found += _recover(store)
    runs = {(run.stem, run.run): run for run in store.runs_found()}
    found += [f"{stem}~{run} was opened, and has no journal" for stem, run in told.runs if (stem, run) not in runs]
    for key, run in runs.items():
        found += _journal(run, key, told.runs.get(key))
    found += _finished_files(told)
    return found


def _finished_files(told: Told) -> list[str]:
    """Those that were told must be there, be whole and say what was told."""
    found = []
    for (stem, run), told_run in told.runs.items():
        if told_run.finished_path is None:
            continue
        outcome = _outcome_in(told_run.finished_path)
        if outcome != told_run.outcome:
            found.append(f"{stem}~{run} was told {told_run.outcome}, its file says {outcome}")
    return found


def _outcome_in(path: str) -> str:
    try:
        with open(path, "rb") as file:
            document = orjson.loads(file.read())
        outcome: str = document["session"]["outcome"]
    except FileNotFoundError:
        return "nothing: it is not there"
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "nothing that can be read"
    return outcome


def _recover(store: Store) -> list[str]:
    """What a daemon does at its start, up to where it waits for clients; and again, which must change nothing."""
    found = []
    disk = RealDisk()
    for run in list(store.runs_found()):
        recovered = _recover_run(store, run)
        if recovered.damage.faults and recovered.decision is not Decision.QUARANTINE:
            found.append(f"{run.stem}~{run.run} is said to be damaged: {recovered.damage.faults}")
        if recovered.decision is Decision.DERIVE:
            out = store.temporary_path(run.uid, run.stem, run.run, 0)
            segments = store.segments_of(run.uid, run.stem, run.run)
            carry_out(RenderRequest([(path, disk.size(path)) for path in segments], None, out, True))
            disk.rename(out, store.trace_path(run.uid, run.stem, run.run))
            disk.sync_directory(store.trace_directory(run.uid))
    for run in list(store.runs_found()):
        again = _recover_run(store, run)
        if again.decision not in _ORDERED or again.mending is not Mending.NONE:
            found.append(f"{run.stem}~{run.run} was recovered, and then again: {again.decision.value}, {again.mending.value}")
    return found


def _recover_run(store: Store, run: RunFound) -> Recovered:
    return recover_run(RealDisk(), store, run, lambda: secrets.randbits(32), time.time_ns)


def _journal(run: RunFound, key: Key, told: ToldRun | None) -> list[str]:
    """One run after the recovery: each told event once, the told outcome, and a file that says the same."""
    name = f"{key[0]}~{key[1]}"
    found: list[str] = []
    stored: Counter[tuple[int, int]] = Counter()
    outcomes = []
    reader = JournalReader(RealDisk(), run.segment_paths, [None] * len(run.segment_paths))
    for record in reader:
        if record.type is RecordType.EVENTS:
            for index, event in enumerate(msgpack.unpackb(record.body)):
                sequence = record.first_sequence + index
                stored[record.producer, sequence] += 1
                if not _says(event, text_of(*key, record.producer, sequence)):
                    found.append(f"{name}: event {record.producer}/{sequence} is another one: {str(event)[:100]}")
        elif record.type is RecordType.TERMINAL:
            outcomes.append(unpack(record.body)["outcome"])
    if reader.damage.faults:
        found.append(f"{name}: after the recovery there is damage: {reader.damage.faults}")
    twice = [event for event, times in stored.items() if times > 1]
    if twice:
        found.append(f"{name}: stored more than once: {twice[:5]}")
    if len(outcomes) > 1:
        found.append(f"{name}: more than one end: {outcomes}")
    if outcomes and _outcome_in(str(run.trace_path)) != outcomes[0]:
        found.append(f"{name}: the journal says {outcomes[0]}, the file {_outcome_in(str(run.trace_path))}")
    return found + _told(name, told, stored, outcomes)


def _told(name: str, told: ToldRun | None, stored: Counter[tuple[int, int]], outcomes: list[str]) -> list[str]:
    if told is None:
        return []
    found = []
    for producer, one in told.producers.items():
        lost = [sequence for sequence in range(1, one.acknowledged + 1) if not stored[producer, sequence]]
        if lost:
            found.append(f"{name}: lost of producer {producer}, acknowledged up to {one.acknowledged}: {lost[:5]}")
    if told.outcome is not None and outcomes != [told.outcome]:
        found.append(f"{name} was told {told.outcome}, its journal says {outcomes}")
    if outcomes and told.outcome is None and outcomes[0] not in _POSSIBLE:
        found.append(f"{name}: an outcome that nobody asked for: {outcomes[0]}")
    return found


_POSSIBLE = frozenset(outcome.value for outcome in Outcome if outcome.is_terminal)


def _says(event: Any, text: str) -> bool:
    """Whether one of the event's texts is that one."""
    for value in event:
        if isinstance(value, str) and (value == text or value.startswith(text + " ")):
            return True
        if isinstance(value, dict) and value.get("text") == text:
            return True
    return False
