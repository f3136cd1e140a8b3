"""How a command line names a session."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from collectord.cli.naming import SessionName, name_session


def trace_file(path: Path, session_id: str, run: int) -> str:
    """The first lines of a trace file."""
    head = json.dumps({"collectord": {"format": 1, "name": "shortened…", "run": run, "outcome": "completed"}})
    path.write_text(f'{head[:-1]},\n"session": {json.dumps({"id": session_id, "run": run})},\n"resourceSpans": []}}\n')
    return str(path)


def test_an_id_is_taken_as_it_is() -> None:
    assert name_session("weird:session/with.unsafe:chars", None, None) == SessionName("weird:session/with.unsafe:chars", None)
    assert name_session("../../etc/passwd", None, 2) == SessionName("../../etc/passwd", 2)


def test_a_trace_file_names_its_session_and_run(tmp_path: Path) -> None:
    path = trace_file(tmp_path / "x~2.json", "a\x00b/é", 2)
    assert name_session(path, None, None) == SessionName("a\x00b/é", 2)
    assert name_session(path, None, 1) == SessionName("a\x00b/é", 1)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"collectord": {"format": 1}}', '{"collectord": {"format": 1}},\n"session": {"id": 7}']
)
def test_a_file_that_is_no_trace_file_is_an_id(tmp_path: Path, content: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(content)
    assert name_session(str(path), None, None) == SessionName(str(path), None)


def test_an_id_that_ends_like_a_file_needs_none(tmp_path: Path) -> None:
    assert name_session(str(tmp_path / "missing.json"), None, None).id == str(tmp_path / "missing.json")
    assert name_session("a\0.json", None, None).id == "a\0.json"


def test_json_says_what_cannot_be_typed() -> None:
    assert name_session(None, '"a\\u0000b\\ud800"', 3) == SessionName("a\x00b\ud800", 3)


@pytest.mark.parametrize("text", ["", "a", "7", "null", '""', "[]", "[" * 100_000])
def test_json_that_is_no_text_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError, match="JSON string"):
        name_session(None, text, None)


@pytest.mark.parametrize(("session", "id_json"), [(None, None), ("a", '"a"'), ("", None)])
def test_exactly_one_session_is_named(session: str | None, id_json: str | None) -> None:
    with pytest.raises(click.UsageError):
        name_session(session, id_json, None)
