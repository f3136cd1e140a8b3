"""How long a run that was found open waits for its owner: by what is certain of the owner's process, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import trio
import trio.testing

from collectord.daemon.absence import absence_of
from collectord.daemon.processes import Life, boot_id, look_for, start_time
from collectord.model import CrashReason

SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_a_process_that_runs_is_alive_and_its_later_double_is_not() -> None:
    own = start_time(os.getpid())
    life, pidfd = look_for(os.getpid(), own)
    assert life is Life.ALIVE
    assert pidfd is not None
    os.close(pidfd)
    assert look_for(os.getpid(), own + 1) == (Life.DEAD, None)


def test_a_zombie_is_dead_and_so_is_who_has_been_reaped() -> None:
    process = subprocess.Popen(SLEEPER, stdin=subprocess.PIPE)
    started = start_time(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert look_for(process.pid, started) == (Life.DEAD, None), "a zombie answers, and is dead"
    process.communicate()
    assert look_for(process.pid, started) == (Life.DEAD, None)


@pytest.mark.parametrize(("pid", "started"), [(0, 5), (-1, 5), (1, 0)])
def test_without_a_pid_or_its_start_nothing_is_certain(pid: int, started: int) -> None:
    assert look_for(pid, started) == (Life.UNKNOWN, None)


def test_the_patience_is_what_is_certain() -> None:
    own, boot = start_time(os.getpid()), boot_id()
    alive = absence_of(os.getpid(), own, boot, boot, "process")
    assert (alive.patience_s, alive.pidfd is None) == (300.0, False)
    alive.close()
    assert absence_of(os.getpid(), own + 1, boot, boot, "process").patience_s == 0.0
    assert absence_of(os.getpid(), own, "another boot", boot, "process").patience_s == 0.0
    assert absence_of(os.getpid(), own, "another boot", boot, "connection").patience_s == 0.0
    assert absence_of(os.getpid(), own, boot, boot, "connection").patience_s == 10.0
    assert absence_of(0, 0, boot, boot, "process").patience_s == 10.0
    assert absence_of(0, 0, "", boot, "process").patience_s == 10.0


async def test_a_process_that_dies_while_it_is_waited_for_ends_the_wait_at_once() -> None:
    process = subprocess.Popen(SLEEPER, stdin=subprocess.PIPE)  # noqa: ASYNC220 — nobody else runs here
    boot = boot_id()
    absence = absence_of(process.pid, start_time(process.pid), boot, boot, "process")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(absence.over)
            await trio.testing.wait_all_tasks_blocked()
            process.kill()
    verdict = absence.verdict()
    assert verdict.reason is CrashReason.COLLECTOR_RESTARTED
    assert "died before it came back" in verdict.message
    absence.close()
    process.communicate()


async def test_without_a_process_the_time_alone_counts(autojump_clock: trio.testing.MockClock) -> None:
    absence = absence_of(0, 0, "", "", "process")
    began = trio.current_time()
    await absence.over()
    assert trio.current_time() - began == 10.0
    assert "did not come back within 10 s" in absence.verdict().message
