"""What the tests of a failing disk share: the log kept aside, and little memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from collectord.daemon import owner as owner_module
from tests.daemon.judging import LIMIT_BYTES, Log


@pytest.fixture
def log() -> Iterator[Log]:
    """The log, kept away from everybody else: thousands of lives say a lot."""
    kept, logger = Log(), logging.getLogger("collectord")
    logger.addHandler(kept)
    logger.propagate = False
    yield kept
    logger.removeHandler(kept)
    logger.propagate = True


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is sent to a disk that does not answer reaches the limit soon."""
    monkeypatch.setattr(owner_module, "PENDING_MAX_BYTES", LIMIT_BYTES)
