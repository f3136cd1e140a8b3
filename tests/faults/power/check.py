"""Holds a state directory that was left by a power cut against what had been told by then.

First the files are looked at as they lie: a finished file that was told must be there before anybody mends anything. Then the
product's own revival goes over them, as at the start of a daemon after the machine was restarted, its owners bring every run
to its end, and everything told is looked for in what they leave.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import lru_cache
from typing import Any

import msgpack
import orjson
from attrs import frozen

from collectord.journal.disk import RealDisk
from collectord.journal.reader import JournalReader
from collectord.journal.store import RunFound, Store
from collectord.model import RecordType
from collectord.session.records import unpack
from tests.faults.power.restart import restart
from tests.faults.power.workload import Told, ToldRun, text_of

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
    found += restart(store, told.runs, {key for key, run in told.runs.items() if run.outcome is not None})
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
    return _said_in(path)[0]


def _said_in(path: str) -> tuple[str, int]:
    """The outcome in a trace file, and how many events it says it has."""
    try:
        return _read_document(_bytes(path))
    except FileNotFoundError:
        return "nothing: it is not there", 0


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@lru_cache(maxsize=256)
def _read_document(raw: bytes) -> tuple[str, int]:
    try:
        session = orjson.loads(raw)["session"]
        return session["outcome"], session["counts"]["events"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "nothing that can be read", 0


def _journal(run: RunFound, key: Key, told: ToldRun | None) -> list[str]:
    """One run after the recovery: each told event once, the told outcome, and a file that says the same."""
    name = f"{key[0]}~{key[1]}"
    content = _read_journal(key, tuple((path, _bytes(path)) for path in run.segment_paths))
    found = list(content.wrong)
    outcomes = content.outcomes
    if len(outcomes) != 1:
        found.append(f"{name}: it has {len(outcomes)} ends: {outcomes}")
    elif (said := _said_in(str(run.trace_path))) != (outcomes[0], content.stored.total()):
        found.append(f"{name}: the journal says {outcomes[0]} with {content.stored.total()} events, the file {said}")
    return found + _told(name, told, content.stored, outcomes)


@frozen
class _Content:
    """What a journal holds: how often each event, which ends, and what is wrong with it."""

    stored: Counter[tuple[int, int]]
    outcomes: list[str]
    wrong: list[str]


@lru_cache(maxsize=256)
def _read_journal(key: Key, files: tuple[tuple[str, bytes], ...]) -> _Content:
    """Read by the product's reader. Remembered by its bytes, since finished journals are the same in most states."""
    name = f"{key[0]}~{key[1]}"
    found: list[str] = []
    stored: Counter[tuple[int, int]] = Counter()
    outcomes = []
    paths = [path for path, _ in files]
    reader = JournalReader(RealDisk(), paths, [None] * len(paths))
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
    return _Content(stored, outcomes, found)


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
    if told.outcome is None and outcomes not in (["crashed"], [told.asked]):
        found.append(f"{name}: an end that nobody asked for: {outcomes}")
    return found


def _says(event: Any, text: str) -> bool:
    """Whether one of the event's texts is that one."""
    for value in event:
        if isinstance(value, str) and (value == text or value.startswith(text + " ")):
            return True
        if isinstance(value, dict) and value.get("text") == text:
            return True
    return False
