"""Which tests are beds: longer ones that `make test` leaves to `make beds`, so that it stays a matter of a few minutes."""

from __future__ import annotations

import pytest

BEDS = {
    "test_d1_bytes_written.py",
    "test_d_stops.py",
    "test_l17_leaks.py",
    "test_l_exact.py",
}
"""Files whose rows `make test` shows in a shorter form in the files beside them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands in those files."""
    for item in items:
        if item.path.name in BEDS:
            item.add_marker(pytest.mark.bed)
