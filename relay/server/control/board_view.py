"""The control process's view of the scoreboards at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from relay.server.context import AGENT, WORKER
from relay.server.scoreboard import Owner, Row, Scoreboard

SUPERVISOR: Final = "supervisor"
FRESH_NS: Final = 1_000_000_000
"""A process with an older heartbeat does not run: loops beat two to ten times a second."""


class Seen(NamedTuple):
    """A process that the supervisor runs, or should run."""

    role: str
    number: int
    row: Row

    @property
    def pid(self) -> int:
        """0: there is none now."""
        return self.row.get("pid")

    def silence_ns(self, now_ns: int) -> int:
        """Time since the last heartbeat of its loop."""
        return max(0, now_ns - self.row.get("heartbeat_ns"))

    def lives(self, now_ns: int) -> bool:
        """Return True if it has booted and its loop runs."""
        return bool(self.row.get("ready")) and self.silence_ns(now_ns) < FRESH_NS


class BoardView:
    """The scoreboards of all roles."""

    def __init__(self, boards: Mapping[str, Scoreboard], partitions: int) -> None:
        self.boards = boards
        self.partitions = partitions

    def processes(self) -> Iterator[Seen]:
        """Yield the processes of all roles, in the order of the supervisor's table."""
        for role in self.boards:
            if role != SUPERVISOR:
                yield from self.of(role)

    def of(self, role: str) -> Iterator[Seen]:
        """Yield the processes of one role."""
        board = self.boards[role]
        for index in range(board.workers):
            row = board.row(index)
            if not row.get("retired"):
                yield Seen(role, index, row)

    def total(self, role: str, counter: str) -> int:
        """Return a counter's sum over all processes of a role, including earlier ones."""
        board = self.boards[role]
        return sum(board.row(index).get(counter) for index in range(board.workers))

    @property
    def stopping(self) -> bool:
        """True once the server has been asked to stop."""
        return bool(self.boards[SUPERVISOR].row(0).get("stopping"))

    @property
    def agent(self) -> Seen:
        """The key agent."""
        return Seen(AGENT, 0, self.boards[AGENT].row(0))

    def homeless(self, now_ns: int) -> list[int]:
        """Return the partitions whose home is not available now."""
        board = self.boards[WORKER]
        alive = [
            Owner(seen.number, seen.row.get("generation"))
            for seen in self.of(WORKER)
            if seen.lives(now_ns)
        ]
        return board.owned_by_none_of(alive, self.partitions)
