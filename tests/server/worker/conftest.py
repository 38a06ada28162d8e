"""Towns for the tests of this folder, on the loop that workers run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio
import uvloop

from tests.support.hubs import Town


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Workers run on uvloop, whose transports differ from asyncio's in detail."""
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    """Two workers."""
    async with Town(tmp_path, 2) as running:
        yield running


@pytest_asyncio.fixture
async def village(tmp_path: Path) -> AsyncIterator[Town]:
    """One worker."""
    async with Town(tmp_path, 1) as running:
        yield running
