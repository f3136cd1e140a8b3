"""The examples of clients/README.md, run as they stand; and its numbers and keys, compared with the code."""

from __future__ import annotations

import re
from pathlib import Path

import collectord_client as collectord
from collectord_client import _limits

from tests.client.agents import run_agent
from tests.process.daemon import Daemon

README = (Path(__file__).parents[2] / "clients" / "README.md").read_text(encoding="utf-8")


def test_every_example_runs_and_says_what_the_text_around_it_promises(daemon: Daemon) -> None:
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    said = [run_agent(example, daemon.socket) for example in examples]
    assert [one.stderr for one in said] == [""] * len(said)
    assert [one.stdout for one in said] == ["completed True\n", "failed failed True\n", "unknown None 2\n"]


def test_the_keys_of_statistics_are_the_ones_in_the_table(daemon: Daemon, name: str) -> None:
    session = collectord.session(name, socket_path=str(daemon.socket))
    keys = session.statistics().keys()
    session.end()
    table = README.partition("### Statistics")[2].partition("### Bounds")[0]
    told = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines() if line.startswith("| `")]
    assert keys == {key for row in told for key in row}


def test_the_bounds_are_the_ones_of_the_code() -> None:
    bounds = re.findall(r"(\d+) (?:s|MiB)\b", README.partition("### Bounds")[2])
    assert [int(bound) for bound in bounds] == [
        _limits.CONNECT_TIMEOUT_S,
        _limits.END_TIMEOUT_S,
        _limits.CRASH_TIMEOUT_S,
        _limits.EXIT_TIMEOUT_S,
        _limits.MEMORY_MAX_BYTES >> 20,
        _limits.RECONNECT_GIVE_UP_S,
        _limits.RECONNECT_MAX_S,
    ]
