"""A server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Relay


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A fresh relay."""
    with Relay(tmp_path / "data") as running:
        yield running
