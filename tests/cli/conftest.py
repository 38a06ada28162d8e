"""One relay for the tests of this folder, which use rooms of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Relay

_numbers = itertools.count()


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that no test stops or kills."""
    with Relay(tmp_path_factory.mktemp("relay") / "data") as running:
        yield running


@pytest.fixture
def room() -> str:
    """The name of a room of this test."""
    return f"room-{next(_numbers)}"


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """The path of a known-servers file that does not exist yet."""
    return tmp_path / "known_servers"
