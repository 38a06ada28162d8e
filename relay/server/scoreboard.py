"""Shared memory of the supervisor and its children: a row per process, and two tables of the
partitions: their owners, and how often something was erased in each.

One mapping, created before the first fork, of aligned 64-bit cells. A cell is read and written in
one machine access, so a reader never sees half a number, and no value spans two cells (an owner is
one cell). Each cell has one writer: a process writes its own row; the supervisor writes the row of
a process that is not running, ``ready``, and the table of owners; the home of a partition counts
its erasures.

The content of a row is defined by a table of ``relay.server.metrics``.

A board in a file, such as a memfd, can also be mapped by another supervisor, if ``format_of`` is
the same there.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2s
from typing import Final, NamedTuple

from relay.server.metrics import SUM, WORKER, Kind, Metric

PARTITIONS_MAX: Final = 256
FORMAT: Final = 2
"""Of the header and the meaning of cells. Their positions are covered by ``format_of``."""
_CELL_BYTES: Final = 8
_LINE_CELLS: Final = 64 // _CELL_BYTES
"""A row begins and ends with a cache line, so no two processes write to the same one."""
_HEADER_CELLS: Final = 2 * _LINE_CELLS
_WORKERS, _TABLE_VERSION = 0, _LINE_CELLS
_ERASURES = _HEADER_CELLS + PARTITIONS_MAX
_ROWS = _ERASURES + PARTITIONS_MAX
_GENERATION_BITS: Final = 48
assert PARTITIONS_MAX % _LINE_CELLS == 0


Erasures = tuple[int, int]
"""How often something was erased in a partition. Only equality has a meaning."""


class Owner(NamedTuple):
    """The home of a partition. Generation 0: none yet."""

    worker: int
    generation: int


class Layout:
    """The position in a row of each cell of each metric."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics: Final = {metric.name: metric for metric in metrics}
        assert len(self.metrics) == len(metrics), "a name twice"
        cells = [(m.name, *cell) for m in metrics for cell in m.cells()]
        self.row_cells: Final = -(-len(cells) // _LINE_CELLS) * _LINE_CELLS
        self.offsets: Final = {cell: number for number, cell in enumerate(cells)}
        self.gauges: Final = [
            number
            for (name, *_), number in self.offsets.items()
            if self.metrics[name].kind is Kind.GAUGE
        ]
        self.single: Final = {
            name: number for (name, *cell), number in self.offsets.items() if cell == ["", ""]
        }
        """For metrics with one cell, which are accessed most often."""


class Row:
    """The cells of one process."""

    __slots__ = ("_cells", "_layout", "_single", "_start")

    def __init__(self, cells: memoryview, start: int, layout: Layout) -> None:
        self._cells = cells
        self._start = start
        self._layout = layout
        self._single = layout.single

    def get(self, name: str, label: str = "", bucket: str = "") -> int:
        """Read a cell. Raises KeyError if the table has no such metric, label or bucket."""
        single = not label and not bucket  # as most are, and most often
        at = self._single[name] if single else self._offset(name, label, bucket)
        value: int = self._cells[self._start + at]
        return value

    def set(self, name: str, value: int, label: str = "") -> None:
        """Write a cell. Only its one writer may."""
        at = self._offset(name, label) if label else self._single[name]
        self._cells[self._start + at] = value

    def cell(self, name: str, label: str = "") -> int:
        """Return the position of a metric, for ``put``."""
        return self._start + self._offset(name, label)

    def put(self, cell: int, value: int) -> None:
        """Write a ``cell``: like ``set``, for frequent writes."""
        self._cells[cell] = value

    def add(self, name: str, count: int = 1, label: str = "") -> None:
        """Add to a counter. Only its one writer may: this is a read and a write."""
        self._cells[self._start + self._offset(name, label)] += count

    def observer(self, name: str, label: str = "") -> Callable[[int], None]:
        """Return a function that counts a value in a histogram. Only its one writer may call it."""
        bounds = self._layout.metrics[name].buckets
        cells = self._cells
        # A histogram's cells are consecutive: the buckets, the values above them, the sum.
        first = self._start + self._offset(name, label, str(bounds[0]))
        total = self._start + self._offset(name, label, SUM)

        def observe(value: int) -> None:
            cells[first + bisect_left(bounds, value)] += 1
            cells[total] += value

        return observe

    def clear_gauges(self) -> None:
        """Reset the gauges of a dead process. Called by the supervisor; counters stay."""
        for offset in self._layout.gauges:
            self._cells[self._start + offset] = 0

    def _offset(self, name: str, label: str, bucket: str = "") -> int:
        if not label and not bucket:
            return self._single[name]
        return self._layout.offsets[name, label, bucket]


class Scoreboard:
    """The whole shared memory. Create it before the first fork."""

    def __init__(
        self,
        workers_max: int,
        metrics: Sequence[Metric] = WORKER,
        fd: int = -1,
    ) -> None:
        """Map it.

        Args:
            workers_max: number of rows.
            metrics: the content of each row.
            fd: a file of ``bytes_of`` that contains it, or zeros. It may be closed afterwards. -1:
                an anonymous mapping.

        Raises:
            ValueError: the file is too small.
        """
        self.workers_max = workers_max
        self._layout = Layout(metrics)
        size = self.bytes_of(workers_max, metrics)
        self._cells = memoryview(mmap.mmap(fd, size)).cast("Q")
        if not self._cells[_WORKERS]:
            self._cells[_WORKERS] = workers_max

    @staticmethod
    def bytes_of(workers_max: int, metrics: Sequence[Metric]) -> int:
        """Return the size of a board."""
        rows = workers_max * Layout(metrics).row_cells
        return (_ROWS + rows) * _CELL_BYTES

    @staticmethod
    def format_of(workers_max: int, metrics: Sequence[Metric]) -> str:
        """Return a string that is equal for two boards if one can be read as the other."""
        cells = sorted(Layout(metrics).offsets.items(), key=lambda item: item[1])
        table = [FORMAT, PARTITIONS_MAX, workers_max, [(*cell, at) for cell, at in cells]]
        return blake2s(repr(table).encode(), digest_size=8).hexdigest()

    @property
    def workers(self) -> int:
        """Number of rows in use, including those of dead workers awaiting a restart."""
        value: int = self._cells[_WORKERS]
        return value

    @workers.setter
    def workers(self, count: int) -> None:
        if not 0 < count <= self.workers_max:
            raise ValueError("no such number of workers")
        self._cells[_WORKERS] = count

    @property
    def table_version(self) -> int:
        """Increases with every ``assign``: a cheap way to detect changes of the table."""
        value: int = self._cells[_TABLE_VERSION]
        return value

    @property
    def metrics(self) -> Sequence[Metric]:
        """The content of its rows."""
        return tuple(self._layout.metrics.values())

    def row(self, index: int) -> Row:
        """Return a worker's row."""
        if not 0 <= index < self.workers_max:
            raise IndexError("no such worker")
        start = _ROWS + index * self._layout.row_cells
        return Row(self._cells, start, self._layout)

    def owner(self, partition: int) -> Owner:
        """Return the home of a partition."""
        if not 0 <= partition < PARTITIONS_MAX:
            raise IndexError("no such partition")
        packed: int = self._cells[_HEADER_CELLS + partition]
        worker, generation = packed >> _GENERATION_BITS, packed & (1 << _GENERATION_BITS) - 1
        return Owner(worker, generation)

    def owned_by_none_of(self, owners: Iterable[Owner], partitions: int) -> list[int]:
        """Return which of the first ``partitions`` partitions belong to none of these workers."""
        known = {_packed(owner.worker, owner.generation) for owner in owners}
        table = self._cells[_HEADER_CELLS : _HEADER_CELLS + partitions].tolist()
        return [partition for partition, owner in enumerate(table) if owner not in known]

    def owned_by(self, worker: int, generation: int) -> Callable[[int], bool]:
        """Return a function that tells whether a worker is the home of a partition now.

        It is called before each commit.
        """
        cells, owner = self._cells, _packed(worker, generation)

        def owns(partition: int) -> bool:
            if not 0 <= partition < PARTITIONS_MAX:
                raise IndexError("no such partition")
            packed: int = cells[_HEADER_CELLS + partition]
            return packed == owner

        return owns

    def assign(self, partition: int, worker: int, generation: int) -> None:
        """Make a worker's generation the home of a partition. Only the supervisor may."""
        if not 0 < generation < 1 << _GENERATION_BITS or not 0 <= worker < self.workers_max:
            raise ValueError("no such worker or generation")
        self._cells[self._partition(partition)] = _packed(worker, generation)
        self._cells[_TABLE_VERSION] += 1

    def erased(self, partition: int) -> None:
        """Count an erasure. Only the home may: after the commit, before it is acknowledged."""
        self._cells[self._partition(partition) + PARTITIONS_MAX] += 1

    def erasures(self, partition: int) -> Erasures:
        """Return a value that is another one after each erasure in a partition.

        The next home acknowledges an erasure that its predecessor committed but did not live to
        count, so the owner is part of the value.
        """
        owner = self._partition(partition)
        return self._cells[owner], self._cells[owner + PARTITIONS_MAX]

    @staticmethod
    def _partition(number: int) -> int:
        if not 0 <= number < PARTITIONS_MAX:
            raise IndexError("no such partition")
        return _HEADER_CELLS + number


def _packed(worker: int, generation: int) -> int:
    """Return the cell of a partition whose home this is."""
    return worker << _GENERATION_BITS | generation
