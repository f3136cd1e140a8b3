"""Who is at the other end, and is it still alive: peer credentials, pidfds, how a process ended.

Owns every system call about other processes. Knows nothing of runs. Two rules are kept here and nowhere else: a process is
dead only when its pidfd is readable or the kernel says ESRCH for a positive pid; and no error of these calls ever means
death, only "no detail".
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from enum import Enum
from typing import Final

import trio
from attrs import frozen

from collectord.limits import VERDICT_WAIT_S
from collectord.model import CrashReason, Verdict

_SO_PEERPIDFD: Final = 77
_UCRED: Final = struct.Struct("iII")

_PIDFD_INFO: Final = struct.Struct("<QQ11Ii")
"""struct pidfd_info as of Linux 6.13: mask, cgroup id, eleven ids, exit code; later kernels accept the shorter one."""
_PIDFD_GET_INFO: Final = (3 << 30) | (_PIDFD_INFO.size << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT: Final = 1 << 3

_FIRST_LOOK_S: Final = 0.002
"""The exit status is there once the parent has reaped, which is mostly at once: look soon, then ever less often."""

_COMMAND_SIZE_MAX_BYTES: Final = 4_096
"""Why: a command line is kept for display with every run; what is longer is cut."""


@frozen
class PeerProcess:
    """The process at the other end of a connection, as the kernel tells.

    Attributes:
        pid: 0 where the peer lives in another pid namespace.
        uid: of the peer when it connected.
        pidfd: readable once the process is dead; None where the kernel gives none.
        was_dead: the process was gone already when it was asked for.
    """

    pid: int
    uid: int
    pidfd: int | None
    was_dead: bool

    def close(self) -> None:
        """Give back the descriptor."""
        if self.pidfd is not None:
            os.close(self.pidfd)

    @property
    def is_dead(self) -> bool:
        """Whether it is certainly dead."""
        if self.pidfd is None:
            return self.was_dead
        return is_readable(self.pidfd)


def identify(connection: socket.socket) -> PeerProcess:
    """Who is at the other end of a connected Unix socket.

    Raises:
        OSError: the socket itself is unusable.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(raw)
    try:
        pidfd = struct.unpack("i", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4))[0]
        os.set_inheritable(pidfd, False)
        return PeerProcess(pid, uid, pidfd, False)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):  # dead and reaped; some kernels say EINVAL for that
            return PeerProcess(pid, uid, None, True)
        # ENOPROTOOPT: a kernel before 6.5. Anything else (EMFILE, say) is no statement about life either.
    if pid <= 0:
        return PeerProcess(pid, uid, None, False)
    try:
        return PeerProcess(pid, uid, os.pidfd_open(pid), False)
    except ProcessLookupError:
        return PeerProcess(pid, uid, None, True)
    except OSError:
        return PeerProcess(pid, uid, None, False)


def is_readable(fd: int) -> bool:
    """Whether a descriptor is readable now; for a pidfd: whether its process is dead."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def exit_status(pidfd: int) -> tuple[str | None, int | None] | None:
    """How a dead process ended: (signal name, None) or (None, exit code).

    Returns:
        None while the kernel does not tell: not reaped yet, a kernel before 6.15, or any error.
    """
    buffer = bytearray(_PIDFD_INFO.size)
    _PIDFD_INFO.pack_into(buffer, 0, _PIDFD_INFO_EXIT, *([0] * 13))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    fields = _PIDFD_INFO.unpack(buffer)
    if not fields[0] & _PIDFD_INFO_EXIT:
        return None
    status = fields[-1]
    number = status & 0x7F
    if number:
        try:
            return signal.Signals(number).name, None
        except ValueError:
            return f"SIG{number}", None
    return None, (status >> 8) & 0xFF


async def verdict_on(process: PeerProcess, *, counts: bool) -> Verdict:
    """What is to be said of an owner that is gone.

    Args:
        process: at the other end of its connection.
        counts: whether the process is the agent (``liveness: process``); otherwise only its connection speaks for it.

    Cancellation: at any point; nothing is held. Waits at most ``VERDICT_WAIT_S``.
    """
    closed = Verdict(CrashReason.CONNECTION_CLOSED, "the agent's connection was closed before the run was ended")
    if not counts:
        return closed
    deadline = trio.current_time() + VERDICT_WAIT_S
    if process.pidfd is not None:
        with trio.move_on_at(deadline):
            await trio.lowlevel.wait_readable(process.pidfd)
    if not process.is_dead:
        return closed
    pause = _FIRST_LOOK_S
    while process.pidfd is not None:
        status = exit_status(process.pidfd)
        if status is not None:
            return _died(*status)
        if trio.current_time() + pause > deadline:
            break
        await trio.sleep(pause)
        pause *= 2
    return _died(None, None)


def _died(signal_name: str | None, exit_code: int | None) -> Verdict:
    if signal_name is not None:
        words = f"the agent was killed by {signal_name}"
    elif exit_code is not None:
        words = f"the agent exited with status {exit_code} before the run was ended"
    else:
        words = "the agent's process died"
    return Verdict(CrashReason.PROCESS_DIED, words, signal_name, exit_code)


class DeathWatch:
    """Tells of deaths at once, whether or not anybody reads from the dead: one epoll for all peers, one task.

    Each watch fires once. A watched descriptor must be forgotten before it is closed.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._tell: dict[int, Callable[[], None]] = {}

    def watch_process(self, pidfd: int, tell: Callable[[], None]) -> None:
        """Call ``tell`` when the process dies."""
        self._watch(pidfd, select.EPOLLIN, tell)

    def watch_connection(self, fd: int, tell: Callable[[], None]) -> None:
        """Call ``tell`` when the other end is closed or shut, even while there is something left to read."""
        self._watch(fd, select.EPOLLRDHUP, tell)

    def _watch(self, fd: int, events: int, tell: Callable[[], None]) -> None:
        self._tell[fd] = tell
        self._epoll.register(fd, events | select.EPOLLONESHOT)

    def forget(self, fd: int) -> None:
        """No longer watch a descriptor; one that is not watched is none of ours."""
        if self._tell.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass  # closed by somebody else: the kernel has forgotten it already

    async def run(self) -> None:
        """Watch until cancelled. Sleeps while nobody dies."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, _ in self._epoll.poll(0):
                tell = self._tell.get(fd)
                if tell is not None:
                    tell()

    def close(self) -> None:
        """Give back the descriptor."""
        self._epoll.close()


class Life(Enum):
    """What is known of a process that is remembered by its pid and its start."""

    DEAD = "dead"
    ALIVE = "alive"
    UNKNOWN = "unknown"


def look_for(pid: int, process_start_time: int) -> tuple[Life, int | None]:
    """Whether a process lives that was seen by an earlier collector, of the same boot.

    Args:
        pid: as the kernel said then; 0 where it did not.
        process_start_time: in clock ticks since boot, 0 where unknown: without it a pid is nobody's name.

    Returns:
        With ``ALIVE``, a pidfd of it, for the caller to close.
    """
    if pid <= 0 or process_start_time <= 0:
        return Life.UNKNOWN, None
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return Life.DEAD, None
    except OSError:
        return Life.UNKNOWN, None
    started = start_time(pid)
    if started == process_start_time and not is_readable(pidfd):
        return Life.ALIVE, pidfd
    is_dead = started != process_start_time and started > 0
    is_dead = is_dead or is_readable(pidfd)  # a zombie, or gone while we looked
    os.close(pidfd)
    return (Life.DEAD if is_dead else Life.UNKNOWN), None


def boot_id() -> str:
    """Which boot of the machine this is; empty where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def start_time(pid: int) -> int:
    """When a process was started, in clock ticks since boot: with the pid, its name for life. 0 where unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def command_line(pid: int) -> str:
    """A process's command line for display; empty where unknown."""
    if pid <= 0:
        return ""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            raw = file.read(_COMMAND_SIZE_MAX_BYTES)
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").strip().decode("utf-8", "replace")
