"""The table of `make faults` cannot be green by having nothing to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.__main__ import BEDS, ROOT, WANTED, table, wrong_with
from tests.faults.figures import FILE, read, record

GOOD = {"a bed": {**dict.fromkeys(WANTED, 5.0), "acknowledged events lost": 0.0}}


def test_figures_are_summed_by_bed_in_the_order_in_which_they_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILE, str(tmp_path / "figures"))
    record("kills", "kill points", 3)
    record("cuts", "crash states", 7)
    record("kills", "kill points", 4)
    record("kills", "acknowledged events lost", 0)
    assert read(tmp_path / "figures") == {
        "kills": {"kill points": 7, "acknowledged events lost": 0},
        "cuts": {"crash states": 7},
    }


def test_a_table_of_zeros_that_has_everything_is_right() -> None:
    assert wrong_with(GOOD, was_skipped=False) == []
    assert any("acknowledged events lost" in line and line.endswith(" 0") for line in table(GOOD))


def test_a_zero_that_is_none_a_bed_that_did_nothing_and_a_figure_that_is_missing_are_wrong() -> None:
    assert wrong_with({**GOOD, "b": {"faults fired": 1, "duplicates": 2}}, was_skipped=False) == ["b: duplicates is 2"]
    assert wrong_with({**GOOD, "b": {"faults fired": 0, "duplicates": 0}}, was_skipped=False) == ["b: did nothing"]
    few = {"a bed": {figure: 5.0 for figure in WANTED if figure != "kills"}}
    assert wrong_with(few, was_skipped=False) == ["no bed says how many kills"]
    assert wrong_with(few, was_skipped=True) == []


@pytest.mark.parametrize("bed", BEDS)
def test_every_bed_is_there(bed: str) -> None:
    assert (ROOT / bed).exists()
