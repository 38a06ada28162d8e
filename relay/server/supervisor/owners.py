"""Which process owns which partition, and changes of the number of owners."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from relay.errors import StartError
from relay.server.scoreboard import Scoreboard
from relay.server.supervisor.config import SupervisorConfig
from relay.server.supervisor.shares import rebalanced
from relay.server.supervisor.state import Child, Phase, State

log = logging.getLogger("relay.supervisor")


class Owners:
    """Assigns partitions to the processes of the one role that owns them."""

    def __init__(
        self, state: State, boards: Mapping[str, Scoreboard], config: SupervisorConfig
    ) -> None:
        """Create with partition p assigned to process p mod count.

        Args:
            state: of the children.
            boards: of all roles; the table is written to the board of the owning role.
            config: of the supervisor.
        """
        self._state = state
        self._boards = boards
        self._config = config
        self._partitions = config.partitions
        count = len(state.owners)
        self._owner_of = [number % count for number in range(config.partitions)] if count else []
        """The number of the owning process, by partition."""

    @property
    def requests(self) -> Mapping[str, Callable[[Mapping[str, Any]], object]]:
        """The requests it handles, by name."""
        return {"restart": self._restart, "workers": self._resize_as_asked}

    def assign(self, child: Child, generation: int) -> None:
        """A process is about to start in a slot: it gets the slot's partitions."""
        board = self._boards[child.role.name]
        for partition in self._partitions_of(child):
            board.assign(partition, child.index, generation)

    def step(self, change: int) -> None:
        """Change the number of processes.

        Raises StartError, after logging, if that is not possible.
        """
        self._resize(self._count + change)

    def leave(self, child: Child, now: float) -> None:
        """Ask a process to leave.

        Others get its partitions first, so that none is without an owner.
        """
        self._state.leaves(child, now, self._config.graceful_timeout_s())
        log.info("child_leaving", extra=child.fields)
        self.rebalance()
        self._boards[child.role.name].row(child.index).set("leaving", 1)

    def rebalance(self) -> None:
        """Distribute the partitions evenly over the processes that stay, with few moves."""
        state = self._state
        # A process that has died and restarts soon keeps its partitions.
        coming_back = {
            child.index
            for child in state.owners
            if child.phase is not Phase.READY
            and not child.surplus
            and child.index in self._owner_of
        }
        # In an upgrade, processes of the previous server keep their partitions until they leave.
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
        """The greatest of all processes that had a slot, including those of another server."""
        boards = [self._boards[role.name] for role in self._state.roles if role.owns_partitions]
        return max(
            (board.row(n).get("generation") for board in boards for n in range(board.workers)),
            default=0,
        )

    def read_table(self) -> None:
        """Continue with the table that another supervisor has written."""
        role = next(role for role in self._state.roles if role.owns_partitions)
        board = self._boards[role.name]
        self._owner_of = [board.owner(n).worker for n in range(self._partitions)]

    def give_away(self, generation: int) -> None:
        """Take all partitions from their owners permanently: another server has them.

        ``generation`` belongs to no process: workers that look for a home wait.
        """
        owners = self._state.owners
        if owners:
            board = self._boards[owners[0].role.name]
            for partition in range(len(self._owner_of)):
                board.assign(partition, 0, generation)

    def log_table(self) -> None:
        """Log one line with the processes and their partitions."""
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
        """Return the wanted number."""
        return sum(not child.surplus for child in self._state.owners)

    def _restart(self, _: Mapping[str, Any]) -> object:
        """Replace them one after the other. Raises StartError: the server is stopping."""
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
        before, role = self._count, self._state.owners[0].role
        most = max(role.count, role.count_max)
        try:
            self.refuse_now()
            if not 1 <= count <= most:
                raise StartError(f"workers: from 1 to {most}, not {count}")
            self._config.check_count(count)
        except StartError as error:
            log.warning("resize_refused", extra={"to": count, "reason": str(error)})
            raise
        self._state.resize(count)
        log.info("resized", extra={"to": count, "was": before})

    def refuse_now(self) -> None:
        """Raise StartError if the server is in the middle of another change."""
        if self._state.stopping:
            raise StartError("the server is stopping")
        if self._state.lent or self._state.before:
            raise StartError("an upgrade is under way; try again when it is over")
