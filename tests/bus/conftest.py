"""The bus runs on uvloop in a worker, whose transports differ from asyncio's in details."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.loops import ClosingLoop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests of this folder on both loops."""
    return {"uvloop": ClosingLoop, "asyncio": asyncio.new_event_loop}
