"""How a run ended, in words: the one place that turns outcome, reason, signal and exit code into a sentence.

Pure. Serves every command that says how a run stands, so that none says it differently.
"""

from __future__ import annotations

from typing import Any, Final

from collectord.cli.text import cut_middle, plain
from collectord.wire.messages import Terminal

_ID_WIDTH_MAX: Final = 100

_REASONS: Final = {
    "process-died": "its process died",
    "connection-closed": "its connection was closed without an end",
    "protocol-error": "it broke the protocol",
    "collector-restarted": "the collector was restarted and it did not come back",
    "reported": "reported",
}


def terminal_sentence(session_id: str, answer: Terminal) -> str:
    """``nightly-42 run 1: crashed (reported: out of memory)``."""
    words = f"{cut_middle(session_id, _ID_WIDTH_MAX)} run {answer.run}: {answer.outcome.value}"
    why = plain(answer.message) if answer.message else _REASONS.get(answer.reason or "", "")
    if answer.reason == "reported" and answer.message:
        why = f"reported: {why}"
    return f"{words} ({why})" if why else words


def path_line(answer: Terminal) -> str:
    """Where the trace file is, or why there is none."""
    if answer.path is not None:
        return plain(answer.path)
    cause = plain(answer.export_error or "unknown cause")
    return f"the journal is safe, but the trace file could not be written: {cause}"


def crash_words(crash: dict[str, Any]) -> str:
    """Why a run is crashed, from the ``crash`` of a status row or of a trace file; not yet made harmless."""
    reason, signal, exit_code = crash.get("reason"), crash.get("signal"), crash.get("exit_code")
    message = crash.get("message")
    if reason == "process-died" and type(signal) is str:
        return f"its process was killed by {signal}"
    if reason == "process-died" and type(exit_code) is int:
        return f"its process ended with exit status {exit_code}, without ending the run"
    words = _REASONS.get(str(reason), str(reason))
    if reason in ("reported", "protocol-error") and type(message) is str and message:
        return f"{words}: {message}"
    return words
