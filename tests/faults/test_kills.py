"""SIGKILL of the daemon at every file system call in turn: of a first start, a workload and a stop; of a recovery; of renderers.

What this shows is that no order of calls loses or doubles anything when the process dies between two of them. It shows nothing of
fsync: the page cache survives a process. With COLLECTORD_FULL=1 every call is taken, else some of them, evenly spread.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from collectord.model import Outcome
from tests.faults import figures
from tests.faults.kills import Killer, Listing, Point, gated, need_strace, renderers_of, scratch_daemon
from tests.faults.lives import BED, HALF, Lives, check, finish, live
from tests.process.daemon import Daemon

pytestmark = [pytest.mark.process, pytest.mark.bed]

SHORT = 16
"""How many points are taken where not all are."""

AT_ONCE = 2
TRIES = 3

TORN = b"\1" * 7
"""The beginning of a record: less than a header."""


def at_each(what: str, found: Listing, die_at: Callable[[Point], bool], hidden_max: float = 0.05) -> None:
    """Try every point, or some that are evenly spread, two at a time; what goes wrong is said with its point.

    Args:
        what: dies, for the table of figures.
        found: all the points there are.
        die_at: tries one; returns whether anything was killed. Where another thread had come so far, it is tried again.
        hidden_max: how many of the calls may be hidden behind those of other threads, as a share.
    """
    assert len(found.points) >= (1 - hidden_max) * found.calls, "two threads at one path hide calls from a count by threads"
    step = 1.0 if figures.is_full() else max(1.0, len(found.points) / SHORT)
    taken = [found.points[int(number * step)] for number in range(int(len(found.points) / step))]

    def tried(point: Point) -> bool:
        try:
            return any(die_at(point) for _ in range(TRIES))
        except BaseException as error:
            error.add_note(f"killed at {point}")
            raise

    with ThreadPoolExecutor(AT_ONCE) as threads:
        reached = list(threads.map(tried, taken))
    missed = [str(point) for point, was in zip(taken, reached, strict=True) if not was]
    print(f"{what}: {found.calls} calls, {len(found.points)} points, {len(taken)} tried, not reached again: {missed}")
    assert len(missed) <= max(1, len(taken) // 20)
    figures.record(BED, f"kill points in {what}", sum(reached))


def check_next(daemon: Daemon, lives: Lives) -> None:
    """The next daemon lets everybody go on, and then all is as it was told."""
    daemon.start()
    assert finish(daemon, lives)
    assert daemon.stop() == 0
    check(daemon, lives)


def test_a_daemon_killed_at_any_call_of_its_life_loses_nothing_that_it_had_acknowledged() -> None:
    need_strace()

    def live_all(daemon: Daemon, lives: Lives, watch: Callable[[int], None]) -> int | None:
        with gated(daemon):
            watch(0)
        return live(daemon, lives, watch) if daemon.listens() else None

    with scratch_daemon() as (daemon, notes):
        found = Listing(lambda: [daemon.pid], daemon.directory, notes)
        assert live_all(daemon, Lives(), found) == 0
        found.close()
    assert len(found.points) > 80
    acknowledged: list[int] = []

    def die(point: Point) -> bool:
        with scratch_daemon() as (daemon, notes):
            killer, lives = Killer(point, lambda: [daemon.pid], daemon.directory, notes), Lives()
            live_all(daemon, lives, killer)
            acknowledged.append(lives.acknowledged)
            check_next(daemon, lives)
            return killer.has_killed()

    at_each("a life", found, die)
    assert len(set(acknowledged)) > 3, "they died at different moments"


@contextmanager
def half_a_life() -> Iterator[tuple[Daemon, Lives]]:
    """A daemon that was killed in the midst of its work, and what its clients know."""
    with scratch_daemon() as (left, _notes):
        lives = Lives()
        left.start()
        assert live(left, lives, steps=HALF) == -signal.SIGKILL
        yield left, lives


def test_a_recovery_killed_at_any_call_is_gone_on_with_by_the_next() -> None:
    """What it finds: two runs to be resumed, one with a torn tail, an outcome without its file, a file that was never renamed."""
    need_strace()
    with half_a_life() as (left, lives):
        with (left.state_dir / "journals" / "stays~1.0.journal").open("ab") as journal:
            journal.write(TORN)
        (left.state_dir / "traces" / "crashes.json").unlink()
        (left.state_dir / "traces" / ".ends~1.7.tmp").write_bytes(b"half")

        def recover(daemon: Daemon, watch: Callable[[int], None]) -> None:
            shutil.copytree(left.state_dir, daemon.state_dir)
            with gated(daemon):
                watch(0)
            if daemon.listens():
                daemon.stop(signal.SIGKILL)

        with scratch_daemon() as (daemon, notes):
            found = Listing(lambda: [daemon.pid], daemon.directory, notes)
            recover(daemon, found)
            found.close()
        assert len(found.points) > 50

        def die(point: Point) -> bool:
            with scratch_daemon() as (daemon, notes):
                killer, ours = Killer(point, lambda: [daemon.pid], daemon.directory, notes), lives.copy()
                recover(daemon, killer)
                check_next(daemon, ours)
                assert daemon.trace("stays")["session"]["integrity"]["torn_bytes"] == len(TORN)
                return killer.has_killed()

        at_each("a recovery", found, die, hidden_max=0.15)  # all in one step, and by several threads


def test_a_daemon_killed_at_any_call_while_its_clients_come_back_lets_them_come_back_again() -> None:
    need_strace()
    with half_a_life() as (left, lives):

        def come_back(daemon: Daemon, ours: Lives, watch: Callable[[int], None]) -> bool:
            shutil.copytree(left.state_dir, daemon.state_dir)
            daemon.start()
            return finish(daemon, ours, watch)

        with scratch_daemon() as (daemon, notes):
            found = Listing(lambda: [daemon.pid], daemon.directory, notes)
            assert come_back(daemon, lives.copy(), found)
            found.close()
        assert len(found.points) > 20

        def die(point: Point) -> bool:
            with scratch_daemon() as (daemon, notes):
                killer, ours = Killer(point, lambda: [daemon.pid], daemon.directory, notes), lives.copy()
                if come_back(daemon, ours, killer):
                    daemon.stop(signal.SIGKILL)
                check_next(daemon, ours)
                return killer.has_killed()

        at_each("a return", found, die)


def test_a_renderer_killed_at_any_call_is_replaced_and_nobody_notices() -> None:
    need_strace()
    with scratch_daemon() as (daemon, notes):
        daemon.start()
        found = Listing(lambda: renderers_of(daemon), daemon.directory, notes)
        assert live(daemon, Lives(), found) == 0
        found.close()
    assert len(found.points) > 20

    def die(point: Point) -> bool:
        with scratch_daemon() as (daemon, notes):
            killer, lives = Killer(point, lambda: renderers_of(daemon), daemon.directory, notes), Lives()
            daemon.start()
            assert live(daemon, lives, killer) == 0
            assert [known.told for known in lives.each] == [None, None, Outcome.COMPLETED, Outcome.CRASHED]
            assert killer.has_killed() == ("a renderer died" in daemon.said())
            check_next(daemon, lives)
            return killer.has_killed()

    at_each("a renderer", found, die)
