"""Periodic work in an event loop, by timers of the loop.

A task that sleeps between its runs would cost a future, a second pass of the loop and several calls
each time. All of that is in none of the CPU's caches after a pause, and the loops of all processes
have periodic work several times a second, whether or not there is anything to do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NoReturn


class Periodic:
    """Calls a function at once, and then periodically, until it is cancelled or the call fails."""

    def __init__(
        self,
        seconds: float,
        action: Callable[[], object],
        late_ns: Callable[[int], None] | None = None,
    ) -> None:
        """Begin, in a running loop.

        Args:
            seconds: between two calls.
            action: the function.
            late_ns: called with the delay of each call but the first.
        """
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._action = action
        self._late_ns = late_ns
        self._due_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._cancelled = False
        self.failed: asyncio.Future[NoReturn] = self._loop.create_future()
        """Has the exception of the call that failed."""
        self._run()

    def _run(self) -> None:
        if self._late_ns is not None and self._due_ns:
            self._late_ns(max(0, time.monotonic_ns() - self._due_ns))
        try:
            self._action()
        except Exception as error:  # noqa: BLE001 - for whoever awaits ``failed``
            self.failed.set_exception(error)
            return
        if self._cancelled:  # by the function itself
            return
        self._due_ns = time.monotonic_ns() + int(self._seconds * 1e9)
        self._timer = self._loop.call_later(self._seconds, self._run)

    def cancel(self) -> None:
        """Call the function no more."""
        self._cancelled = True
        if self._timer is not None:
            self._timer.cancel()


async def every_until(stop: asyncio.Event, seconds: float, action: Callable[[], object]) -> None:
    """Call a function periodically until an event is set. Raises what the function raises."""
    periodic = Periodic(seconds, action)
    stopped = asyncio.ensure_future(stop.wait())
    ends: list[asyncio.Future[Any]] = [stopped, periodic.failed]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        periodic.cancel()
        stopped.cancel()
    if periodic.failed.done():
        periodic.failed.result()
