"""Computes proofs of work beside the event loop.

Each thread that computes takes the interpreter's lock from the loop for milliseconds at a time.
With several of them, for several clients, the loop would hardly run: so there is one at a time.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final
from weakref import WeakKeyDictionary

from relay.client.aio.thread import in_thread
from relay.client.options import WORK_ATTEMPTS
from relay.wire.messages import Work

_turns: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()
"""Held while one is computed."""


async def solved(work: Work) -> bytes | None:
    """Return the nonce. A cancellation ends the computation."""
    given_up = threading.Event()

    def solve() -> bytes | None:
        while not given_up.is_set():
            nonce = work.attempt(WORK_ATTEMPTS)
            if nonce is not None:
                return nonce
        return None

    turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    try:
        async with turn:
            return await in_thread(solve)
    finally:
        given_up.set()
