"""``collectord crash``: report a session as crashed, and say what then stands.

Owns what the report's answer means to the one who reports: whether it was this report that made the run `crashed`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from collectord.cli.options import Places, command_options, session_argument

if TYPE_CHECKING:
    from collectord.cli.connection import Connection
    from collectord.cli.naming import SessionName
    from collectord.wire.messages import Terminal


@click.command("crash")
@command_options
@session_argument
@click.option("--reason", required=True, metavar="TEXT", help="What happened, for whoever reads the trace.")
def command(places: Places, named: SessionName, reason: str) -> int:
    """Report that a session has crashed.

    SESSION is an id or a trace file. Exit status 0 where the report made it `crashed`; where the run was over before, what
    stands is printed, the report is kept as a note, and the exit status is 1.
    """
    from collectord.cli.connection import Connection
    from collectord.cli.verdict import path_line, terminal_sentence
    from collectord.daemon.settings import locate_socket

    with Connection(locate_socket(places.socket, os.environ, os.geteuid())) as connection:
        answer = _report(connection, named, reason)
    is_ours = answer.reason == "reported" and answer.message == reason  # of a run that was over, no message is told
    click.echo(("" if is_ours else "it was over before: ") + terminal_sentence(named.id, answer))
    click.echo(path_line(answer), err=answer.path is None)
    return 0 if is_ours else 1


def _report(connection: Connection, named: SessionName, reason: str) -> Terminal:
    from collectord.limits import TERMINAL_ANSWER_TIMEOUT_S
    from collectord.wire.messages import Crash, Terminal

    report = Crash(connection.next_id(), reason, session_id=named.id, run=named.run, pid=os.getpid())
    return connection.ask(report, Terminal, timeout_s=TERMINAL_ANSWER_TIMEOUT_S)
