"""A rolling upgrade, on both sides: which supervisor controls the running workers.

The old supervisor lends its workers to the next version. That starts its own workers beside them,
on the same scoreboard, and stops the old ones one by one, as a rolling restart does. The old
workers stay children of the old supervisor, which reports when they exit. If the next version dies
before all workers are its own, its workers die with it, and the old supervisor takes control again:
of its remaining workers, and of the empty slots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from relay.server.scoreboard import Scoreboard
from relay.server.supervisor import process
from relay.server.supervisor.owners import Owners
from relay.server.supervisor.roles import Step
from relay.server.supervisor.state import Child, Phase, State
from relay.server.supervisor.takeover import Takeover
from relay.server.supervisor.upgrade import Upgrade

SHOW_S: Final = 1.0
"""Interval at which the supervisor in control shows that it is alive."""


class Lending:
    """The old supervisor's side."""

    def __init__(
        self, state: State, owners: Owners, boards: Mapping[str, Scoreboard], upgrade: Upgrade
    ) -> None:
        self._state = state
        self._owners = owners
        self._boards = boards
        self._upgrade = upgrade

    @property
    def possible(self) -> bool:
        """True if it can begin: no worker is starting or stopping."""
        owners = self._state.owners
        return not any(child.phase is Phase.STARTING or child.leave_by_s for child in owners)

    def begin(self, now: float) -> None:
        """Give the next supervisor control."""
        state = self._state
        state.lent = True
        ready = [child for child in state.owners if child.phase is Phase.READY]
        self._upgrade.lend([(child.index, child.pid, child.generation) for child in ready], now)

    def look(self) -> None:
        """Send the signals that the next supervisor has requested."""
        for pid, number in self._upgrade.take_kills():
            for child in self._state.owners:
                if child.pid == pid:
                    child.sent = number
                    process.send(pid, number)

    @property
    def finished(self) -> bool:
        """True if all slots have workers of the next supervisor, and none of this one is left."""
        return self._state.lent and self._upgrade.finished and not self.to_leave

    @property
    def to_leave(self) -> int:
        """Number of this supervisor's remaining workers, while the next one is in control."""
        return sum(bool(child.pid) for child in self._state.owners) if self._state.lent else 0

    def exited(self, child: Child, now: float) -> None:
        """A process of this server has ended. Called before the state changes."""
        if self._state.lent and child.role.owns_partitions:
            if self._boards[child.role.name].row(child.index).get("leaving"):
                child.leave_by_s = now
            self._upgrade.tell_exited(child.pid)

    def take_back(self, now: float, patience_s: float) -> None:
        """The next server has ended, with its workers: take control again."""
        state = self._state
        state.lent = False
        board = self._boards[state.owners[0].role.name]
        own = {child.index: child for child in state.owners if child.pid}
        for index in range(board.workers):
            row = board.row(index)
            if index not in own:
                row.clear_gauges()
                row.set("retired", 1)
                continue
            row.set("yields", 0)
            if row.get("leaving"):
                state.leaves(own[index], now, patience_s)
        self._owners.read_table()
        self._owners.rebalance()


class Leading:
    """The next supervisor's side: replaces the previous server's workers by its own."""

    def __init__(
        self, state: State, owners: Owners, boards: Mapping[str, Scoreboard], takeover: Takeover
    ) -> None:
        self._state = state
        self._owners = owners
        self._boards = boards
        self._takeover = takeover
        self._begun = False
        self._show_at_s = 0.0
        state.wait_to_lead()

    @property
    def active(self) -> bool:
        """True while this server is in control, and the previous one could take control again."""
        return self._begun and self._takeover.step is Step.STARTED

    @property
    def wake_at_s(self) -> float:
        """When to check if nothing happens before."""
        return self._show_at_s if self.active else math.inf

    def look(self, now: float) -> None:
        """Do the next step. Called after the other side's messages were read."""
        state, takeover = self._state, self._takeover
        if not self._begun:
            if takeover.before is None:
                return
            self._begun = True
            state.lead(takeover.before, now)
            self._owners.read_table()
        for child in self._exited():
            # The previous server logs which slot it had.
            state.children.remove(child)
            row = self._boards[child.role.name].row(child.index)
            row.clear_gauges()
            row.set("retired", 1)
            if self._serves:
                self._owners.rebalance()  # if the partitions could not all be given away
        if not state.before and not state.stopping and self.active:
            takeover.finished()
        elif now >= self._show_at_s and self.active:
            self._show_at_s = now + SHOW_S
            takeover.leads()
        if self._serves:
            for child in state.before:
                self._boards[child.role.name].row(child.index).set("yields", 1)

    @property
    def _serves(self) -> bool:
        """Return True if all of this server's own processes serve."""
        return all(child.before or child.phase is Phase.READY for child in self._state.owners)

    def _exited(self) -> list[Child]:
        """Return the previous server's children that have ended since the last call."""
        pids = self._takeover.take_exited()
        killed = self._takeover.step is Step.GONE  # if so, they were killed with it
        return [child for child in self._state.before if killed or child.pid in pids]

    def give_up(self) -> None:
        """This server ends: forget the previous one's workers."""
        state = self._state
        state.children = [child for child in state.children if not child.before]
