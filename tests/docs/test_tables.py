"""docs/errors.md and docs/limits.md list what the code has, with the same words and numbers."""

from __future__ import annotations

from collectord import limits
from collectord.errors import CODES
from tests.docs.tables import code, read


def _rows(name: str) -> list[list[str]]:
    lines = [line for line in read(name).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_error_is_listed_with_whose_it_is_and_what_to_do() -> None:
    listed = {code(first): (whose, again, remedy) for first, whose, again, remedy in _rows("errors.md")}
    wanted = {row.code: (row.whose, "yes" if row.retryable else "no", row.remedy.replace("|", "/")) for row in CODES.values()}
    assert listed == wanted


def test_every_limit_is_listed_with_its_value_and_a_reason() -> None:
    wanted = {name: str(getattr(limits, name)) for name in vars(limits) if name.isupper()}
    listed = {code(name): value for name, value, _ in _rows("limits.md")}
    assert listed == wanted
    assert all(len(why) > 20 for _, _, why in _rows("limits.md"))
