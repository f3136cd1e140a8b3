"""When a running trace file is due: soon after quiet, and paid for by growth under a stream."""

from __future__ import annotations

import random

from collectord.export.schedule import ExportSchedule


def play(arrivals: list[tuple[float, int]], ratio: float = 1.5) -> tuple[int, int, float]:
    """Bytes written by running exports, the final size, and how late the worst one shown was."""
    schedule = ExportSchedule()
    journal = written = 0
    oldest: float | None = None
    worst = 0.0
    for (now, size), following in zip(arrivals, [at for at, _ in arrivals[1:]] + [arrivals[-1][0] + 1e6], strict=True):
        journal += size
        schedule.stored(now, size)
        oldest = now if oldest is None else oldest
        while (due := schedule.due()) is not None and due < following:
            schedule.started()
            schedule.written(int(journal * ratio))
            written += int(journal * ratio)
            worst, oldest = max(worst, due - (oldest or due)), None
    return written, int(journal * ratio), worst


def test_nothing_is_due_where_nothing_happened() -> None:
    schedule = ExportSchedule()
    assert schedule.due() is None
    schedule.stored(5.0, 10)
    schedule.started()
    assert schedule.due() is None


def test_after_quiet_the_file_follows_within_the_stated_bound_for_every_size() -> None:
    for size in (100, 1 << 20, 50 << 20):
        schedule = ExportSchedule()
        for _ in range(20):
            schedule.stored(10.0, size // 20)
            schedule.written(size)
        due = schedule.due()
        assert due is not None
        assert due - 10.0 <= max(1.0, schedule.size_bytes / (1 << 20)) + 1e-9


def test_d1_a_continuous_stream_costs_no_more_than_twice_the_file_in_running_exports() -> None:
    for rate_hz, seconds, size in ((100, 20, 600), (10, 50, 300), (1_000, 20, 5_000), (3, 55, 2_000)):
        arrivals = [(n / rate_hz, size) for n in range(rate_hz * seconds)]
        written, final, _ = play(arrivals)
        assert written <= 2 * final + final, (rate_hz, written / final)


def test_any_pattern_writes_at_most_a_mebibyte_a_second() -> None:
    dice = random.Random(7)
    for _ in range(50):
        at, arrivals = 0.0, []
        for _ in range(300):
            at += dice.choice([0.01, 0.1, 1.1, 3.0])
            arrivals.append((at, dice.choice([100, 10_000, 500_000])))
        written, final, _ = play(arrivals)
        assert written <= (at + 2) * (1 << 20) + 3 * final


def test_a_stream_without_a_pause_is_never_shown_later_than_the_stated_age() -> None:
    arrivals = [(n * 0.5, 200) for n in range(7_200)]
    _, _, worst = play(arrivals)
    assert worst <= 61


def test_an_export_that_failed_is_owed() -> None:
    schedule = ExportSchedule()
    schedule.stored(1.0, 10)
    schedule.started()
    schedule.failed(2.0)
    due = schedule.due()
    assert due is not None
    assert due >= 3.0
