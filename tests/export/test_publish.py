"""Putting a rebuilt trace file under its name: whatever fails, the old bytes are somewhere, and nothing half written is there."""

from __future__ import annotations

import errno

import pytest

from collectord.export.publish import publish
from collectord.journal.reader import JournalReader
from tests.export.states import STATE, RunInMemory, StateInMemory

OLD = b"what was there"
ASIDE = f"{STATE}/quarantine/s.json"
TEMPORARY = f"{STATE}/traces/.s~1.0.tmp"


def _state() -> tuple[StateInMemory, RunInMemory]:
    state = StateInMemory()
    run = state.run()
    run.span()
    state.put(run.trace_path, OLD)
    for directory in ("traces", "quarantine"):
        state.disk.sync_directory(f"{STATE}/{directory}")
    return state, run


def _publish(state: StateInMemory, run: RunInMemory, aside: str | None) -> None:
    publish(state.disk, lambda: JournalReader(state.disk, [run.journal_path], [None]), TEMPORARY, run.trace_path, aside)


@pytest.mark.parametrize("aside", [None, ASIDE])
def test_what_was_put_in_place_survives_any_power_cut(aside: str | None) -> None:
    state, run = _state()
    state.put(TEMPORARY, b"left by an export that never came to its end, and longer than the document" * 99)
    _publish(state, run, aside)
    for choose in (min, max):
        survivor = state.disk.power_cut(choose)
        assert survivor.read(run.trace_path, 0, 1 << 20) == run.rendered()
        assert not survivor.exists(TEMPORARY)
        if aside is not None:
            assert survivor.read(aside, 0, 1 << 20) == OLD


@pytest.mark.parametrize("aside", [None, ASIDE])
def test_whichever_call_fails_the_old_bytes_are_in_their_place_or_aside_and_nothing_half_written_is(aside: str | None) -> None:
    state, run = _state()
    state.disk.operations.clear()
    _publish(state, run, aside)
    calls = [operation for operation, *_ in state.disk.operations if operation not in ("read", "size", "unlink")]
    assert calls[-2:] == ["rename", "sync_directory"]
    for index, operation in enumerate(calls):
        state, run = _state()
        state.disk.fail_nth(operation, calls[: index + 1].count(operation), errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            _publish(state, run, aside)
        assert state.disk.open_files() == 1  # the journal's own
        assert not state.disk.exists(TEMPORARY)
        for choose in (min, max):
            survivor = state.disk.power_cut(choose)
            files = [survivor.read(path, 0, 1 << 20) for path in (run.trace_path, ASIDE) if survivor.exists(path)]
            assert set(files) <= {OLD, run.rendered()}, (operation, choose)
            assert OLD in files or (aside is None and files == [run.rendered()]), (operation, choose)
