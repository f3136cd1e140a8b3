"""SIGKILL of the daemon at every file system call in turn: of a first start, a workload and a stop; of a recovery; of renderers.

What this shows is that no order of calls loses or doubles anything when the process dies between two of them. It shows nothing of
fsync: the page cache survives a process. With COLLECTORD_FULL=1 every call is taken, else some of them, evenly spread.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from collectord.model import Outcome
from tests.faults import figures
from tests.faults.kills import (
    Listing,
    Point,
    Strace,
    gated,
    kill_at,
    list_calls,
    listing,
    need_strace,
    renderers_of,
    scratch_daemon,
)
from tests.faults.lives import RESUMES, Lives, check, finish, live
from tests.process.daemon import Daemon

pytestmark = [pytest.mark.process, pytest.mark.bed]

SHORT = 16
"""How many points are taken where not all are."""

AT_ONCE = 2
TRIES = 3

TORN = b"\1" * 7
"""The beginning of a record: less than a header."""


def some(points: list[Point]) -> list[Point]:
    """All, or some that are evenly spread."""
    step = 1.0 if figures.is_full() else max(1.0, len(points) / SHORT)
    return [points[int(number * step)] for number in range(int(len(points) / step))]


def at_each(what: str, points: list[Point], die_at: Callable[[Point], bool]) -> None:
    """Try every point, a few at a time; what goes wrong is said with its point, and what was tried is recorded.

    Args:
        what: dies, for the table of figures.
        points: all there are; some are taken.
        die_at: tries one; returns whether anything was killed. Where a thread less had come so far, it is tried again.
    """

    def tried(point: Point) -> bool:
        try:
            return any(die_at(point) for _ in range(TRIES))
        except BaseException as error:
            error.add_note(f"killed at {point}")
            raise

    taken = some(points)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        reached = list(threads.map(tried, taken))
    not_reached = [str(point) for point, was in zip(taken, reached, strict=True) if not was]
    print(f"{what}: {len(taken)} of {len(points)} points, not reached again: {not_reached}")
    assert len(not_reached) <= max(1, len(taken) // 20)
    figures.record("SIGKILL at every call", f"kill points in {what}", sum(reached))


def list_a_life() -> Listing:
    """Every call of a daemon that is started, lived with and stopped."""
    with scratch_daemon() as (daemon, notes):
        lives = Lives()
        with gated(daemon) as pid:
            strace = list_calls([pid], notes)
        daemon.wait_until_it_listens()
        assert live(daemon, lives) == 0
        strace.process.wait(30)
        with strace.log.open() as log:
            return listing(log, daemon.directory)


def test_a_daemon_killed_at_any_call_of_its_life_loses_nothing_that_it_had_acknowledged() -> None:
    need_strace()
    found = list_a_life()
    assert len(found.points) > 80
    assert len(found.points) >= 0.9 * found.calls, "two threads at one path hide calls from a count by threads"
    acknowledged: list[int] = []

    def die(point: Point) -> bool:
        with scratch_daemon() as (daemon, notes):
            lives = Lives()
            with gated(daemon) as pid:
                strace = kill_at(point, [pid], daemon.directory, notes)
            if daemon.listens():
                live(daemon, lives)
            strace.process.wait(30)
            acknowledged.append(lives.acknowledged)
            daemon.start()
            finish(daemon, lives)
            assert daemon.stop() == 0
            check(daemon, lives)
            return strace.has_killed()

    at_each("a life", found.points, die)
    assert len(set(acknowledged)) > 3, "they died at different moments"
    figures.record("SIGKILL at every call", "acknowledged events", sum(acknowledged))


def test_a_recovery_killed_at_any_call_is_gone_on_with_by_the_next() -> None:
    """What it finds: two runs to be resumed, one with a torn tail, an outcome without its file, a file that was never renamed."""
    need_strace()
    with scratch_daemon() as (found, _notes):
        lives = Lives()
        found.start()
        assert live(found, lives, signal.SIGKILL) == -signal.SIGKILL
        with (found.state_dir / "journals" / "stays~1.0.journal").open("ab") as journal:
            journal.write(TORN)
        (found.state_dir / "traces" / "crashes.json").unlink()
        (found.state_dir / "traces" / ".ends~1.7.tmp").write_bytes(b"half")

        def recover(daemon: Daemon, attach: Callable[[int], Strace]) -> Strace:
            shutil.copytree(found.state_dir, daemon.state_dir)
            with gated(daemon) as pid:
                strace = attach(pid)
            if daemon.listens():
                daemon.stop(signal.SIGKILL)
            strace.process.wait(30)
            return strace

        with scratch_daemon() as (daemon, own):
            strace = recover(daemon, lambda pid: list_calls([pid], own))
            with strace.log.open() as log:
                listed = listing(log, daemon.directory)
        assert len(listed.points) > 50

        def die(point: Point) -> bool:
            with scratch_daemon() as (daemon, own):
                strace = recover(daemon, lambda pid: kill_at(point, [pid], daemon.directory, own))
                daemon.start()
                ours = lives.copy()
                finish(daemon, ours)
                assert daemon.stop() == 0
                check(daemon, ours)
                if RESUMES:
                    assert daemon.trace("stays")["session"]["integrity"]["torn_bytes"] == len(TORN)
                return strace.has_killed()

        at_each("a recovery", listed.points, die)


def test_a_renderer_killed_at_any_call_is_replaced_and_nobody_notices() -> None:
    need_strace()
    with scratch_daemon() as (daemon, notes):
        daemon.start()
        strace = list_calls(renderers_of(daemon), notes)
        assert live(daemon, Lives()) == 0
        strace.process.wait(30)
        with strace.log.open() as log:
            listed = listing(log, daemon.directory)
    assert len(listed.points) > 20

    def die(point: Point) -> bool:
        with scratch_daemon() as (daemon, notes):
            lives = Lives()
            daemon.start()
            strace = kill_at(point, renderers_of(daemon), daemon.directory, notes)
            assert live(daemon, lives) == 0
            strace.process.wait(30)
            assert [known.told for known in lives.each] == [None, None, Outcome.COMPLETED, Outcome.CRASHED]
            assert strace.has_killed() == ("a renderer died" in daemon.said())
            daemon.start()
            finish(daemon, lives)
            assert daemon.stop() == 0
            check(daemon, lives)
            return strace.has_killed()

    at_each("a renderer", listed.points, die)
