"""The collectors that the client's tests run against: one real daemon for the whole folder, and a fake for each test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.client.collectors import Collector, FakeSeen, RealCollector
from tests.client.fake_collector import FakeCollector, listening
from tests.process.daemon import Daemon, running


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    with running() as started:
        yield started


@pytest.fixture
def fake() -> Iterator[FakeCollector]:
    with tempfile.TemporaryDirectory(prefix="cf-") as directory, listening(Path(directory)) as collector:
        yield collector


@pytest.fixture(params=["daemon", "fake"])
def collector(request: pytest.FixtureRequest) -> Collector:
    if request.param == "daemon":
        return RealCollector(request.getfixturevalue("daemon"))
    return FakeSeen(request.getfixturevalue("fake"))


@pytest.fixture
def name() -> str:
    """A session id of the test's own."""
    return f"client-{uuid4().hex[:12]}"
