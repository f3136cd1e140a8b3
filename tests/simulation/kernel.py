"""What the daemon asks of the kernel about processes, answered for processes that are not there.

Owns the pids, boots and deaths of the simulated machine. A pidfd is the reading end of a pipe: readable once its process is dead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType

from collectord.daemon import absence, collector, peer, processes, server

FIRST_PID = 5_000_000
"""Above every pid that Linux gives."""


class Process:
    """One process.

    Args:
        pid: of it.
        boot: in which it lives.
    """

    def __init__(self, pid: int, boot: int) -> None:
        self.pid = pid
        self.boot = boot
        self.is_alive = True
        self.signal: str | None = None
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.inode = os.fstat(self._reading).st_ino

    def pidfd(self) -> int:
        """One more descriptor that tells of its death."""
        return os.dup(self._reading)

    def die(self, signal: str | None) -> None:
        """It is gone; whoever watches it is told."""
        if self.is_alive:
            self.is_alive, self.signal = False, signal
            os.write(self._writing, b"x")

    def close(self) -> None:
        """Nobody asks for it any more."""
        os.close(self._reading)
        os.close(self._writing)


class Kernel:
    """All processes of one machine, over all its boots."""

    def __init__(self) -> None:
        self.boot = 1
        self.processes: dict[int, Process] = {}

    def start(self) -> Process:
        """A new process."""
        pid = FIRST_PID + len(self.processes)
        self.processes[pid] = Process(pid, self.boot)
        return self.processes[pid]

    def reboot(self) -> None:
        """Every process dies, and nobody can be told."""
        for process in self.processes.values():
            process.die(None)
        self.boot += 1

    def close(self) -> None:
        """The machine is no more."""
        for process in self.processes.values():
            process.close()

    # ------------------------------------------------------------ what the daemon asks

    def boot_id(self) -> str:
        """As ``processes.boot_id``."""
        return f"boot-{self.boot}"

    def start_time(self, pid: int) -> int:
        """As ``processes.start_time``."""
        process = self.processes.get(pid)
        return pid if process is not None and process.is_alive else 0

    def command_line(self, pid: int) -> str:
        """As ``processes.command_line``."""
        return f"agent {pid - FIRST_PID}" if pid in self.processes else ""

    def exit_status(self, pidfd: int) -> tuple[str | None, int | None] | None:
        """As ``processes.exit_status``."""
        inode = os.fstat(pidfd).st_ino
        process = next((process for process in self.processes.values() if process.inode == inode), None)
        if process is None or process.is_alive or process.signal is None:
            return None
        return process.signal, None

    def look_for(self, pid: int, process_start_time: int) -> tuple[processes.Life, int | None]:
        """As ``processes.look_for``."""
        if pid <= 0 or process_start_time <= 0:
            return processes.Life.UNKNOWN, None
        process = self.processes.get(pid)
        if process is None or not process.is_alive:
            return processes.Life.DEAD, None
        return processes.Life.ALIVE, process.pidfd()

    @contextmanager
    def in_place_of_the_real_one(self) -> Iterator[None]:
        """The daemon's modules ask this kernel, for as long as this lasts."""
        modules: list[ModuleType] = [absence, collector, peer, processes, server]
        names = ("boot_id", "start_time", "command_line", "exit_status", "look_for")
        with ExitStack() as undo:
            for module in modules:
                for name in names:
                    if hasattr(module, name):
                        undo.callback(setattr, module, name, getattr(module, name))
                        setattr(module, name, getattr(self, name))
            yield
