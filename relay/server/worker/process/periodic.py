"""Periodic tasks of a worker, which continue after an error in one run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from relay.server.worker.out_of_memory import exit_if_out_of_memory

log = logging.getLogger("relay.worker")


def attempt(action: Callable[[], object]) -> None:
    """Call a function. If it raises, log the error and continue."""
    try:
        action()
    except Exception as error:
        exit_if_out_of_memory(error)
        log.exception("periodic_task_failed")


async def every(
    seconds: float, action: Callable[[], None], late_ns: Callable[[int], None] = lambda _: None
) -> None:
    """Call a function periodically. ``late_ns`` is called with the delay of each run."""
    while True:
        attempt(action)
        due_ns = time.monotonic_ns() + int(seconds * 1e9)
        await asyncio.sleep(seconds)
        late_ns(max(0, time.monotonic_ns() - due_ns))
