"""``collectord serve``: settings and directories checked, then the daemon.

Owns nothing but the order: whatever is wrong with what the daemon was told is said before anything is begun.
"""

from __future__ import annotations

import os
from typing import Any

import click

from collectord.cli.options import Places, command_options


@click.command("serve")
@command_options
@click.option("--config", metavar="FILE", help="A TOML file with settings; docs/operations.md lists them.")
@click.option("--allow-network-fs", is_flag=True, default=None, help="Accept a state directory on a network file system.")
@click.option("--disk-free-min", type=int, metavar="BYTES", help="Below so much free space no new session begins.")
@click.option("--drain-timeout", type=float, metavar="SECONDS", help="How long a stop may take.  [default: 20]")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
def command(places: Places, config: str | None, **flags: Any) -> int:
    """Run the collector in the foreground.

    One line on stderr says `listening on PATH` when it is ready. SIGTERM and SIGINT stop it: what was accepted is stored first.
    """
    from collectord.daemon import settings

    given = {
        "socket": places.socket,
        "state_dir": places.state_dir,
        "allow_network_fs": flags["allow_network_fs"],
        "disk_free_min": flags["disk_free_min"],
        "drain_timeout_s": flags["drain_timeout"],
        "log_level": flags["log_level"],
    }
    found = settings.load(given, config, os.environ, os.geteuid())
    settings.check_directories(found)
    return _serve(found)


def _serve(settings: Any) -> int:
    """Run the daemon; an error that a nursery has wrapped is unwrapped, so that it is said as what it is."""
    import trio

    from collectord.daemon.server import run
    from collectord.errors import CollectordError

    try:
        return trio.run(run, settings)
    except BaseExceptionGroup as group:
        stated = group.subgroup(CollectordError)
        if stated is None or group.subgroup(lambda error: not isinstance(error, CollectordError | BaseExceptionGroup)):
            raise
        error: BaseException = stated
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
