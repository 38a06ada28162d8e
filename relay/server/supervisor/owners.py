"""Which process owns which partition, and how the number of owners changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from relay.errors import StartError
from relay.server.scoreboard import Scoreboard
from relay.server.supervisor.shares import rebalanced
from relay.server.supervisor.state import Child, Phase, State

log = logging.getLogger("relay.supervisor")


class Owners:
    """Gives partitions to the processes of the one role that owns them."""

    def __init__(
        self,
        state: State,
        boards: Mapping[str, Scoreboard],
        partitions: int,
        patience_s: Callable[[], float],
    ) -> None:
        """Begin with partition p at process p mod count.

        Args:
            state: of the children.
            boards: of all roles; who owns what is written into that of the role.
            partitions: how many there are.
            patience_s: how long a process that is asked to leave may take.
        """
        self._state = state
        self._boards = boards
        self._partitions = partitions
        self._patience_s = patience_s
        count = len(state.owners)
        self._owner_of = [number % count for number in range(partitions)] if count else []
        """The number of the process that owns each."""

    @property
    def requests(self) -> Mapping[str, Callable[[Mapping[str, Any]], object]]:
        """What may be asked for, by name."""
        return {"restart": self._restart, "workers": self._resize_as_asked}

    def assign(self, child: Child, generation: int) -> None:
        """A process is about to begin in a place: what the place owns is its own."""
        board = self._boards[child.role.name]
        for partition in self._partitions_of(child):
            board.assign(partition, child.index, generation)

    def step(self, change: int) -> None:
        """Have so many more. Raises StartError: there cannot be so many, and it is in the log."""
        self._resize(self._count + change)

    def leave(self, child: Child, now: float) -> None:
        """Ask a process to leave: others take its partitions first, so that none is missing."""
        self._state.leaves(child, now, self._patience_s())
        log.info("child_leaving", extra=child.fields)
        self.rebalance()
        self._boards[child.role.name].row(child.index).set("leaving", 1)

    def rebalance(self) -> None:
        """Give partitions evenly to those that stay; move as few as can be."""
        state = self._state
        # One that died and comes back in a moment keeps what it has.
        coming_back = {
            child.index
            for child in state.owners
            if child.phase is not Phase.READY
            and not child.surplus
            and child.index in self._owner_of
        }
        # In an upgrade, one of the server before keeps what it has until it leaves.
        kept = {child.index for child in state.before if not child.leave_by_s}
        moved = [n for n, index in enumerate(self._owner_of) if index not in kept]
        shares = rebalanced(
            [self._owner_of[n] for n in moved], sorted(coming_back.union(state.staying))
        )
        found = list(self._owner_of)
        for partition, index in zip(moved, shares, strict=True):
            found[partition] = index
        if found == self._owner_of:
            return
        by_index = {child.index: child for child in state.owners}
        for partition, index in enumerate(found):
            if index != self._owner_of[partition]:
                child = by_index[index]
                self._boards[child.role.name].assign(partition, index, child.generation)
        self._owner_of = found
        self.log_table()

    @property
    def greatest_generation(self) -> int:
        """Of all processes that had a place, those of another server too."""
        boards = [self._boards[role.name] for role in self._state.roles if role.owns_partitions]
        return max(
            (board.row(n).get("generation") for board in boards for n in range(board.workers)),
            default=0,
        )

    def read_table(self) -> None:
        """Go on with what another supervisor has written there."""
        role = next(role for role in self._state.roles if role.owns_partitions)
        board = self._boards[role.name]
        self._owner_of = [board.owner(n).worker for n in range(self._partitions)]

    def give_away(self, generation: int) -> None:
        """Take all partitions from their owners, for good: another server has them.

        ``generation`` is of no process: those who look for a home wait.
        """
        owners = self._state.owners
        if owners:
            board = self._boards[owners[0].role.name]
            for partition in range(len(self._owner_of)):
                board.assign(partition, 0, generation)

    def log_table(self) -> None:
        """Write one line: the processes and what they own."""
        owners = self._state.owners
        if owners:
            name = owners[0].role.name
            table = [
                {
                    name: child.index,
                    "pid": child.pid,
                    "generation": child.generation,
                    "phase": child.phase.value,
                    "partitions": self._partitions_of(child),
                }
                for child in owners
            ]
            event = f"{name}s"
            log.info(event, extra={event: table})

    def _partitions_of(self, child: Child) -> list[int]:
        return [number for number, index in enumerate(self._owner_of) if index == child.index]

    @property
    def _count(self) -> int:
        """How many are wanted."""
        return sum(not child.surplus for child in self._state.owners)

    def _restart(self, _: Mapping[str, Any]) -> object:
        """Replace them one after the other. Raises StartError: the server stops."""
        self.refuse_now()
        count = self._state.replace_all()
        log.info("restarting", extra={"processes": count})
        return {"workers": count}

    def _resize_as_asked(self, question: Mapping[str, Any]) -> object:
        count = question.get("count")
        if not isinstance(count, int) or isinstance(count, bool):
            raise StartError("workers: expected a whole number")
        before = self._count
        self._resize(count)
        return {"workers": self._count, "before": before}

    def _resize(self, count: int) -> None:
        try:
            self.refuse_now()
        except StartError as error:
            log.warning("resize_refused", extra={"to": count, "reason": str(error)})
            raise
        before, role = self._count, self._state.owners[0].role
        most = max(role.count, role.count_max)
        if not 1 <= count <= most:
            log.warning("resize_refused", extra={"to": count, "reason": f"from 1 to {most}"})
            raise StartError(f"workers: from 1 to {most}, not {count}")
        self._state.resize(count)
        log.info("resized", extra={"to": count, "was": before})

    def refuse_now(self) -> None:
        """Raise StartError if the server is in the middle of something else."""
        if self._state.stopping:
            raise StartError("the server is stopping")
        if self._state.lent or self._state.before:
            raise StartError("an upgrade is under way; try again when it is over")
