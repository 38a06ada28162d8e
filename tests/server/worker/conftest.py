"""Clusters for the tests of this directory, on the event loop that workers use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.events import PROGRAM_ERRORS
from tests.support.loops import ClosingLoop
from tests.support.workers import Cluster


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Workers run on uvloop, whose transports differ from asyncio's in details."""
    return {"uvloop": ClosingLoop}


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Two workers."""
    async with Cluster(tmp_path, 2) as running:
        yield running


@pytest_asyncio.fixture
async def single(tmp_path: Path) -> AsyncIterator[Cluster]:
    """One worker."""
    async with Cluster(tmp_path, 1) as running:
        yield running


@pytest.fixture(autouse=True)
def program_errors() -> Iterator[list[str]]:
    """Logged program errors that a worker survived: a test fails with one.

    A test that causes some removes them from the list.
    """
    errors: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() in PROGRAM_ERRORS:
                errors.append(self.format(record))

    handler = Handler()
    log = logging.getLogger("relay.worker")
    log.addHandler(handler)
    yield errors
    log.removeHandler(handler)
    assert not errors, "\n".join(errors)
