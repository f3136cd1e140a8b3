"""What every command has in common: where the collector is, said before or after its name, and how its errors come out.

Owns ``--socket`` and ``--state-dir``, and how a session is named on the command line. Imports nothing but click, since even
`collectord --help` imports it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collectord.errors import CollectordError


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


class StatedError(click.ClickException):
    """One of collectord's own errors on its way to ``main``, which would have to import them all to catch it by itself."""

    def __init__(self, error: CollectordError) -> None:
        super().__init__(error.message)
        self.error = error


def command_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``place_options`` for a command: a ``CollectordError`` that it raises comes out as a ``StatedError``."""

    @functools.wraps(function)
    def stating(*args: Any, **options: Any) -> Any:
        from collectord.errors import CollectordError

        try:
            return function(*args, **options)
        except CollectordError as error:
            raise StatedError(error) from None

    return place_options(stating)


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
