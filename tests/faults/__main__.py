"""`python -m tests.faults [--short]`: every bed of faults, at full counts, and one table of what was tried and what was found.

The beds assert their zeros themselves; the table says how much lies behind them. It is a failure too when a bed ran and did
nothing, or when a figure that must be there is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from attrs import Factory, define

from tests.faults.figures import FILE, read

ROOT = Path(__file__).resolve().parents[2]

BEDS = [
    "tests/faults",
    "tests/simulation",
    "tests/journal/test_flips_and_cuts.py",
    "tests/daemon/test_d7_every_call_fails.py",
    "tests/daemon/test_d7_of_a_restart.py",
    "tests/daemon/test_mutants_of_durability.py",
    "tests/scenarios/test_m2c_kills.py",
    "tests/scenarios/test_l3_restarts.py",
    "tests/scenarios/test_d15_stops.py",
    "tests/scenarios/test_d12_damage.py",
    "tests/scenarios/test_grace.py",
    "tests/scenarios/test_l11_kv.py",
]
"""What is run, from the quickest part of the suite to the slowest beds."""

SIMULATED_RUNS = 1_000

ZEROS = (
    "acknowledged events lost", "duplicates", "false crashes", "wrong outcomes", "violations", "missed",
    "plays that broke a rule",
)  # fmt: skip
"""Figures that must be zero."""

WANTED = {
    "kill points": "tests/faults/test_kills.py",
    "kills": "tests/scenarios/test_m2c_kills.py",
    "crash states": "tests/faults/power",
    "bits flipped": "tests/journal/test_flips_and_cuts.py",
    "cuts": "tests/journal/test_flips_and_cuts.py",
    "simulated runs": "tests/simulation",
    "faults fired": "tests/simulation",
    "mutants noticed": "tests/daemon/test_mutants_of_durability.py",
}
"""Beginnings of figures of which there must be some, and whose they are: none may lack but where its tests were skipped."""

Sums = dict[str, dict[str, float]]


@define
class Ran:
    """What became of the tests of a bed."""

    tests: int = 0
    skipped: Counter[str] = Factory(Counter)


def main(arguments: list[str]) -> int:
    """Run everything; returns the exit status."""
    is_short = "--short" in arguments
    with tempfile.TemporaryDirectory(prefix="cd-figures-") as directory:
        file = Path(directory) / "figures"
        file.touch()
        environment = {**os.environ, FILE: str(file)}
        if not is_short:
            environment["COLLECTORD_FULL"] = "1"
        failed = _run_beds(environment, report := Path(directory) / "report")
        failed |= _simulate(environment, 50 if is_short else SIMULATED_RUNS)
        sums, ran = read(file), ran_in(report.read_text() if report.exists() else "<nothing/>")
    print("\n".join(table(sums)))
    for file_name, became in ran.items():
        for why, number in became.skipped.items():
            print(f"skipped: {number} of {became.tests} tests in {file_name}: {why}")
    complaints = wrong_with(sums, ran)
    for complaint in complaints:
        print(f"WRONG: {complaint}")
    print("failed" if failed or complaints else "all zeros are zero")
    return 1 if failed or complaints else 0


def _run_beds(environment: dict[str, str], report: Path) -> bool:
    """Whether any failed. What they say is passed on as it comes; what became of each test is in the report."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", f"--junitxml={report}", *BEDS]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0


def ran_in(report: str) -> dict[str, Ran]:
    """What became of the tests, by file, from a report as pytest writes it."""
    found: dict[str, Ran] = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        ran = found.setdefault(case.get("classname", "").replace(".", "/") + ".py", Ran())
        ran.tests += 1
        skipped = case.find("skipped")
        if skipped is not None:
            ran.skipped[skipped.get("message", "")] += 1
    return found


def _simulate(environment: dict[str, str], runs: int) -> bool:
    command = [sys.executable, "-m", "tests.simulation", str(runs)]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0


def table(sums: Sums) -> Iterable[str]:
    """One line a figure, under its bed; what must be zero stands last."""
    width = max((len(figure) for figures in sums.values() for figure in figures), default=0)
    for bed, figures in sums.items():
        yield ""
        yield bed
        for figure in sorted(figures, key=lambda one: one in ZEROS):
            yield f"  {figure:<{width}}  {figures[figure]:>12,.0f}"
    yield ""


def wrong_with(sums: Sums, ran: dict[str, Ran]) -> list[str]:
    """What the table shows that must not be, or lacks."""
    wrong = [
        f"{bed}: {figure} is {n:,.0f}" for bed, figures in sums.items() for figure, n in figures.items() if figure in ZEROS and n
    ]
    wrong += [
        f"{bed}: did nothing"
        for bed, figures in sums.items()
        if not any(number for figure, number in figures.items() if figure not in ZEROS)
    ]
    wrong += [f"{bed}: no test of it was found" for bed in BEDS if not any(file.startswith(bed) for file in ran)]
    seen = [figure for figures in sums.values() for figure, number in figures.items() if number]
    for want, whose in WANTED.items():
        was_skipped = any(became.skipped for file, became in ran.items() if file.startswith(whose))
        if not was_skipped and not any(figure.startswith(want) for figure in seen):
            wrong.append(f"no bed says how many {want}")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
