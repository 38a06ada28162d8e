"""The key agent's answer to one question of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import final

from relay.errors import RelayError


class AgentUnavailable(RelayError):
    """The key agent did not answer: it is gone, hangs, or sheds load."""


@final
class Answer:
    """An answer that comes later, never inside the call that asks.

    Whoever asks passes a function (``then``), or awaits it. The function is called at once when the
    answer is there: that of a future would be called in another iteration of the loop.
    """

    __slots__ = ("_called", "done", "error", "secret")

    def __init__(self) -> None:
        """Create without an answer."""
        self._called: Callable[[Answer], None] | None = None
        self.done = False
        """True once there is an answer, or nobody waits for it any more."""
        self.secret = b""
        """What was asked for; empty as long as there is no answer, or ``error``."""
        self.error: AgentUnavailable | None = None
        """Why there is none."""

    def then(self, called: Callable[[Answer], None]) -> None:
        """Call a function with this object when the answer is there. It must raise nothing."""
        assert not self.done, "no answer arrives inside the call that asks"
        self._called = called

    def give(self, secret: bytes) -> None:
        """The agent has answered. No effect if ``done``."""
        if not self.done:
            self.secret = secret
            self._tell()

    def fail(self, error: AgentUnavailable) -> None:
        """There will be no answer. No effect if ``done``."""
        if not self.done:
            self.error = error
            self._tell()

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.done = True
        self._called = None

    def _tell(self) -> None:
        self.done = True
        called, self._called = self._called, None
        if called is not None:
            called(self)

    def __await__(self) -> Generator[object, None, bytes]:
        """Return the secret, or raise the error."""
        if not self.done:
            told = asyncio.get_running_loop().create_future()
            self.then(lambda _: None if told.done() else told.set_result(None))
            yield from told.__await__()
        if self.error is not None:
            raise self.error
        return self.secret
