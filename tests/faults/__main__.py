"""`python -m tests.faults [--short]`: every bed of faults, at full counts, and one table of what was tried and what was found.

The beds assert their zeros themselves; the table says how much lies behind them. It is a failure too when a bed ran and did
nothing, or when a figure that must be there is not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

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

WANTED = ("kill points", "kills", "crash states", "bits flipped", "cuts", "simulated runs", "faults fired", "mutants noticed")
"""Beginnings of figures of which there must be some, unless a bed was skipped."""

Sums = dict[str, dict[str, float]]


def main(arguments: list[str]) -> int:
    """Run everything; returns the exit status."""
    is_short = "--short" in arguments
    with tempfile.TemporaryDirectory(prefix="cd-figures-") as directory:
        file = Path(directory) / "figures"
        file.touch()
        environment = {**os.environ, FILE: str(file)}
        if not is_short:
            environment["COLLECTORD_FULL"] = "1"
        failed, skipped = _run_beds(environment)
        failed |= _simulate(environment, 50 if is_short else SIMULATED_RUNS)
        sums = read(file)
    print("\n".join(table(sums)))
    for why in skipped:
        print(f"skipped: {why}")
    complaints = wrong_with(sums, bool(skipped))
    for complaint in complaints:
        print(f"WRONG: {complaint}")
    print("failed" if failed or complaints else "all zeros are zero")
    return 1 if failed or complaints else 0


def _run_beds(environment: dict[str, str]) -> tuple[bool, list[str]]:
    """Whether any failed, and why some were skipped. What they say is passed on as it comes."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", *BEDS]
    skipped: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            found = re.match(r"SKIPPED \[(\d+)\] (.+)", line)
            if found is not None:
                skipped.append(f"{found[1]} tests, {found[2]}")
    return process.returncode != 0, skipped


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


def wrong_with(sums: Sums, was_skipped: bool) -> list[str]:
    """What the table shows that must not be, or lacks."""
    wrong = [
        f"{bed}: {figure} is {n:,.0f}" for bed, figures in sums.items() for figure, n in figures.items() if figure in ZEROS and n
    ]
    wrong += [
        f"{bed}: did nothing"
        for bed, figures in sums.items()
        if not any(number for figure, number in figures.items() if figure not in ZEROS)
    ]
    seen = [figure for figures in sums.values() for figure, number in figures.items() if number]
    if not was_skipped:
        wrong += [f"no bed says how many {want}" for want in WANTED if not any(figure.startswith(want) for figure in seen)]
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
