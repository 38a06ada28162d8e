"""The first join of a chat or a tail.

Before it is answered nothing of the room may be shown. But whoever waits is told why: that the
connection was lost, or that there is no answer yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from relay.client.aio import Client
from relay.client.events import Event, Joined, Postponed, StateChanged

TOLD_AFTER_S: Final = 5.0
"""An answer takes milliseconds, or some seconds if a worker has just died."""
NO_ANSWER: Final = "waiting: the server has not answered yet"


class Entering:
    """One first join, and the events before and after its answer."""

    def __init__(self, notice: Callable[[str], None], told_after_s: float = TOLD_AFTER_S) -> None:
        """``notice`` shows a text."""
        self._notice = notice
        self._told_after_s = told_after_s
        self._entered = asyncio.Event()

    async def join(self, join: Coroutine[Any, Any, Joined]) -> Joined:
        """Wait for the answer, and return it. Raises what ``join`` raises."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._told_after_s, self._notice, NO_ANSWER)
        try:
            joined = await join
        finally:
            timer.cancel()
        self._entered.set()
        return joined

    async def events(self, client: Client) -> AsyncIterator[Event]:
        """Yield the client's events. Until the join is answered only those that tell why it is not.

        Raises what iterating over the client raises.
        """
        async for event in client:
            if not isinstance(event, StateChanged | Postponed):
                await self._entered.wait()
            yield event
