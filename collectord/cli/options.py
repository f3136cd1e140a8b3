"""The options that every command takes, before or after its name, and how both places become one.

Owns ``--socket`` and ``--state-dir``, and how a session is named on the command line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click


class Places:
    """Where the collector is, as far as the command line says.

    Attributes:
        socket: of ``--socket``, or None.
        state_dir: of ``--state-dir``, or None.
    """

    __slots__ = ("socket", "state_dir")

    def __init__(self, socket: str | None, state_dir: str | None) -> None:
        self.socket = socket
        self.state_dir = state_dir


def place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--socket`` and ``--state-dir``; it is called with ``places``.

    What is said behind the command's name overrules what was said in front of it.
    """

    @click.option("--socket", metavar="PATH", help="The collector's socket.  [env: COLLECTORD_SOCKET]")
    @click.option("--state-dir", metavar="DIR", help="Where traces are kept.  [env: COLLECTORD_STATE_DIR]")
    @functools.wraps(function)
    def wrapped(*args: Any, socket: str | None, state_dir: str | None, **options: Any) -> Any:
        before = click.get_current_context().find_object(Places) or Places(None, None)
        places = Places(
            before.socket if socket is None else socket,
            before.state_dir if state_dir is None else state_dir,
        )
        return function(*args, places=places, **options)

    return wrapped


def session_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command SESSION, ``--id-json`` and ``--run``; it is called with ``named``, a ``SessionName``."""

    @click.argument("session", required=False)
    @click.option("--id-json", metavar="STRING", help="The session's id as a JSON string, for ids that cannot be typed.")
    @click.option("--run", type=click.IntRange(min=1), metavar="N", help="Which run of the session; the latest by default.")
    @functools.wraps(function)
    def wrapped(*args: Any, session: str | None, id_json: str | None, run: int | None, **options: Any) -> Any:
        from collectord.cli.naming import name_session

        return function(*args, named=name_session(session, id_json, run), **options)

    return wrapped
