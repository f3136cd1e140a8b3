"""How long a run that was found open waits for its owner, and what it dies of where that does not come back.

Owns the three cases of the grace: certainly dead, certainly alive, unknown. It looks at processes and holds a pidfd; what a
run makes of the end of the wait is not known here.
"""

from __future__ import annotations

import os

import trio
from attrs import define

from collectord.daemon.processes import Life, exit_status, look_for
from collectord.limits import RESUME_GRACE_ALIVE_S, RESUME_GRACE_UNKNOWN_S
from collectord.model import CrashReason, Verdict

_WAITED = "the collector was restarted, and the agent did not come back within {:g} s"


@define
class Absence:
    """The absence of one owner.

    Attributes:
        patience_s: how long it is waited for; 0 where it is dead.
        message: what is said of it when that is over.
        pidfd: of the process, where it is alive.
    """

    patience_s: float
    message: str
    pidfd: int | None = None

    def verdict(self) -> Verdict:
        """What the run dies of now."""
        signal_name, exit_code = None, None
        if self.pidfd is not None:
            signal_name, exit_code = exit_status(self.pidfd) or (None, None)
        return Verdict(CrashReason.COLLECTOR_RESTARTED, self.message, signal_name, exit_code)

    async def over(self) -> None:
        """Return when the time is over, or the process has died. Cancellation: at any point; ``close`` it after."""
        with trio.move_on_after(self.patience_s):
            if self.pidfd is None:
                await trio.sleep_forever()
            else:
                await trio.lowlevel.wait_readable(self.pidfd)
                self.message = "the collector was restarted, and the agent died before it came back"

    def close(self) -> None:
        """Give back the descriptor."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


def absence_of(pid: int, process_start_time: int, process_boot_id: str, boot_id: str, liveness: str) -> Absence:
    """Judge an owner by what the journal remembers of its process.

    Args:
        pid: 0 where it was not known.
        process_start_time: 0 where it was not known.
        process_boot_id: of the boot in which it was seen.
        boot_id: of now; one that is empty says nothing.
        liveness: ``connection`` where the process says nothing about the agent.
    """
    if process_boot_id and boot_id and process_boot_id != boot_id:
        return Absence(0.0, "the machine was restarted while the session ran")
    life, pidfd = look_for(pid, process_start_time) if liveness == "process" else (Life.UNKNOWN, None)
    if life is Life.DEAD:
        return Absence(0.0, "the agent died while the collector was not running")
    if life is Life.ALIVE:
        return Absence(RESUME_GRACE_ALIVE_S, _WAITED.format(RESUME_GRACE_ALIVE_S), pidfd)
    return Absence(RESUME_GRACE_UNKNOWN_S, _WAITED.format(RESUME_GRACE_UNKNOWN_S))
