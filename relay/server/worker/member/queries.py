"""Member side: questions to homes whose answers are awaited (WHO)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay.bus.link import Port
from relay.bus.messages import Members, Who
from relay.chat.partition import partition_of

Answer = Callable[[Members], None]
WAITING_MAX: Final = 10_000
"""A question that a dead home never answers is said again to the next; beyond so many, refuse."""


class Waits:
    """Questions by tag; said again when their home comes back."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[str, Answer]] = {}
        self._count = 0

    def ask(self, log: str, port: Port | None, answer: Answer) -> bool:
        """Ask who follows a log. Returns False when too many questions wait."""
        if len(self._waiting) >= WAITING_MAX:
            return False
        self._count += 1
        self._waiting[self._count] = (log, answer)
        if port is not None:
            port.send(Who(self._count, log))
        return True

    def answered(self, tag: int) -> Answer | None:
        """Return what takes the answer; None when it was answered before."""
        found = self._waiting.pop(tag, None)
        return None if found is None else found[1]

    def attach(self, partition: int, port: Port) -> None:
        """A home is there (again)."""
        for tag, (log, _) in list(self._waiting.items()):
            if partition_of(log) == partition:
                port.send(Who(tag, log))
