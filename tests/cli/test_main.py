"""The program as a whole: help, options in both places, errors and exit statuses."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from collectord import __version__
from collectord.cli import main as program
from collectord.cli.main import COMMANDS, group, main
from collectord.cli.options import Places, place_options
from collectord.errors import CODES


def collectord(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COLLECTORD_")}
    return subprocess.run(
        [sys.executable, "-m", "collectord", *arguments],
        env={**clean, **(environment or {})}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


# ---------------------------------------------------------------- help


def test_every_command_is_a_module_and_says_of_itself_what_the_overview_says() -> None:
    for name, words in COMMANDS.items():
        command = importlib.import_module(f"collectord.cli.{name}").command
        assert (command.name, command.help.split("\n\n")[0]) == (name, words)


def test_the_overview_names_every_command() -> None:
    shown = CliRunner().invoke(group, ["--help"]).output
    for name, words in COMMANDS.items():
        assert f"  {name}" in shown
        assert words in shown


@pytest.mark.parametrize("name", [*COMMANDS])
def test_every_command_takes_the_places_and_explains_each_option(name: str) -> None:
    command = importlib.import_module(f"collectord.cli.{name}").command
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert {"--socket", "--state-dir"} <= {text for option in options for text in option.opts}
    assert all(option.help for option in options)
    assert CliRunner().invoke(command, ["--help"]).exit_code == 0


def test_help_does_not_wait_for_what_it_does_not_need() -> None:
    script = "import sys\nfrom collectord.cli.main import main\nstatus = main(['--help'])\nprint(status, *sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    status, *loaded = run.stdout.splitlines()[-1].split()
    assert status == "0"
    assert not {"trio", "attrs", "attr", "cattrs", "msgpack", "orjson", "rich.console", "asyncio"} & set(loaded)


@pytest.mark.parametrize("name", [*COMMANDS])
def test_help_of_a_command_does_not_start_the_daemon_s_machinery(name: str) -> None:
    script = f"import sys\nfrom collectord.cli.main import main\nmain(['{name}', '--help'])\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"trio", "cattrs", "rich.console"} & set(run.stdout.splitlines()[-1].split())


def test_the_version_is_said() -> None:
    run = collectord("--version")
    assert (run.returncode, run.stdout) == (0, f"collectord {__version__}\n")


# ---------------------------------------------------------------- the places


def places_of(arguments: Sequence[str]) -> tuple[str | None, str | None]:
    """What a command sees."""
    seen: list[Places] = []

    @click.group()
    @place_options
    @click.pass_context
    def outer(context: click.Context, places: Places) -> None:
        context.obj = places

    @outer.command()
    @place_options
    def inner(places: Places, **_: Any) -> None:
        seen.append(places)

    outer.main([*arguments], standalone_mode=False)
    return seen[0].socket, seen[0].state_dir


def test_places_may_stand_before_or_after_the_command() -> None:
    assert places_of(["--socket", "/a", "--state-dir", "/b", "inner"]) == ("/a", "/b")
    assert places_of(["inner", "--socket", "/a", "--state-dir", "/b"]) == ("/a", "/b")
    assert places_of(["--socket", "/a", "inner", "--state-dir", "/b"]) == ("/a", "/b")
    assert places_of(["inner"]) == (None, None)


def test_the_later_place_wins() -> None:
    assert places_of(["--socket", "/a", "inner", "--socket", "/b"]) == ("/b", None)


# ---------------------------------------------------------------- exit statuses


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "'bogus'"),
        (["status", "--bogus"], "--bogus"),
        (["status", "extra"], "unexpected extra argument"),
        (["status", "--watch", "--interval", "0"], "0 is not in the range"),
        (["crash", "x"], "Missing option '--reason'"),
        (["crash", "--reason", "x"], "name one session"),
        (["crash", "x", "--run", "0", "--reason", "x"], "0 is not in the range"),
        (["cancel", "x"], "Missing option '--reason'"),
        (["cancel", "", "--reason", "x"], "a session id is not empty"),
        (["status", "--socket", "/" + "x" * 120], "a socket's may have 107 at most"),
    ],
)
def test_wrong_usage_is_said_with_a_remedy_and_exits_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    error, remedy = captured.err.splitlines()
    assert error.startswith("collectord: error: ")
    assert error.endswith(" (config-invalid)")
    assert said in error
    assert remedy.startswith("remedy: ")


def test_without_a_command_the_overview_goes_to_stderr_and_exits_2() -> None:
    run = collectord()
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("Usage: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "--json"],
        ["status", "--watch"],
        ["crash", "x", "--reason", "y"],
        ["cancel", "x", "--reason", "y"],
    ],
)
def test_without_a_daemon_commands_that_need_one_exit_3(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--socket", str(tmp_path / "s"), *arguments]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"collectord: error: there is no daemon: {tmp_path}/s does not exist (no-daemon)\nremedy: {CODES['no-daemon'].remedy}\n"
    )


def test_the_environment_names_the_socket(tmp_path: Path) -> None:
    run = collectord("status", environment={"COLLECTORD_SOCKET": str(tmp_path / "from-the-environment")})
    assert run.returncode == 3
    assert "from-the-environment does not exist" in run.stderr


def test_an_error_cannot_carry_escape_sequences_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--socket", "/x\x1b[31m"]) == 3
    assert "\\x1b[31m" in capsys.readouterr().err
    assert main(["\x1b[31m"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_every_error_code_has_an_exit_status_and_no_status_is_for_a_code_that_is_gone() -> None:
    assert set(program._STATUS_BY_CODE) <= set(CODES)
    assert set(program._STATUS_BY_CODE.values()) == {program.USAGE, program.NO_DAEMON, program.NO_SESSION}
