"""README, operations and dependencies say what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from collectord.cli import main as program
from collectord.cli.serve import command as serve
from collectord.daemon.settings import ENVIRONMENT, KEYS, load
from collectord.errors import OperatorError
from collectord.limits import CANCEL_GRACE_S, DRAIN_TIMEOUT_S, FINISHED_REMEMBERED, SOCKET_PATH_MAX_BYTES
from tests.cli.test_overview import the_whole_picture
from tests.process.daemon import running

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
DEPENDENCIES = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert len(lines) > 2, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# ---------------------------------------------------------------- dependencies


def declared(requirements: list[str]) -> dict[str, str]:
    """Names and bounds of a list of requirements."""
    found = [re.fullmatch(r"([a-z0-9-]+)([<>=~!].+)", requirement) for requirement in requirements]
    return {match[1]: match[2] for match in found if match is not None}


@pytest.mark.parametrize(
    ("heading", "file", "extra"),
    [
        ("At run time: `collectord`", "pyproject.toml", None),
        ("At run time: `collectord-client`", "clients/python/pyproject.toml", None),
        ("For the tests: `collectord[test]`", "pyproject.toml", "test"),
        ("For the beds on real file systems: `collectord[faults]`", "pyproject.toml", "faults"),
        ("For linting: `collectord[lint]`", "pyproject.toml", "lint"),
    ],
)
def test_every_dependency_is_argued_with_the_bound_it_has(heading: str, file: str, extra: str | None) -> None:
    project = tomllib.loads((ROOT / file).read_text(encoding="utf-8"))["project"]
    requirements = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    told = rows(DEPENDENCIES, heading)
    assert {row[0]: row[1].strip("`") for row in told} == declared(requirements)
    assert len(declared(requirements)) == len(requirements)
    assert all(len(row) == 6 and all(row) for row in told), "a reason is missing"


def test_the_client_depends_on_msgpack_alone() -> None:
    project = tomllib.loads((ROOT / "clients" / "python" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [*declared(project["dependencies"])] == ["msgpack"]


# ---------------------------------------------------------------- operations


def test_every_setting_is_in_the_table_with_its_flag_and_variable() -> None:
    told = {row[0].strip("`"): row for row in rows(OPERATIONS, "What it can be told")}
    assert [*told] == [*KEYS]
    flags = {text for parameter in serve.params if isinstance(parameter, click.Option) for text in parameter.opts}
    assert {row[1].strip("`").split()[0] for row in told.values()} == flags - {"--config"}
    assert {row[2].strip("`"): key for key, row in told.items() if row[2]} == ENVIRONMENT
    assert told["drain_timeout_s"][3] == f"`{DRAIN_TIMEOUT_S:g}`"


def test_the_example_configuration_is_accepted(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", OPERATIONS, re.DOTALL)
    assert example is not None
    (tmp_path / "collectord.toml").write_text(example[1], encoding="utf-8")
    found = load({}, str(tmp_path / "collectord.toml"), {}, 0)
    assert (found.socket_path, found.drain_timeout_s, found.log_level) == ("/srv/agents/collectord.sock", 10.0, "warning")


def test_every_exit_status_is_in_the_table() -> None:
    told = [int(row[0]) for row in rows(OPERATIONS, "Exit statuses")]
    assert told == [program.DONE, program.FAILED, program.USAGE, program.NO_DAEMON, program.NO_SESSION]
    assert f"\n{program.INTERRUPTED} after Ctrl-C" in OPERATIONS


def test_the_numbers_in_operations_are_the_limits() -> None:
    assert f"more than {SOCKET_PATH_MAX_BYTES} bytes" in OPERATIONS.replace("\n", " ")
    assert f"not stopped after {CANCEL_GRACE_S:g} s" in OPERATIONS
    assert f"the last {FINISHED_REMEMBERED} that finished" in OPERATIONS


def test_the_example_error_is_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    example = re.search(r"```\n(collectord: error: .*?)```", OPERATIONS, re.DOTALL)
    assert example is not None
    said = "there is no daemon: /run/collectord/collectord.sock does not exist"
    program._say_error(OperatorError("no-daemon", said))
    assert capsys.readouterr().err == example[1]


# ---------------------------------------------------------------- README


def test_the_picture_in_the_readme_is_the_one_that_is_drawn() -> None:
    picture = README.partition("$ collectord status\n")[2].partition("\n```")[0].splitlines()
    assert picture == the_whole_picture()


@pytest.mark.process
def test_the_client_s_example_in_the_readme_works() -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    with running() as daemon:
        environment = {**os.environ, "COLLECTORD_SOCKET": str(daemon.socket)}
        subprocess.run([sys.executable, "-c", example[1]], env=environment, check=True)
        row = daemon.session("nightly-42")
    assert (row["outcome"], row["spans"], row["logs"], row["refused"]) == ("completed", 1, 1, 0)
    assert row["usage"]["input_tokens"] == 812


def test_every_command_and_target_that_the_readme_names_exists() -> None:
    for name in re.findall(r"^collectord (\w+)", README, re.MULTILINE):
        assert name in program.COMMANDS or name == "0"
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"make (\w+)  ", README)) | {"install"} <= set(targets)


@pytest.mark.parametrize("document", [README, OPERATIONS, DEPENDENCIES], ids=["README", "operations", "dependencies"])
def test_every_link_leads_somewhere(document: str) -> None:
    base = ROOT if document is README else ROOT / "docs"
    for target in re.findall(r"\]\(([^)#]+)", document):
        assert (base / target).exists(), target


def test_the_targets_of_the_makefile_are_explained_by_make() -> None:
    shown = subprocess.run(["make", "-s", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    assert set(re.findall(r"^make (\w+)", shown, re.MULTILINE)) == set(phony[1].split()) - {"help"}
