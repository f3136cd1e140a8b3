"""The demonstration is a test as well: it tells three ends truly, leaves nothing behind, and notices when it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.run import DemoFailed, check

DEMO = Path(__file__).parents[2] / "demo" / "run.py"


def started(directory: Path) -> subprocess.Popen[str]:
    """The demonstration, with its temporary directory inside ``directory``."""
    return subprocess.Popen(
        [sys.executable, str(DEMO)], env={**os.environ, "TMPDIR": str(directory)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def left_running(session: int) -> list[str]:
    """The processes of that session which are not zombies, nor just about to be: those have no command line any more."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has gone meanwhile, or was none
        if entry.name.isdecimal() and int(words[3]) == session and words[0] != "Z" and command:
            found.append(command)
    return found


@pytest.mark.process
def test_the_demonstration_tells_three_ends_and_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = started(tmp_path)
    out, err = demo.communicate(timeout=120)
    assert demo.returncode == 0, out + err
    assert err == "deployer: FileNotFoundError: deploy/manifest.toml: no such file\n"
    for words in ("✓ completed researcher", "✗ failed    deployer", "▶ running   migrator", "† crashed   migrator"):
        assert words in out
    assert "its process was killed by SIGKILL" in out or "its process died" in out
    assert "◌ execute_tool bash  unfinished" in out
    assert '"outcome":"crashed","reason":"process-died"' in out.replace(" ", "")
    assert "\x1b" not in out
    assert left_running(demo.pid) == []
    assert [*tmp_path.iterdir()] == []


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demonstration_that_is_stopped_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    demo = started(tmp_path)
    assert demo.stdout is not None
    while "collectord status" not in demo.stdout.readline():
        assert demo.poll() is None
    demo.send_signal(number)
    demo.communicate(timeout=120)
    assert demo.returncode == 128 + number
    assert left_running(demo.pid) == []
    assert [*tmp_path.iterdir()] == []


def told(**changes: str) -> dict[str, Any]:
    outcomes = {"researcher": "completed", "deployer": "failed", "migrator": "crashed", **changes}
    return {name: {"outcome": outcome} for name, outcome in outcomes.items()}


def crashed(reason: str = "process-died", number: str = "SIGKILL", finished: tuple[str, ...] = ()) -> dict[str, Any]:
    spans = [{"name": name, **({"endTimeUnixNano": "1"} if name in finished else {})} for name in SPANS]
    crash = {"reason": reason, "signal": number}
    return {"session": {"crash": crash}, "resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


SPANS = ("invoke_agent migrator", "execute_tool bash")


def test_what_must_be_is_accepted() -> None:
    check(told(), crashed())


@pytest.mark.parametrize("name", ["researcher", "deployer", "migrator"])
@pytest.mark.parametrize("outcome", ["running", "cancelled"])
def test_an_outcome_that_is_not_as_it_must_be_fails_the_demonstration(name: str, outcome: str) -> None:
    with pytest.raises(DemoFailed, match=f"{name} is {outcome}"):
        check(told(**{name: outcome}), crashed())


@pytest.mark.parametrize(
    "document", [crashed(reason="connection-closed"), crashed(number="SIGTERM"), crashed(finished=SPANS[1:])]
)
def test_a_crash_that_is_told_wrongly_fails_the_demonstration(document: dict[str, Any]) -> None:
    with pytest.raises(DemoFailed):
        check(told(), document)
