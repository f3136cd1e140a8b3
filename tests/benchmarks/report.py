"""One figure of a benchmark, and the table of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen


@frozen
class Figure:
    """One line of the table.

    Attributes:
        what: was measured.
        value: as a person reads it.
        goal: of the project, empty where there is none.
        met: whether the goal is met; None where there is none.
        ratio: to what was measured beside it, in the same run.
    """

    what: str
    value: str
    goal: str = ""
    met: bool | None = None
    ratio: str = ""


_HEADINGS = ("figure", "measured", "goal", "", "in the same run")
_VERDICTS = {None: "", True: "met", False: "MISSED"}


def table(figures: Sequence[Figure]) -> str:
    """The figures in columns."""
    rows = [_HEADINGS, *((figure.what, figure.value, figure.goal, _VERDICTS[figure.met], figure.ratio) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def mebibytes(size: float) -> str:
    """A size as a person reads it."""
    return f"{size / (1 << 20):.1f} MiB"


def milliseconds(seconds: float) -> str:
    """A time as a person reads it."""
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
