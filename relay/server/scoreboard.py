"""Shared memory that the supervisor and all workers see: a row per worker, and who owns what.

One anonymous mapping, made before the first fork, of aligned 64-bit cells. A cell is read and
written in one machine access, so a reader never sees half a number; nothing spans two cells that
must agree (an owner is one cell). Each cell has one writer: a worker writes its own row, the
supervisor the row of a worker that is not running, ``ready`` and the partition table.
"""

from __future__ import annotations

import mmap
from typing import Final, NamedTuple

FIELDS: Final = (
    "pid",
    "generation",
    "heartbeat_ns",
    "ready",
    "draining",
    "connections",
    "logged_in",
    "catching_up",
    "accepted",
    "deliveries",
    "handshakes",
    "fell_behind",
    "too_slow",
    "repairs",
    "pages",
    "restarts",
)
"""``heartbeat_ns``: ``time.monotonic_ns()``, stamped by the worker's loop. ``ready``: 1 while it
serves. ``connections`` (open), ``logged_in`` and ``catching_up`` (readers behind their logs) are
gauges. The others count since the server started and survive the death of the worker."""
GAUGES: Final = (
    "pid",
    "heartbeat_ns",
    "ready",
    "draining",
    "connections",
    "logged_in",
    "catching_up",
)
"""What is set to 0 when a worker has died: it holds nothing any more."""
PARTITIONS_MAX: Final = 256
ROW_CELLS: Final = 32
"""256 bytes: no two workers write to one cache line."""
_HEADER_CELLS: Final = 16
_WORKERS, _TABLE_VERSION = 0, 8
_CELL_BYTES: Final = 8
_GENERATION_BITS: Final = 48
_INDEX: Final = {name: number for number, name in enumerate(FIELDS)}
assert len(FIELDS) <= ROW_CELLS


class Owner(NamedTuple):
    """The home of a partition. Generation 0: nobody yet."""

    worker: int
    generation: int


class Row:
    """The cells of one worker."""

    __slots__ = ("_cells", "_start")

    def __init__(self, cells: memoryview, start: int) -> None:
        self._cells = cells
        self._start = start

    def get(self, name: str) -> int:
        """Read a cell."""
        value: int = self._cells[self._start + _INDEX[name]]
        return value

    def set(self, name: str, value: int) -> None:
        """Write a cell. Only its one writer may."""
        self._cells[self._start + _INDEX[name]] = value

    def add(self, name: str, count: int = 1) -> None:
        """Add to a counter. Only its one writer may: this is a read and a write."""
        self._cells[self._start + _INDEX[name]] += count

    def clear_gauges(self) -> None:
        """Forget what a dead worker held. Called by the supervisor; counters stay."""
        for name in GAUGES:
            self.set(name, 0)


class Scoreboard:
    """The shared memory as a whole. Make it before the first fork."""

    def __init__(self, workers_max: int) -> None:
        self.workers_max = workers_max
        self._rows_start = _HEADER_CELLS + PARTITIONS_MAX
        cells = self._rows_start + workers_max * ROW_CELLS
        self._cells = memoryview(mmap.mmap(-1, cells * _CELL_BYTES)).cast("Q")
        self._cells[_WORKERS] = workers_max

    @property
    def workers(self) -> int:
        """How many rows are in use, those of dead workers awaiting a restart included."""
        value: int = self._cells[_WORKERS]
        return value

    @workers.setter
    def workers(self, count: int) -> None:
        if not 0 < count <= self.workers_max:
            raise ValueError("no such number of workers")
        self._cells[_WORKERS] = count

    @property
    def table_version(self) -> int:
        """Grows with every ``assign``: a cheap way to see that the table changed."""
        value: int = self._cells[_TABLE_VERSION]
        return value

    def row(self, index: int) -> Row:
        """Return a worker's row."""
        if not 0 <= index < self.workers_max:
            raise IndexError("no such worker")
        return Row(self._cells, self._rows_start + index * ROW_CELLS)

    def owner(self, partition: int) -> Owner:
        """Return who is the home of a partition."""
        packed: int = self._cells[self._partition(partition)]
        return Owner(packed >> _GENERATION_BITS, packed & (1 << _GENERATION_BITS) - 1)

    def assign(self, partition: int, worker: int, generation: int) -> None:
        """Make a worker's generation the home of a partition. Only the supervisor may."""
        if not 0 < generation < 1 << _GENERATION_BITS or not 0 <= worker < self.workers_max:
            raise ValueError("no such worker or generation")
        self._cells[self._partition(partition)] = worker << _GENERATION_BITS | generation
        self._cells[_TABLE_VERSION] += 1

    @staticmethod
    def _partition(number: int) -> int:
        if not 0 <= number < PARTITIONS_MAX:
            raise IndexError("no such partition")
        return _HEADER_CELLS + number
