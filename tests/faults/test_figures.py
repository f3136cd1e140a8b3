"""The table of `make faults` cannot be green by having nothing to say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.faults.__main__ import BEDS, ROOT, WANTED, Ran, ran_in, table, wrong_with
from tests.faults.figures import FILE, read, record

GOOD = {"a bed": {**dict.fromkeys(WANTED, 5.0), "acknowledged events lost": 0.0}}
ALL_RAN = {bed: Ran(tests=1) for bed in BEDS}


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
    assert wrong_with(GOOD, ALL_RAN) == []
    assert any("acknowledged events lost" in line and line.endswith(" 0") for line in table(GOOD))


def test_a_zero_that_is_none_a_bed_that_did_nothing_and_a_figure_that_is_missing_are_wrong() -> None:
    assert wrong_with({**GOOD, "b": {"faults fired": 1, "duplicates": 2}}, ALL_RAN) == ["b: duplicates is 2"]
    assert wrong_with({**GOOD, "b": {"faults fired": 0, "duplicates": 0}}, ALL_RAN) == ["b: did nothing"]


@pytest.mark.parametrize("figure", WANTED)
def test_only_who_was_skipped_may_have_nothing_to_say(figure: str) -> None:
    few = {"a bed": {other: 5.0 for other in WANTED if not other.startswith(figure)}}
    skipped = Ran(tests=2, skipped=Counter({"no strace": 1}))
    others = {bed: skipped for bed in BEDS if not WANTED[figure].startswith(bed)}
    lacking = f"no bed says how many {figure}"
    assert lacking in wrong_with(few, ALL_RAN)
    assert lacking in wrong_with(few, {**ALL_RAN, **others})
    assert lacking not in wrong_with(few, {**ALL_RAN, WANTED[figure]: skipped})


def test_nothing_at_all_is_wrong() -> None:
    assert {f"{bed}: no test of it was found" for bed in BEDS} <= set(wrong_with(GOOD, {}))


def test_what_became_of_the_tests_is_read_from_the_report_of_pytest() -> None:
    report = """<testsuites><testsuite>
        <testcase classname="tests.faults.test_kills" name="a"><skipped message="no strace">where</skipped></testcase>
        <testcase classname="tests.faults.test_kills" name="b" />
        <testcase classname="tests.simulation.test_disk" name="c"><failure message="x">y</failure></testcase>
    </testsuite></testsuites>"""
    assert ran_in(report) == {
        "tests/faults/test_kills.py": Ran(2, Counter({"no strace": 1})),
        "tests/simulation/test_disk.py": Ran(1),
    }


@pytest.mark.parametrize("bed", BEDS)
def test_every_bed_is_there(bed: str) -> None:
    assert (ROOT / bed).exists()
