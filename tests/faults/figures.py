"""What the beds count, for the table that `make faults` prints: a line a figure, added to the file that the environment names."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import orjson

FILE = "COLLECTORD_FIGURES"
"""The variable that names the file; without it nothing is kept."""


def is_full() -> bool:
    """Whether the beds run at full counts (`make faults`), not at the short ones of `make beds`."""
    return bool(os.environ.get("COLLECTORD_FULL"))


def record(bed: str, figure: str, number: float) -> None:
    """Count something that a bed did or found.

    Args:
        bed: which one, in a few words ("SIGKILL at every call").
        figure: what ("kill points", "acknowledged events lost").
        number: added to what was recorded before.
    """
    path = os.environ.get(FILE)
    if path:
        with open(path, "ab") as file:
            file.write(orjson.dumps([bed, figure, number]) + b"\n")


def read(path: Path) -> dict[str, dict[str, float]]:
    """The sums, by bed and figure, in the order in which they came first."""
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for line in path.read_bytes().splitlines():
        bed, figure, number = orjson.loads(line)
        sums[bed][figure] += number
    return {bed: dict(figures) for bed, figures in sums.items()}
