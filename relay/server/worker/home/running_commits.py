"""Commits of a home that run in threads: what they have is in no queue.

So whoever empties the queues has to think of them as well: of what they give back when they are
over, and of what they store until then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from relay.bus.link import Port


@final
class RunningCommits:
    """See the module's docstring. At most one of a partition."""

    __slots__ = ("_running", "awaited")

    def __init__(self) -> None:
        self._running: dict[int, list[Port]] = {}
        """By partition: the workers that send anew what it has of them."""
        self.awaited: list[tuple[set[int], Callable[[], None]]] = []
        """Partitions whose commits are awaited, and by whom."""

    def began(self, index: int) -> None:
        """A commit did not end at once."""
        self._running[index] = []

    def forget(self, index: int, port: Port) -> None:
        """A worker is about to send anew what it has submitted to a partition."""
        resending = self._running.get(index)
        if resending is not None:
            resending.append(port)

    def after(self, done: Callable[[], None]) -> None:
        """Call something when all that run now are over and answered; at once if none does."""
        if self._running:
            self.awaited.append((set(self._running), done))
        else:
            done()

    def ended(self, index: int) -> list[Port]:
        """One is over, if it ran; return the workers that have sent anew what it had of them."""
        return self._running.pop(index, [])

    def answered(self, index: int) -> None:
        """What it had is answered, or queued again. Called if any is ``awaited``."""
        for partitions, _ in self.awaited:
            partitions.discard(index)
        over = [done for partitions, done in self.awaited if not partitions]
        self.awaited = [one for one in self.awaited if one[0]]
        for done in over:
            done()
