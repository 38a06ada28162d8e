"""A FIFO queue of senders that wait for space in the window of an asyncio client."""

from __future__ import annotations

import asyncio
from collections import deque

from relay.client.events import State
from relay.client.state import ClientState


class Line:
    """The queue; each sender waits with the size of its message."""

    def __init__(self, state: ClientState) -> None:
        """Create an empty queue. ``state``: of the client."""
        self._state = state
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def congested(self) -> bool:
        """True while any sender waits."""
        return len(self._waiting) > 0

    async def wait(self, size: int) -> None:
        """Wait until the window has space for a message of this size, or the client has ended."""
        while not self._over:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except BaseException:
                self.advance()  # it may have been this sender's turn
                raise
            if self._state.chat.sends.has_space(size):
                return

    def advance(self) -> None:
        """Wake the first sender, if there is space. It then wakes the next one."""
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.done() and not self._over and not self._state.chat.sends.has_space(size):
                return
            self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                if not self._over:
                    return

    @property
    def _over(self) -> bool:
        return self._state.state is State.CLOSED
