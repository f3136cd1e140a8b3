"""Which session a command line means: an id, an id written as JSON, or a trace file.

Reads the first two lines of a trace file and no more. Knows nothing of whether the session exists.
"""

from __future__ import annotations

import json
import os

import click
from attrs import frozen

_LINE_MAX_BYTES = 4 << 20
"""Why: the session's line of a trace file holds its attributes; a file whose second line is longer is not one of ours."""

_HEAD = b'{"collectord": {"format": '
_HEAD_COMPACT = b'{"collectord":{"format":'
_SESSION = b'"session":'


@frozen
class SessionName:
    """A session, and which of its runs.

    Attributes:
        id: the raw session id.
        run: the run, or None for the latest.
    """

    id: str
    run: int | None


def name_session(session: str | None, id_json: str | None, run: int | None) -> SessionName:
    """The session that the arguments name.

    Args:
        session: an id, or the path of a trace file: a file that exists, is called ``*.json`` and begins like one. A run is
            then named with it, unless ``run`` says another.
        id_json: the id as a JSON string.
        run: the run, or None.

    Raises:
        click.UsageError: none is named, two are, or the JSON is no string.
    """
    if (session is None) == (id_json is None):
        raise click.UsageError("name one session: by its id, by its trace file, or with --id-json")
    if id_json is not None:
        return SessionName(_from_json(id_json), run)
    assert session is not None
    if not session:
        raise click.UsageError("a session id is not empty")
    from_file = _from_trace_file(session) if session.endswith(".json") else None
    if from_file is None:
        return SessionName(session, run)
    return from_file if run is None else SessionName(from_file.id, run)


def _from_json(text: str) -> str:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if type(found) is not str or not found:
        raise click.UsageError('--id-json must be a JSON string that is not empty, such as "a\\u0000b", with its quotes')
    return found


def _from_trace_file(path: str) -> SessionName | None:
    """What the file says, or None where it is no trace file: then the argument is an id that looks like a path."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        with open(descriptor, "rb") as file:
            if not file.readline(_LINE_MAX_BYTES).startswith((_HEAD, _HEAD_COMPACT)):
                return None
            line = file.readline(_LINE_MAX_BYTES).strip()
    except OSError:
        return None
    try:
        session = json.loads(line.removeprefix(_SESSION).removesuffix(b","))
        found = SessionName(session["id"], session["run"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return found if type(found.id) is str and type(found.run) is int else None
