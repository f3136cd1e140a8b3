"""The hook for exceptions that nobody handles, the exit of the interpreter, and forks: what happens to sessions then.

Owns the list of open sessions. The hooks are put in place with the first session, and the previous ones are always called.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from types import TracebackType
from typing import TYPE_CHECKING

from collectord_client._limits import EXIT_TIMEOUT_S

if TYPE_CHECKING:
    from collectord_client._session import Session

sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_installed = False


def keep(session: Session) -> None:
    """Have an open session looked after."""
    global _installed
    if not _installed:
        _installed = True
        _install()
    sessions.add(session)


def _install() -> None:
    previous = sys.excepthook

    def report(kind: type[BaseException], error: BaseException, stack: TracebackType | None) -> None:
        try:
            for session in list(sessions):
                session.unhandled(error)
        except Exception:  # noqa: BLE001 — the host is dying of its own error, and must not die of ours
            pass
        previous(kind, error, stack)

    sys.excepthook = report
    atexit.register(_at_exit)
    os.register_at_fork(after_in_child=_after_fork)


def _at_exit() -> None:
    """Send what is queued, within a bound. There is no end at exit by magic: who did not end has not ended."""
    for session in list(sessions):
        session.settle(EXIT_TIMEOUT_S)


def _after_fork() -> None:
    """The child is not the agent: it lets go of the parent's connections, so that the parent's death is seen."""
    for session in list(sessions):
        session.abandon_after_fork()
    sessions.clear()
