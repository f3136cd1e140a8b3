"""``collectord cancel``: ask the owner of a session to stop.

Owns what the answers mean to the one who asked: the owner was told, or there was nothing left to stop.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from collectord.cli.options import Places, command_options, session_argument

if TYPE_CHECKING:
    from collectord.cli.naming import SessionName


@click.command("cancel")
@command_options
@session_argument
@click.option("--reason", required=True, metavar="TEXT", help="Why, for the agent and for whoever reads the trace.")
def command(places: Places, named: SessionName, reason: str) -> int:
    """Ask a session to stop.

    SESSION is an id or a trace file. Its owner is told and has some seconds to stop; then the run is `cancelled` without it.
    Exit status 0 where the owner was told; where the run is over already, what stands is printed and the exit status is 1.
    """
    from collectord.cli.connection import Connection
    from collectord.cli.text import cut_middle
    from collectord.cli.verdict import path_line, terminal_sentence
    from collectord.daemon.settings import locate_socket
    from collectord.limits import CANCEL_GRACE_S, TERMINAL_ANSWER_TIMEOUT_S
    from collectord.wire.messages import Cancel, CancelAnswer, Terminal

    with Connection(locate_socket(places.socket, os.environ, os.geteuid())) as connection:
        wish = Cancel(connection.next_id(), reason, session_id=named.id, run=named.run)
        answer = connection.ask(wish, CancelAnswer, Terminal, timeout_s=TERMINAL_ANSWER_TIMEOUT_S)
    if isinstance(answer, CancelAnswer):
        click.echo(f"{cut_middle(named.id, 100)} run {answer.run}: requested; its agent has {CANCEL_GRACE_S:g} s to stop")
        return 0
    assert isinstance(answer, Terminal)
    click.echo("it was over before: " + terminal_sentence(named.id, answer))
    click.echo(path_line(answer), err=answer.path is None)
    return 1
