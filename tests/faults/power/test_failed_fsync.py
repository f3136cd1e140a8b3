"""An fdatasync that fails once at the block layer: the next one succeeds, and the disk still holds the old bytes.

The same bed as the power cuts, with a disk that fails chosen writes: what was acknowledged must be in every crash state of its
log, so it is not enough that a kernel remembers it. A daemon that tries the failed sync again and believes it is found out.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import figures
from tests.faults.power.apart import FILE_SYSTEMS, needs, power_cuts

pytestmark = [pytest.mark.bed, pytest.mark.process]

SHORT_S = 8
FAULTS = 6
"""Writes that fail once, in each log."""


@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_nothing_is_acknowledged_from_a_file_whose_sync_failed_once_or_for_as_long_as_the_disk_was_bad(
    file_system: str, tmp_path: Path
) -> None:
    needs(f"mkfs.{file_system}")
    states = [] if figures.is_full() else ["--seconds", str(SHORT_S)]
    result = power_cuts(tmp_path, file_system, "--failing", *states)
    figures.record("fdatasync fails once", "faults fired", result["faults_once"] + result["stalls"])
    figures.record("fdatasync fails once", "crash states", result["states"])
    figures.record("fdatasync fails once", "violations", result["violated"])
    assert result["faults_once"] == FAULTS
    assert result["stalls"] == 1
    assert not result["violations"]


@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_a_daemon_that_tries_the_failed_sync_again_and_acknowledges_is_found_out(file_system: str, tmp_path: Path) -> None:
    needs(f"mkfs.{file_system}")
    mutant = "retry-the-failed-fdatasync"
    result = power_cuts(tmp_path, file_system, "--failing", "--mutant", mutant, "--seconds", "1", "--stop-early")
    figures.record("fdatasync fails once", "mutants found", result["violated"] > 0)
    assert result["faults_once"] == FAULTS
    assert result["violations"], "the bed would not notice that a failed sync is believed"
