"""``collectord status``: asks the daemon how it stands and prints the answer, once or again and again.

Owns the asking and the output's form: for people, or JSON. How the answer looks to people is ``overview``'s.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from collectord.cli.options import Places, command_options

if TYPE_CHECKING:
    from collectord.wire.messages import StatusAnswer


@click.command("status")
@command_options
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON document; with --watch one line each time.")
@click.option("--watch", is_flag=True, help="Show it again and again until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, metavar="SECONDS", help="With --watch.  [default: 1]")
def command(places: Places, as_json: bool, watch: bool, interval: float) -> int:
    """Show the collector and its sessions.

    The running sessions, then the last 50 that have finished, with what each agent is doing now.
    """
    from collectord.daemon.settings import locate_socket

    path = locate_socket(places.socket, os.environ, os.geteuid())
    if watch:
        from collectord.cli.watch import watch_status

        return watch_status(path, interval, as_json=as_json)
    answer = ask_status(path)
    if as_json:
        click.echo(as_json_text(answer, indent=2))
    else:
        _print_overview(answer)
    return 0


def ask_status(path: str) -> StatusAnswer:
    """The answer of the daemon at ``path``.

    Raises:
        OperatorError: ``no-daemon``.
    """
    from collectord.cli.connection import Connection
    from collectord.wire.messages import Status, StatusAnswer

    with Connection(path) as connection:
        return connection.ask(Status(connection.next_id()), StatusAnswer)


def as_json_text(answer: StatusAnswer, indent: int | None = None) -> str:
    """The answer as JSON in plain ASCII: an id may hold what a terminal would act on, or what UTF-8 cannot express."""
    document = {
        "daemon": answer.daemon,
        "sessions": answer.sessions,
        "sessions_left_out": answer.sessions_left_out,
    }
    return json.dumps(document, indent=indent)


def _print_overview(answer: StatusAnswer) -> None:
    import time

    from collectord.cli.overview import render
    from collectord.cli.paper import Paper

    paper = Paper(sys.stdout)
    paper.print(render(answer, time.time_ns(), paper.width))
