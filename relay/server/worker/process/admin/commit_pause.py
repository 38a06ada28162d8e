"""Pauses the commits of this worker briefly, so that a backup shows one moment.

The time is limited: the pause ends by itself. Messages wait as they do for a checkpoint, and
nothing else waits.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from relay.server.line_server import Handler, NotAnswered, Question, text_of

if TYPE_CHECKING:
    from relay.server.worker.home.partitions import OwnPartitions

PAUSE_S: Final = 0.04
"""A commit is never held for more than 50 ms."""
LOOK_S: Final = 0.001
_TOKEN_BYTES: Final = 8


class CommitPause:
    """Pauses commits at the request of a backup."""

    def __init__(
        self,
        partitions: OwnPartitions,
        wake: Callable[[], None],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """Create without a pause.

        Args:
            partitions: of this worker.
            wake: requests a turn.
            call_later: the loop's.
        """
        self._partitions = partitions
        self._wake = wake
        self._call_later = call_later
        self._token = ""
        """Identifies the current pause; empty: none."""

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handlers, by request."""
        return {"pause": self._pause, "go-on": self._go_on}

    async def _pause(self, _: Question) -> str:
        """Begin a pause, and answer its token once no commit is under way.

        Raises:
            NotAnswered: it ended before that, or another pause is active.
        """
        if self._token:
            raise NotAnswered("its commits are paused for another backup")
        token = self._token = secrets.token_hex(_TOKEN_BYTES)
        self._partitions.paused = True
        self._call_later(PAUSE_S, lambda: self._end(token))
        # In threads, with durability "power".
        while self._partitions.committing:  # noqa: ASYNC110  # the turn finishes them
            await asyncio.sleep(LOOK_S)
        if self._token != token:
            raise NotAnswered("a commit took too long")
        return token

    async def _go_on(self, question: Question) -> bool:
        """End a pause. True: no commit was begun since it was answered."""
        token = text_of(question, "token")
        held = bool(token) and self._token == token
        self._end(token)
        return held

    def _end(self, token: str) -> None:
        if token and self._token == token:
            self._token = ""
            self._partitions.paused = False
            self._wake()
