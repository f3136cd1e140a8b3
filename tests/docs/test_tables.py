"""docs/errors.md and docs/limits.md list what the code has, with the same words and numbers."""

from __future__ import annotations

import re

from collectord import limits
from collectord.errors import CODES
from tests.docs.tables import DOCS, ROOT, code, read, section, table


def _rows(name: str) -> list[list[str]]:
    lines = [line for line in read(name).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_error_is_listed_with_whose_it_is_and_what_to_do() -> None:
    listed = {code(first): (whose, again, remedy) for first, whose, again, remedy in _rows("errors.md")}
    wanted = {row.code: (row.whose, "yes" if row.retryable else "no", row.remedy.replace("|", "/")) for row in CODES.values()}
    assert listed == wanted


def test_what_closes_the_connection_is_what_the_code_raises_as_a_fault_of_the_peer() -> None:
    raised = set()
    for path in (ROOT / "collectord").rglob("*.py"):
        raised |= set(re.findall(r'PeerError\(\s*"([a-z0-9-]+)"', path.read_text()))
    assert {code(first) for first, *_ in table(section(read("errors.md"), "The protocol is broken"))} == raised


def test_every_limit_is_listed_with_its_value_and_a_reason() -> None:
    wanted = {name: str(getattr(limits, name)) for name in vars(limits) if name.isupper()}
    listed = {code(name): value for name, value, _ in _rows("limits.md")}
    assert listed == wanted
    assert all(len(why) > 20 for _, _, why in _rows("limits.md"))


def test_every_test_that_a_document_names_exists() -> None:
    files = [*(ROOT / "tests").rglob("test_*.py")]
    tests = {name for path in files for name in re.findall(r"def (test_\w+)", path.read_text())} | {path.name for path in files}
    for document in DOCS.rglob("*.md"):
        for name, more in re.findall(r"`(?:tests/[a-z/]*)?(test_[a-z0-9_]+(?:\.py)?)(…?)`", document.read_text()):
            assert any(test.startswith(name) if more else test == name for test in tests), (document.name, name)


def test_every_link_between_documents_leads_somewhere() -> None:
    for document in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)
