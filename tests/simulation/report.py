"""What plays came to, in a few lines, and as figures for the table of `make faults`."""

from __future__ import annotations

from collections import Counter

from tests.faults.figures import record

BED = "seeded simulation"
EFFECTS = (" nothing", " part", " whole", " lost")

_TROUBLE = ("agent killed", "connection dropped", "daemon killed", "daemon stopped", "power cut", "last power cut", "disk ",
            "quota", "descriptors", "renders fail", "render failed", "renderer outlived")  # fmt: skip


def kinds_of(happened: Counter[str], operation: str) -> int:
    """How often a call failed, by whatever error."""
    return sum(times for what, times in happened.items() if what.startswith(f"{operation} ") and what.endswith(EFFECTS))


def faults_of(happened: Counter[str]) -> dict[str, int]:
    """What went wrong on purpose, by kind."""
    found: Counter[str] = Counter()
    for what, times in happened.items():
        if what.endswith(EFFECTS):
            found[f"{what.split()[0]} failed"] += times
        elif what.startswith(_TROUBLE):
            found[what] += times
    return dict(sorted(found.items()))


def lines(runs: int, happened: Counter[str], broken: list[tuple[int, str]]) -> list[str]:
    """The summary."""
    faults = faults_of(happened)
    told = [f"{what}: {happened[f'ended {what}']}" for what in ("completed", "failed", "cancelled", "crashed")]
    return [
        f"{runs} plays, {sum(faults.values())} faults, {happened['events acknowledged']} events acknowledged, "
        f"{happened['owner resumed'] + happened['participant resumed']} resumes",
        "runs that ended: " + ", ".join(told),
        *(f"  {times:>8}  {what}" for what, times in faults.items()),
        *(f"BROKEN by seed {seed}: {why}" for seed, why in broken),
    ]


def record_figures(runs: int, happened: Counter[str], broken: list[tuple[int, str]]) -> None:
    """For the table."""
    record(BED, "simulated runs", runs)
    record(BED, "faults fired", sum(faults_of(happened).values()))
    record(BED, "events acknowledged", happened["events acknowledged"])
    record(BED, "resumes", happened["owner resumed"] + happened["participant resumed"])
    for figure, words in (
        ("acknowledged events lost", "is lost"),
        ("duplicates", "stored twice"),
        ("false crashes", "nobody wanted that"),
        ("wrong outcomes", "told"),
    ):
        record(BED, figure, sum(words in why for _, why in broken))
    record(BED, "plays that broke a rule", len(broken))
