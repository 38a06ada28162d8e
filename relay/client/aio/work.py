"""Computes proofs of work beside the event loop.

Each thread that computes takes the interpreter's lock from the loop for milliseconds at a time.
With several of them, for several clients, the loop would hardly run: so there is one at a time.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final
from weakref import WeakValueDictionary

from relay.client.aio.thread import in_thread
from relay.client.options import WORK_ATTEMPTS
from relay.wire.messages import Work

_turns: Final[WeakValueDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakValueDictionary()
"""Held while one is computed. A lock refers to its loop, so only those that use it keep both."""


async def solved(work: Work) -> bytes | None:
    """Return the nonce. A cancellation ends the computation."""
    given_up = threading.Event()

    def solve() -> bytes | None:
        while not given_up.is_set():
            nonce = work.attempt(WORK_ATTEMPTS)
            if nonce is not None:
                return nonce
        return None

    turn = _turn()
    try:
        async with turn:
            return await in_thread(solve)
    finally:
        given_up.set()


def _turn() -> asyncio.Lock:
    """Return the lock of the running loop. It exists while somebody holds it or waits for it."""
    loop = asyncio.get_running_loop()
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = asyncio.Lock()
    return turn
