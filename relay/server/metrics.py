"""What each process counts and measures: one table, from which the scoreboard's layout follows.

A metric without labels and buckets takes one 64-bit cell of a process's row; a label takes one cell
for each of its values, a histogram one for each bucket, one for what is above them, and the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final


class Kind(Enum):
    """What a value means."""

    COUNTER = "counter"
    """Only grows, from the start of the server; survives the death of the process."""
    GAUGE = "gauge"
    """A present amount: 0 once the process has ended, for it holds nothing any more."""
    HISTOGRAM = "histogram"
    """A counter of observations by size."""
    IDENTITY = "identity"
    """A number that names something. It stays until the next process of the slot has its own."""


SUM: Final = "sum"
ABOVE: Final = "+Inf"
"""The bucket of a histogram for what is larger than every bound."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the table."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    """Of the value, such as ``ns``; empty for a plain number."""
    labels: tuple[str, ...] = ()
    """The values that its label can have: known beforehand, for each has a cell."""
    buckets: tuple[int, ...] = ()
    """Upper bounds of a histogram, inclusive, ascending, in ``unit``."""
    label: str = ""
    """What ``labels`` are values of, such as ``reason``."""

    def __post_init__(self) -> None:
        assert (self.kind is Kind.HISTOGRAM) == bool(self.buckets)
        assert bool(self.label) == bool(self.labels)
        assert len(set(self.labels)) == len(self.labels)
        assert "" not in self.labels
        assert list(self.buckets) == sorted(set(self.buckets))

    def cells(self) -> Iterator[tuple[str, str]]:
        """Return the (label, bucket) of each of its cells; empty where it has none."""
        buckets = (*map(str, self.buckets), ABOVE, SUM) if self.buckets else ("",)
        for label in self.labels or ("",):
            for bucket in buckets:
                yield label, bucket


class Budget(StrEnum):
    """What a worker refuses when it is used up (docs/operations.md, "Budgets")."""

    CONNECTIONS = "connections"
    CONNECTIONS_PER_SOURCE = "connections_per_source"
    UNAUTHENTICATED = "unauthenticated"
    UNAUTHENTICATED_PER_SOURCE = "unauthenticated_per_source"
    JOINS_PER_SOURCE = "joins_per_source"
    SEND_BYTES = "send_bytes"
    SEND_BYTES_PER_SOURCE = "send_bytes_per_source"
    ROOMS = "rooms"
    ROOMS_PER_SOURCE = "rooms_per_source"
    RECEIVED = "received"
    DISK_RESERVE = "disk_reserve"


PROCESS: Final = (
    Metric("pid", Kind.GAUGE, "Process id; 0 when there is none."),
    Metric("generation", Kind.IDENTITY, "Which start of any process of this server it is."),
    Metric(
        "heartbeat_ns",
        Kind.GAUGE,
        "time.monotonic_ns() when the process's loop last showed that it runs.",
        "ns",
    ),
    Metric("ready", Kind.GAUGE, "1 from the end of its boot on, until it is killed or ends."),
    Metric("restarts", Kind.COUNTER, "Processes that took the place of one that had ended."),
    Metric("log_lines_lost", Kind.COUNTER, "Lines of the log that could not be written."),
)
"""Of every process that the supervisor starts."""
WORKER: Final = (
    *PROCESS,
    Metric("not_accepting", Kind.GAUGE, "1 while it leaves connections to others: full, draining."),
    Metric("connections", Kind.GAUGE, "Open connections."),
    Metric("logged_in", Kind.GAUGE, "Connections that are logged in."),
    Metric("sources", Kind.GAUGE, "Sources of connections that it keeps budgets of."),
    Metric("joins", Kind.GAUGE, "Rooms that connections follow, each counted for each of them."),
    Metric("received_bytes", Kind.GAUGE, "Received and not processed yet.", "bytes"),
    Metric("catching_up", Kind.GAUGE, "Connections that read a log from the store, not live."),
    Metric("accepted", Kind.COUNTER, "Messages that this home committed."),
    Metric("deliveries", Kind.COUNTER, "Messages handed to connections, live."),
    Metric("handshakes", Kind.COUNTER, "Handshakes that were completed."),
    Metric("fell_behind", Kind.COUNTER, "Readers that left live for being slow."),
    Metric("too_slow", Kind.COUNTER, "Readers that were closed for taking nothing."),
    Metric("repairs", Kind.COUNTER, "Holes between batches that were read from the store."),
    Metric("pages", Kind.COUNTER, "Pages read from the store for such connections."),
    Metric(
        "refused",
        Kind.COUNTER,
        "What a budget has refused: connections, requests and messages.",
        labels=tuple(Budget),
        label="budget",
    ),
)
