"""This worker's row of the scoreboard, and what it reads in the others'."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from relay.bus.mesh import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.server.scoreboard import Row, Scoreboard

FRESH_NS: Final = 500_000_000
"""A heartbeat older than this: the worker does not run (stopped, or its loop hangs)."""


class _Labelled:
    """A counter with a label: most of its values have not changed since they were last written."""

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
    """See the module's docstring."""

    def __init__(self, scoreboard: Scoreboard, index: int, generation: int) -> None:
        self._scoreboard = scoreboard
        self._index = index
        self._generation = generation
        self._row = scoreboard.row(index)
        self._row.set("pid", os.getpid())
        self._single: list[tuple[int, int, Callable[[], int]]] = []
        """Cell, what is added to the value, where that is read."""
        self._labelled: list[_Labelled] = []
        self.counters: dict[str, Callable[[], int]] = {}
        """Those without a label: what this worker alone has counted."""

    def publish(
        self,
        gauges: Mapping[str, Callable[[], int]],
        counters: Mapping[str, Callable[[], int]],
        labelled: Mapping[str, Mapping[Any, int]] | None = None,
    ) -> None:
        """Name what ``beat`` writes, and where its values are read.

        Counters go on where the row's last worker left them.

        Args:
            gauges: by the name of the metric.
            counters: likewise, those without a label.
            labelled: counters with one: where their values are, by label. No label comes later.
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
        """Return what counts a value in a histogram."""
        return self._row.observer(name)

    def beat(self) -> None:
        """Show that the loop runs, and how much it did."""
        row = self._row
        row.set("heartbeat_ns", time.monotonic_ns())
        for cell, before, read in self._single:
            row.put(cell, before + read())
        for labelled in self._labelled:
            labelled.write()

    def set_connections(self, count: int) -> None:
        """Publish how many connections this worker has, at once: the others' balance needs it."""
        self._row.set("connections", count)

    def set_accepting(self, accepting: bool) -> None:
        """Publish whether this worker accepts connections."""
        self._row.set("not_accepting", 0 if accepting else 1)

    @property
    def fenced(self) -> bool:
        """True when the supervisor has given this worker's place to another.

        Invariant "One writer per partition".
        """
        return self._row.get("generation") != self._generation

    @property
    def asked_to_leave(self) -> bool:
        """True when the supervisor asks this worker to leave, while the server goes on."""
        return bool(self._row.get("leaving"))

    @property
    def yields(self) -> bool:
        """True while workers of the next version take the connections that come."""
        return bool(self._row.get("yields"))

    def peers(self) -> list[Peer]:
        """Return the other workers that have begun."""
        found: list[Peer] = []
        for index in range(self._scoreboard.workers):
            row = self._scoreboard.row(index)
            pid = row.get("pid")
            if index != self._index and pid:
                found.append(Peer(index, row.get("generation"), pid))
        return found

    def logged_in(self) -> list[int]:
        """Return the connections that are logged in of each other worker that accepts."""
        return self._of_accepting("connections_logged_in")

    def least_loaded(self) -> int | None:
        """Return the fewest connections of any other worker that accepts; None: there is none."""
        return min(self._of_accepting("connections"), default=None)

    def _of_accepting(self, metric: str) -> list[int]:
        rows = map(self._scoreboard.row, self._running())
        return [row.get(metric) for row in rows if not row.get("not_accepting")]

    def silent(self, announced: set[int]) -> bool:
        """Tell whether a worker runs that has not announced itself."""
        return any(
            self._scoreboard.row(index).get("generation") not in announced
            for index in self._running()
        )

    def _running(self) -> list[int]:
        oldest = time.monotonic_ns() - FRESH_NS
        scoreboard = self._scoreboard
        return [
            index
            for index in range(scoreboard.workers)
            if index != self._index
            and scoreboard.row(index).get("ready")
            and scoreboard.row(index).get("heartbeat_ns") >= oldest
        ]
