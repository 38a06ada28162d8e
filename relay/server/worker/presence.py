"""Presence of this worker's logs: who is here, and the coalesced changes that members are told.

A join storm is a few envelopes, not one per join and member: changes of one log are collected during
a turn, and in a room above ``ROSTER_NAMES_MAX`` members only the count is told, at most once in
``COUNT_INTERVAL_S``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.wire.envelopes import Roster, pack

if TYPE_CHECKING:
    from relay.server.worker.fanout import Feed

COUNT_INTERVAL_S: Final = 1.0


class _LogPresence:
    """The members of one log and what changed since they were last told."""

    __slots__ = ("changed", "connections", "display", "incarnation", "told_at", "version")

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.version = 0
        self.connections: dict[str, int] = {}
        self.display: dict[str, str] = {}
        self.changed: set[str] = set()
        self.told_at = float("-inf")


class Presence:
    """Rosters of all logs that are followed here."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._logs: dict[str, _LogPresence] = {}
        self._changed: dict[str, None] = {}
        self.due_at = float("inf")
        """When a change that waits (a large room's count) is to be told."""

    def joined(self, log: str, name: str, display: str) -> None:
        """One more connection of a name follows a log."""
        here = self._logs.get(log)
        if here is None:
            here = _LogPresence(int.from_bytes(self._random_bytes(7), "big"))
            self._logs[log] = here
        count = here.connections.get(name, 0)
        here.connections[name] = count + 1
        here.display[name] = display
        if count == 0:
            self._change(log, here, name)

    def left(self, log: str, name: str) -> None:
        """One connection of a name less."""
        here = self._logs[log]
        here.connections[name] -= 1
        if here.connections[name] == 0:
            del here.connections[name], here.display[name]
            self._change(log, here, name)

    def forget(self, log: str) -> None:
        """Nobody follows the log any more."""
        self._logs.pop(log, None)
        self._changed.pop(log, None)

    def members(self, log: str) -> tuple[int, int, int, list[list[str | int]]]:
        """Return (incarnation, version, total, [[name, display, connections], ...])."""
        here = self._logs[log]
        listed: list[list[str | int]] = [
            [name, here.display[name], count]
            for name, count in sorted(here.connections.items())[: limits.ROSTER_NAMES_MAX]
        ]
        return here.incarnation, here.version, len(here.connections), listed

    def changes(self, now: float, feeds: Mapping[str, Feed]) -> Iterator[tuple[Feed, bytes]]:
        """Yield (feed, packed ROSTER) for each log whose members are to be told now."""
        self.due_at = float("inf")
        for log in list(self._changed):
            here = self._logs[log]
            large = len(here.connections) > limits.ROSTER_NAMES_MAX
            if large and now < here.told_at + COUNT_INTERVAL_S:
                self.due_at = min(self.due_at, here.told_at + COUNT_INTERVAL_S)
                continue
            del self._changed[log]
            here.told_at = now
            yield feeds[log], pack(_tell(log, here, large))

    def _change(self, log: str, here: _LogPresence, name: str) -> None:
        here.version += 1
        here.changed.add(name)
        self._changed[log] = None


def _tell(log: str, here: _LogPresence, large: bool) -> Roster:
    names = sorted(here.changed)
    here.changed.clear()
    total = len(here.connections)
    if large or len(names) > limits.ROSTER_NAMES_MAX:
        return Roster(log, here.incarnation, here.version, total, [], [])
    joined = [[name, here.display[name]] for name in names if name in here.connections]
    left = [name for name in names if name not in here.connections]
    return Roster(log, here.incarnation, here.version, total, joined, left)
