"""The waiting of a command that asks something and ends.

Such a command tells why it waits, and does not wait for ever: not for a server that never answers,
nor for one that closes each connection instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from relay.client.aio import Client
from relay.client.events import Postponed, StateChanged
from relay.terminal.notices import Narrator
from relay.terminal.screens import stderr_notice

ANSWER_S: Final = 150.0
"""For each answer, also across lost connections: longer than a request is repeated after BUSY."""


async def used(client: Client, use: Callable[[Client], Awaitable[int]]) -> int:
    """Return the exit code of ``use(client)``; meanwhile tell why it waits."""
    telling = asyncio.create_task(_tell(client))
    try:
        return await use(client)
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def _tell(client: Client) -> None:
    narrator = Narrator()
    async for event in client:
        if isinstance(event, StateChanged | Postponed) and (notice := narrator.notice_of(event)):
            stderr_notice(notice)
