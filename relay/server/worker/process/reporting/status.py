"""This worker's row of the scoreboard, and what it reads from the rows of others."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from relay.bus.mesh import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.server.scoreboard import Row, Scoreboard

FRESH_NS: Final = 500_000_000
"""A worker with an older heartbeat does not run (it is stopped, or its loop hangs)."""


class _Labelled:
    """A counter with a label. Writes only values that have changed: most have not."""

    def __init__(self, row: Row, name: str, counted: Mapping[Any, int]) -> None:
        self._row = row
        self._counted = counted
        self._written: dict[Any, int] = {}
        self._cells = [(row.cell(name, label), label) for label in counted]
        self._before = [row.get(name, label) for label in counted]

    def write(self) -> None:
        counted = self._counted
        if counted != self._written:
            self._written = dict(counted)
            for (cell, label), before in zip(self._cells, self._before, strict=True):
                self._row.put(cell, before + counted[label])


class WorkerStatus:
    """This worker's row of the scoreboard."""

    def __init__(self, scoreboard: Scoreboard, index: int, generation: int) -> None:
        self._scoreboard = scoreboard
        self._index = index
        self._generation = generation
        self._rows = [scoreboard.row(number) for number in range(scoreboard.workers_max)]
        self._row = self._rows[index]
        self._row.set("pid", os.getpid())
        self._single: list[tuple[int, int, Callable[[], int]]] = []
        """Cell, offset of the value, and the function that reads it."""
        self._labelled: list[_Labelled] = []
        self.counters: dict[str, Callable[[], int]] = {}
        """Counters without a label: what this worker itself has counted."""

    def publish(
        self,
        gauges: Mapping[str, Callable[[], int]],
        counters: Mapping[str, Callable[[], int]],
        labelled: Mapping[str, Mapping[Any, int]] | None = None,
    ) -> None:
        """Set what ``beat`` writes, and the functions that read the values.

        Counters continue from the row's previous worker.

        Args:
            gauges: by the name of the metric.
            counters: those without a label, by the name of the metric.
            labelled: counters with a label: their values by label. No labels are added later.
        """
        row = self._row
        for name, read in gauges.items():
            self._single.append((row.cell(name), 0, read))
        for name, read in counters.items():
            self._single.append((row.cell(name), row.get(name), read))
            self.counters[name] = read
        for name, counted in (labelled or {}).items():
            self._labelled.append(_Labelled(row, name, counted))

    def observer(self, name: str) -> Callable[[int], None]:
        """Return a function that adds a value to a histogram."""
        return self._row.observer(name)

    def beat(self) -> None:
        """Publish the heartbeat and the values."""
        row = self._row
        row.set("heartbeat_ns", time.monotonic_ns())
        for cell, before, read in self._single:
            row.put(cell, before + read())
        for labelled in self._labelled:
            labelled.write()

    def set_connections(self, count: int) -> None:
        """Publish the number of connections at once: the other workers need it for balancing."""
        self._row.set("connections", count)

    def set_accepting(self, accepting: bool) -> None:
        """Publish whether this worker accepts connections."""
        self._row.set("not_accepting", 0 if accepting else 1)

    @property
    def fenced(self) -> bool:
        """True when the supervisor has given this worker's slot to another.

        Invariant "One writer per partition".
        """
        return self._row.get("generation") != self._generation

    @property
    def asked_to_leave(self) -> bool:
        """True when the supervisor asks this worker to leave while the server continues."""
        return bool(self._row.get("leaving"))

    @property
    def yields(self) -> bool:
        """True while workers of the next version take new connections."""
        return bool(self._row.get("yields"))

    def peers(self) -> list[Peer]:
        """Return the other workers that have started."""
        found: list[Peer] = []
        for index, row in enumerate(self._rows[: self._scoreboard.workers]):
            pid = row.get("pid")
            if index != self._index and pid:
                found.append(Peer(index, row.get("generation"), pid))
        return found

    def connections_of_others(self) -> list[int]:
        """Return the number of connections of each other worker that accepts."""
        rows = self._running()
        return [row.get("connections") for row in rows if not row.get("not_accepting")]

    def least_loaded(self) -> int | None:
        """Return the fewest connections of any other worker that accepts; None: there is none."""
        return min(self.connections_of_others(), default=None)

    def starting(self) -> int:
        """Return the generation of the newest other worker that does not serve yet; 0: none."""
        newest = 0
        for row in self._others():
            if row.get("pid") and not row.get("ready") and not row.get("retired"):
                newest = max(newest, row.get("generation"))
        return newest

    def silent(self, announced: set[int]) -> bool:
        """Return True if a running worker has not reported."""
        return any(row.get("generation") not in announced for row in self._running())

    def _running(self) -> list[Row]:
        """Return the rows of the other workers that serve and do not hang."""
        oldest = time.monotonic_ns() - FRESH_NS
        rows = self._others()
        return [row for row in rows if row.get("ready") and row.get("heartbeat_ns") >= oldest]

    def _others(self) -> list[Row]:
        """Return the rows of the other workers: asked for with each accept."""
        rows = self._rows[: self._scoreboard.workers]
        del rows[self._index : self._index + 1]
        return rows
