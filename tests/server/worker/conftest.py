"""Towns for the tests of this folder, on the loop that workers run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio
import uvloop

from tests.support.workers import Cluster


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Workers run on uvloop, whose transports differ from asyncio's in detail."""
    return {"uvloop": uvloop.new_event_loop}


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
