"""A handshake's request to the key agent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from relay.errors import RelayError

if TYPE_CHECKING:
    from relay.server.worker.connection.services import Unwrap

log = logging.getLogger("relay.worker")


class Unwrapping:
    """Asks the key agent and passes the answer on."""

    __slots__ = ("_answer",)

    def __init__(self) -> None:
        self._answer: asyncio.Future[bytes] | None = None

    def start(
        self, agent: Unwrap, ciphertext: bytes, peer: str, answered: Callable[[bytes | None], None]
    ) -> None:
        """Send the request.

        Args:
            agent: the key agent.
            ciphertext: from the client.
            peer: the client's address.
            answered: called with the secret, or with None if the agent is unavailable.
        """
        self._answer = answer = asyncio.ensure_future(agent.unwrap(ciphertext, peer))
        answer.add_done_callback(partial(self._done, answered))

    def cancel(self) -> None:
        """Ignore the answer: the connection has ended."""
        if self._answer is not None:
            self._answer.cancel()

    def _done(
        self, answered: Callable[[bytes | None], None], answer: asyncio.Future[bytes]
    ) -> None:
        self._answer = None
        if answer.cancelled():
            return
        error = answer.exception()
        if error is None:
            answered(answer.result())
            return
        if isinstance(error, RelayError):
            log.warning("unwrap_failed", extra={"reason": type(error).__name__})
        else:
            log.error("unwrap_failed", exc_info=error)
        answered(None)
