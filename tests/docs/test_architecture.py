"""docs/architecture.md: every module has its line, and the diagram is the table."""

from __future__ import annotations

import ast
import re

from collectord.session.state import State, edges
from tests.docs.tables import ROOT, block, code, read, section, table
from tests.test_layers import ORDER

TEXT = read("architecture.md")


def test_every_module_has_a_line() -> None:
    package = ROOT / "collectord"
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py") if not path.name.startswith("__")}
    assert {code(name) for name, _ in table(section(TEXT, "The layers"))} == modules


def test_a_line_says_what_its_module_says_of_itself() -> None:
    for name, told in table(section(TEXT, "The layers")):
        first = (ast.get_docstring(ast.parse((ROOT / "collectord" / code(name)).read_text())) or "").split("\n\n")[0]
        assert " ".join(first.split()).replace("``", "`").startswith(told), name


def test_the_modules_stand_in_the_order_in_which_they_may_be_imported() -> None:
    names = [code(name).split("/")[0].removesuffix(".py") for name, _ in table(section(TEXT, "The layers"))]
    assert names == sorted(names, key=ORDER.index)


def test_the_diagram_shows_every_edge_of_the_table_and_no_other() -> None:
    drawn = set()
    for line in block(TEXT, "mermaid").splitlines():
        found = re.fullmatch(r"\s+(\w+) --> (\w+): (.+)", line)
        if found is not None:
            for cause in found[3].split(", "):
                drawn.add((found[1].replace("_", "-"), cause, found[2].replace("_", "-")))
    assert drawn == {(state.value, cause.value, following.value) for state, cause, following in edges()}
    assert len(list(State)) == 11
