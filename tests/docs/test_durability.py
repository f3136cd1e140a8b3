"""docs/durability.md names tests that exist."""

from __future__ import annotations

import re

from tests.docs.tables import ROOT, read, table

TEXT = read("durability.md")
SOURCES = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
TESTS = {name for text in SOURCES.values() for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)}


def rows() -> list[list[str]]:
    """The rows of the table."""
    return [list(row) for row in table(TEXT)]


def test_every_fault_has_a_test_that_shows_it() -> None:
    assert len(rows()) > 30
    for row in rows():
        assert len(row) == 6, row[0]
        assert all(cell.strip() for cell in row), row[0]
        assert re.findall(r"`(test_[^`]+)`", row[5]), row[0]


def test_the_tests_that_are_named_exist() -> None:
    for row in rows():
        for name in re.findall(r"`(test_[^`]+)`", row[5]):
            if name.endswith(".py"):
                assert name in SOURCES, name
            elif name.endswith("…"):
                assert any(test.startswith(name[:-1]) for test in TESTS), name
            else:
                assert name in TESTS, name
