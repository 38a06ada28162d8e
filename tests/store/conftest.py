"""Partitions that are closed after the test in any case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from tests.support.logs import open_partition

Hooks = list[Callable[[apsw.Connection], None]]


@pytest.fixture
def partition(tmp_path: Path) -> Iterator[SqlitePartition]:
    opened = open_partition(tmp_path)
    yield opened
    if opened._lock._fd >= 0:
        opened.close()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[SqliteReader]:
    opened = SqliteReader(tmp_path / "00.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def connection_hooks() -> Iterator[Hooks]:
    """Hooks called with each new apsw connection: faults are injected there."""
    hooks: Hooks = apsw.connection_hooks
    before = list(hooks)
    yield hooks
    hooks[:] = before
