"""`make bench`: every benchmark in turn, and a table of what was measured beside the goals. Nothing here passes or fails."""

from __future__ import annotations

import importlib
import sys
import time

from tests.benchmarks.machine import facts
from tests.benchmarks.report import table

BENCHMARKS = ("ingest", "lives", "big", "group", "recovery")


def main(names: list[str]) -> None:
    """Run the benchmarks of those names, or all."""
    print(facts())
    for name in names or BENCHMARKS:
        began = time.monotonic()
        figures = importlib.import_module(f"tests.benchmarks.{name}").main()
        print(f"\n{table(figures)}\n({name}: {time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
