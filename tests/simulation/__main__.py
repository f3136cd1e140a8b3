"""`python -m tests.simulation N [FIRST]`: N plays of fresh seeds, a summary, and each seed that broke a rule."""

from __future__ import annotations

import random
import sys
from collections import Counter

from tests.simulation.play import play
from tests.simulation.report import lines, record_figures


def main(arguments: list[str]) -> int:
    """Play; returns the exit status."""
    runs = int(arguments[0]) if arguments else 200
    first = int(arguments[1]) if len(arguments) > 1 else random.SystemRandom().randrange(1 << 40)
    print(
        f"seeds {first} to {first + runs - 1}: each is a play of its own, and `python -m tests.simulation 1 SEED` plays it again"
    )
    happened: Counter[str] = Counter()
    broken: list[tuple[int, str]] = []
    for seed in range(first, first + runs):
        try:
            happened += play(seed).happened
        except Exception as error:
            broken.append((seed, f"{type(error).__name__}: {error}"))
            if runs == 1:
                raise
    print("\n".join(lines(runs, happened, broken)))
    record_figures(runs, happened, broken)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
