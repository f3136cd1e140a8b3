"""The power goes at every write: what the real daemon had told by then is there when the real file system is mounted again.

A bed of its own (`python -m tests.faults.power`) records the block log of a workload and mounts its crash states; it is held here
to finding nothing in the daemon, and something in each daemon that forgets a sync.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import figures
from tests.faults.power.apart import FILE_SYSTEMS, needs, power_cuts

pytestmark = [pytest.mark.bed, pytest.mark.process]

GROUPS = 50
"""Acknowledged one after the other in each log, at the least."""

SHORT_S = 20
"""In the short form; the full one tries all of some 1,000 to 2,700 states, on three logs."""

MUTANTS = ("no-fdatasync", "an-fdatasync-forgotten-now-and-then", "no-directory-fsync")


@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_a_power_cut_at_any_write_takes_back_nothing_that_was_told(file_system: str, tmp_path: Path) -> None:
    needs(f"mkfs.{file_system}")
    for seed in (1, 2, 3) if figures.is_full() else (1,):
        directory = tmp_path / str(seed)
        directory.mkdir()
        states = ["--subsets", "2"] if figures.is_full() else ["--seconds", str(SHORT_S)]
        result = power_cuts(directory, file_system, "--seed", str(seed), *states)
        bed = f"power cuts on {file_system}"
        figures.record(bed, "crash states", result["states"])
        figures.record(bed, "acknowledged groups", result["groups"])
        figures.record(bed, "violations", result["violated"])
        assert result["groups"] >= GROUPS
        assert result["states"] > result["groups"], "each acknowledgement is a state that is never passed over"
        assert result["flushes"] > result["groups"], "each group is acknowledged after a flush of its own"
        assert not result["violations"]


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_the_power_cuts_find_a_sync_that_is_left_out(file_system: str, mutant: str, tmp_path: Path) -> None:
    needs(f"mkfs.{file_system}")
    result = power_cuts(tmp_path, file_system, "--mutant", mutant, "--seconds", "1", "--stop-early")
    figures.record("power cuts, mutants", "found", result["violated"] > 0)
    figures.record("power cuts, mutants", "missed", result["violated"] == 0)
    assert result["violations"], "the bed would not notice that a sync is left out"
