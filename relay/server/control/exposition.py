"""The scoreboards in Prometheus' format: every exposed metric of the table.

Counters are summed over the processes of a role, because processes come and go; gauges have a label
that names the process. Nothing is counted here: a scrape reads shared memory and costs the workers
nothing.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from relay import __version__
from relay.server.context import WORKER
from relay.server.control.board_view import BoardView
from relay.server.control.disk import DiskUse
from relay.server.control.process_usage import usage_of
from relay.server.metrics import ABOVE, PROCESS, SUM, Kind, Metric
from relay.server.scoreboard import Row, Scoreboard

DISK: Final = (
    ("relay_store_bytes", "Size of the database files of all partitions."),
    ("relay_wal_bytes", "Size of their write-ahead logs."),
    ("relay_disk_free_bytes", "Free on the file system of the data, for the relay's user."),
)
_RESIDENT: Final = (
    "relay_process_resident_bytes",
    "Resident memory of each process (RSS, including shared pages).",
)
_CPU: Final = ("relay_process_cpu_seconds", "CPU time of each process, user and system.")
OWN: Final = (*DISK, _RESIDENT, (f"{_CPU[0]}_total", _CPU[1]), ("relay_build_info", "Versions."))
"""Metrics that are not in the table of ``server.metrics``: measured here, by asking the kernel."""


class ScoreboardCollector(Collector):
    """Collects at each scrape."""

    def __init__(self, view: BoardView, disk: Callable[[], DiskUse]) -> None:
        self._view = view
        self._disk = disk

    def collect(self) -> Iterator[Family]:
        """Yield a family for each metric."""
        info = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("relay_build", "Versions.", info)
        for metric in PROCESS:
            if metric.exposed:
                yield self._of_processes(metric)
        for role, board in self._view.boards.items():
            for metric in board.metrics:
                if metric.exposed and metric not in PROCESS:
                    yield _of_role(metric, role, board)
        for (name, text), value in zip(DISK, self._disk(), strict=True):
            if value is not None:
                yield GaugeMetricFamily(name, text, value)
        yield from self._from_kernel()

    def _of_processes(self, metric: Metric) -> Family:
        counter = metric.kind is Kind.COUNTER
        family: Family
        kind = CounterMetricFamily if counter else GaugeMetricFamily
        family = kind(metric.exposed_name, metric.help, labels=("process",))
        for seen in self._view.processes():
            family.add_metric([_title(seen.role, seen.number)], seen.row.get(metric.name))
        return family

    def _from_kernel(self) -> Iterator[Family]:
        resident = GaugeMetricFamily(*_RESIDENT, labels=("process",))
        cpu = CounterMetricFamily(*_CPU, labels=("process",))
        for seen in self._view.processes():
            if seen.pid and (usage := usage_of(seen.pid)) is not None:
                title = [_title(seen.role, seen.number)]
                resident.add_metric(title, usage.resident_bytes)
                cpu.add_metric(title, usage.cpu_s)
        yield resident
        yield cpu


def _of_role(metric: Metric, role: str, board: Scoreboard) -> Family:
    scale = metric.exposed_scale
    # Rows that are no longer in use still contain what their processes counted.
    rows = [board.row(index) for index in range(board.workers)]
    labels = (metric.label,) if metric.label else ()
    if metric.kind is Kind.GAUGE:
        own = (role,) if role == WORKER else ()
        gauge = GaugeMetricFamily(metric.exposed_name, metric.help, labels=own)
        for index in range(board.workers):
            value = rows[index].get(metric.name)
            gauge.add_metric([str(index)] if own else [], value * scale)
        return gauge
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.exposed_name, metric.help, labels=labels)
        for label in metric.labels or ("",):
            buckets, total = _histogram(metric, label, rows)
            histogram.add_metric([label] if label else [], buckets, total)
        return histogram
    counter = CounterMetricFamily(metric.exposed_name, metric.help, labels=labels)
    for label in metric.labels or ("",):
        value = sum(row.get(metric.name, label) for row in rows)
        counter.add_metric([label] if label else [], value * scale)
    return counter


def _histogram(
    metric: Metric, label: str, rows: list[Row]
) -> tuple[list[tuple[str, float]], float]:
    """Return Prometheus' cumulative buckets, and the sum."""
    buckets: list[tuple[str, float]] = []
    count = 0
    for bound in (*map(str, metric.buckets), ABOVE):
        count += sum(row.get(metric.name, label, bound) for row in rows)
        text = ABOVE if bound == ABOVE else f"{int(bound) * metric.exposed_scale:.9g}"
        buckets.append((text, count))
    total = sum(row.get(metric.name, label, SUM) for row in rows)
    return buckets, total * metric.exposed_scale


def _title(role: str, index: int) -> str:
    return f"{role} {index}" if role == WORKER else role
