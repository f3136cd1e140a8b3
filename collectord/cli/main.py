"""The ``collectord`` program: finds the command, and turns every error into a sentence and an exit status.

Owns the list of commands, the exit statuses, and how an error is said. A command's module is imported only when that command
is asked for: `collectord --help` must not wait for trio.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

import click

from collectord import __version__
from collectord.cli.options import Places, StatedError, place_options

if TYPE_CHECKING:
    from collectord.errors import CollectordError

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NO_DAEMON: Final = 3
NO_SESSION: Final = 4

INTERRUPTED: Final = 130
"""What a shell expects of a program that a Ctrl-C ended."""

_STATUS_BY_CODE: Final = {
    "config-invalid": USAGE,
    "directory-unusable": USAGE,
    "network-file-system": USAGE,
    "socket-unusable": USAGE,
    "no-daemon": NO_DAEMON,
    "session-unknown": NO_SESSION,
    "run-unknown": NO_SESSION,
}
"""The exit status of each error that has one of its own; every other is FAILED."""

COMMANDS: Final = {
    "serve": "Run the collector in the foreground.",
    "status": "Show the collector and its sessions.",
    "verify": "Check journals and trace files.",
    "recover": "Rebuild a trace file from its journal.",
    "crash": "Report that a session has crashed.",
    "cancel": "Ask a session to stop.",
}
"""Every command with what the overview says of it: its module has the same name, and a test compares the two sentences."""


class _Commands(click.Group):
    """Commands that are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"collectord.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@place_options
@click.version_option(__version__, message="collectord %(version)s")
@click.pass_context
def group(context: click.Context, places: Places) -> int | None:
    """A flight recorder for AI agents: one true trace file per session.

    Exit status: 0 done, 1 failed, 2 usage or bad configuration, 3 no daemon, 4 no such session.
    """
    context.obj = places
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        return USAGE
    return None


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; None takes them from the process.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that has no ✓ must not end the program
    try:
        status = group.main(arguments, prog_name="collectord", standalone_mode=False)
        sys.stdout.flush()
    except StatedError as error:
        _say_error(error.error)
        return _STATUS_BY_CODE.get(error.error.code, FAILED)
    except click.ClickException as error:
        _say_usage(error)
        return USAGE
    except click.Abort:
        return INTERRUPTED
    except BrokenPipeError:
        _leave_the_pipe()
    return status if isinstance(status, int) else DONE


def _say_usage(error: click.ClickException) -> None:
    from collectord.cli.text import plain

    said = error.format_message().rstrip(".")
    click.echo(f"collectord: error: {plain(said)} (config-invalid)", err=True)
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else "collectord"
    click.echo(f"remedy: see what is allowed with `{path} --help`", err=True)


def _say_error(error: CollectordError) -> None:
    """One error on stderr: the sentence, the code, and what to do about it."""
    from collectord.cli.text import plain
    from collectord.errors import CODES

    click.echo(f"collectord: error: {plain(error.message)} ({error.code})", err=True)
    click.echo(f"remedy: {CODES[error.code].remedy}", err=True)


def _leave_the_pipe() -> NoReturn:
    """Who read our output has gone: end without a word, and without Python's own complaint when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(FAILED)
