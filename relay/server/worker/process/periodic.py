"""Periodic tasks of a worker, which outlive an error in one run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from relay.server.worker.exhausted import end_if_exhausted

log = logging.getLogger("relay.worker")


def attempt(action: Callable[[], object]) -> None:
    """Act. An error of ours is logged, and goes no further."""
    try:
        action()
    except Exception as error:
        end_if_exhausted(error)
        log.exception("periodic_task_failed")


async def every(
    seconds: float, action: Callable[[], None], late_ns: Callable[[int], None] = lambda _: None
) -> None:
    """Act, again and again. ``late_ns`` is told how much later than due each time was."""
    while True:
        attempt(action)
        due_ns = time.monotonic_ns() + int(seconds * 1e9)
        await asyncio.sleep(seconds)
        late_ns(max(0, time.monotonic_ns() - due_ns))
