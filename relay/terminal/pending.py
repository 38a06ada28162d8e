"""Marks typed lines that the server has not accepted for a while. No I/O.

Usually lines are accepted at once. So nothing is marked at first: a mark that appears and
disappears with every line would be meaningless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

MARKED_AFTER_S: Final = 1.0
"""How long a line may wait without a mark."""


class Pending:
    """The waiting lines; reports those that have waited for long, whenever they change."""

    def __init__(self, show: Callable[[list[str]], None], after_s: float = MARKED_AFTER_S) -> None:
        """``show`` gets the lines to mark, oldest first, replacing the previous ones."""
        self._show = show
        self._after_s = after_s
        self._waiting: dict[int, str] = {}
        self._marked: set[int] = set()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._last = 0

    def begin(self, text: str) -> Callable[[], None]:
        """Add a waiting line. Return the function to call when it no longer waits."""
        self._last += 1
        number = self._last
        loop = asyncio.get_running_loop()
        self._waiting[number] = text
        self._timers[number] = loop.call_later(self._after_s, self._mark, number)
        return lambda: self._end(number)

    def _mark(self, number: int) -> None:
        self._marked.add(number)
        self._tell()

    def _end(self, number: int) -> None:
        self._waiting.pop(number, None)
        if timer := self._timers.pop(number, None):
            timer.cancel()
        if number in self._marked:
            self._marked.discard(number)
            self._tell()

    def _tell(self) -> None:
        self._show([text for number, text in self._waiting.items() if number in self._marked])
