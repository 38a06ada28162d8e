"""A handshake's one question to the key agent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.errors import RelayError

if TYPE_CHECKING:
    from relay.server.worker.connection.services import Unwrap

log = logging.getLogger("relay.worker")


class Unwrapping:
    """Asks, and tells the connection."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        """True from the question to the answer."""
        return self._task is not None

    def start(
        self, agent: Unwrap, ciphertext: bytes, peer: str, answered: Callable[[bytes | None], None]
    ) -> None:
        """Ask.

        Args:
            agent: the key agent.
            ciphertext: what the client has sent.
            peer: its address.
            answered: called with the secret; None: the agent is unavailable.
        """
        self._task = asyncio.ensure_future(self._run(agent, ciphertext, peer, answered))

    def cancel(self) -> None:
        """The connection is gone."""
        if self._task is not None:
            self._task.cancel()

    async def _run(
        self, agent: Unwrap, ciphertext: bytes, peer: str, answered: Callable[[bytes | None], None]
    ) -> None:
        secret: bytes | None = None
        try:
            secret = await agent.unwrap(ciphertext, peer)
        except RelayError as error:
            log.warning("unwrap_failed", extra={"reason": type(error).__name__})
        self._task = None
        answered(secret)
