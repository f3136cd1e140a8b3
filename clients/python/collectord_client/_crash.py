"""The hook for exceptions that nobody handles, the exit of the interpreter, and forks: what happens to sessions then.

Owns the list of open sessions. The hooks are put in place with the first session, and the previous ones are always called.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from types import TracebackType
from typing import TYPE_CHECKING

from collectord_client._limits import CRASH_TIMEOUT_S, EXIT_TIMEOUT_S
from collectord_client._span import exception_attributes

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
    previous, previous_of_threads = sys.excepthook, threading.excepthook

    def report(kind: type[BaseException], error: BaseException, stack: TracebackType | None) -> None:
        _report(error)
        previous(kind, error, stack)

    def report_of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            for session in list(sessions):  # the process goes on, and so does the run: it is told, not crashed
                session.log("an exception in a thread was not handled", "error", exception_attributes(args.exc_value))
        previous_of_threads(args)

    sys.excepthook = report
    threading.excepthook = report_of_thread
    atexit.register(_at_exit)
    os.register_at_fork(after_in_child=_after_fork)


def _report(error: BaseException) -> None:
    """Tell every session of it first, and only then wait, for all of them together."""
    deadline = time.monotonic() + CRASH_TIMEOUT_S
    try:
        for wait in [session.unhandled(error) for session in list(sessions)]:
            wait(deadline - time.monotonic())
    except Exception:  # noqa: BLE001 — the host is dying of its own error, and must not die of ours
        pass


def _at_exit() -> None:
    """Send what is queued, within a bound. There is no end at exit by magic: who did not end has not ended."""
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    for session in list(sessions):
        session.settle(deadline - time.monotonic())


def _after_fork() -> None:
    """The child is not the agent: it lets go of the parent's connections, so that the parent's death is seen."""
    for session in list(sessions):
        session.abandon_after_fork()
    sessions.clear()
