"""The table of all metrics, from which everything else about them is derived.

It determines the scoreboard's layout (``relay.server.scoreboard``), the metrics for Prometheus
(``relay.server.control.exposition``), docs/metrics.md, the dashboard and the alerts
(``relay.monitoring``).

A metric without labels and buckets takes one 64-bit cell of a process's row. A metric with a label
takes one cell for each of its values. A histogram takes one for each bucket, one for values above
them, and one for the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final


class Kind(Enum):
    """The kind of a metric."""

    COUNTER = "counter"
    """Only increases, from the start of the server; survives the death of the process."""
    GAUGE = "gauge"
    """A current amount: 0 once the process has ended."""
    HISTOGRAM = "histogram"
    """A counter of observations by size."""
    IDENTITY = "identity"
    """A number that names something. It stays until the next process of the slot sets its own."""


CLOSE_CODES: Final = (
    "going_away", "internal", "idle", "too_slow", "overloaded", "login_timeout",
    "login_unavailable",
    "normal", "protocol", "replaced", "name_refused", "limit", "kicked", "revoked",
)  # fmt: skip
"""Those of ``wire.codes``, which the supervisor does not load."""
GAP_REASONS: Final = ("epoch", "ahead", "retention", "damaged")
"""Those of ``chat.entries``."""
SUM: Final = "sum"
ABOVE: Final = "+Inf"
"""The bucket of a histogram for values above every bound."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of the table."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    """Of the value, such as ``ns``; empty for a plain number."""
    labels: tuple[str, ...] = ()
    """The possible values of its label: known in advance, since each has a cell."""
    buckets: tuple[int, ...] = ()
    """Upper bounds of a histogram, inclusive, ascending, in ``unit``."""
    label: str = ""
    """The name of the label, such as ``reason``."""
    exposed: bool = True
    """False for values that only the processes themselves need."""

    def __post_init__(self) -> None:
        assert (self.kind is Kind.HISTOGRAM) == bool(self.buckets)
        assert bool(self.label) == bool(self.labels)
        assert len(set(self.labels)) == len(self.labels)
        assert "" not in self.labels
        assert list(self.buckets) == sorted(set(self.buckets))

    @property
    def exposed_name(self) -> str:
        """The name in Prometheus: in base units, and without the ``_total`` of a counter."""
        name = self.name.removesuffix("_ns") + "_seconds" if self.unit == "ns" else self.name
        return f"relay_{name}"

    @property
    def exposed_scale(self) -> float:
        """The factor by which values are multiplied for that."""
        return 1e-9 if self.unit == "ns" else 1.0

    def cells(self) -> Iterator[tuple[str, str]]:
        """Return the (label, bucket) of each of its cells; empty where it has none."""
        buckets = (*map(str, self.buckets), ABOVE, SUM) if self.buckets else ("",)
        for label in self.labels or ("",):
            for bucket in buckets:
                yield label, bucket


class Budget(StrEnum):
    """A budget of a worker (docs/operations.md, "Budgets")."""

    CONNECTIONS = "connections"
    CONNECTIONS_PER_SOURCE = "connections_per_source"
    UNAUTHENTICATED = "unauthenticated"
    UNAUTHENTICATED_PER_SOURCE = "unauthenticated_per_source"
    CONNECTIONS_PER_USER = "connections_per_user"
    JOINS_PER_SOURCE = "joins_per_source"
    SEND_BYTES = "send_bytes"
    SEND_BYTES_PER_SOURCE = "send_bytes_per_source"
    SEND_BYTES_PER_USER = "send_bytes_per_user"
    SEND_DAY_PER_USER = "send_day_per_user"
    ROOMS = "rooms"
    ROOMS_PER_SOURCE = "rooms_per_source"
    ROOMS_PER_USER = "rooms_per_user"
    ROOMS_OWNED = "rooms_owned"
    ACCOUNTS_PER_SOURCE = "accounts_per_source"
    WORK_PER_SOURCE = "work_per_source"
    WORK_PER_USER = "work_per_user"
    WASTE = "waste"
    RECEIVED = "received"
    DISK_RESERVE = "disk_reserve"
    DESCRIPTORS = "descriptors"


class Closed(StrEnum):
    """How a connection ended after its handshake, other than by our own close codes."""

    CLIENT = "client"
    """The client ended it with a close record."""
    LOST = "lost"
    """Without a close by either side: a network failure, a killed client, an aborting peer."""


class Handshake(StrEnum):
    """How a handshake ended."""

    COMPLETED = "completed"
    REFUSED = "refused"
    """The peer broke the protocol, or reached a limit."""
    TIMED_OUT = "timed_out"
    MADE_ROOM = "made_room"
    """It was silent, and another connection needed its slot."""
    NO_KEY_AGENT = "no_key_agent"
    ABANDONED = "abandoned"
    """The peer disconnected."""


class HandshakeKind(StrEnum):
    """The kind of a completed handshake."""

    FULL = "full"
    """Without a ticket: the key agent was asked."""
    RESUMED = "resumed"
    """With a ticket."""
    FELL_BACK = "fell_back"
    """A full one, because the ticket offered was unknown, expired or used."""


class Resume(StrEnum):
    """The result of a join with a cursor."""

    COMPLETE = "complete"
    GAP = "gap"
    UNAVAILABLE = "unavailable"
    """The store could not be read: the client retries."""


class Searched(StrEnum):
    """The outcome of a search."""

    FOUND = "found"
    NOTHING = "nothing"
    """No message has the words, or none of those examined in time."""
    REFUSED = "refused"
    """Too many searches wait for the index. Refusals by budgets are counted separately."""
    FAILED = "failed"
    """The index cannot be read."""


_MICROSECOND: Final = 1000
_MILLISECOND: Final = 1_000_000
_SECOND: Final = 1_000_000_000
COMMIT_BUCKETS: Final = (
    *(n * _MICROSECOND for n in (50, 100, 250, 500)),
    *(n * _MILLISECOND for n in (1, 2, 5, 10, 25, 50, 100, 250)),
    _SECOND,
)
DELAY_BUCKETS: Final = (
    *(n * _MILLISECOND for n in (1, 2, 5, 10, 25, 50, 100, 250, 500)),
    _SECOND,
    5 * _SECOND,
)
PROCESS: Final = (
    Metric("pid", Kind.GAUGE, "Process id; 0 when there is none.", exposed=False),
    Metric(
        "leaving",
        Kind.GAUGE,
        "The supervisor has asked it to leave: it disconnects its clients and exits.",
        exposed=False,
    ),
    Metric(
        "retired",
        Kind.GAUGE,
        "The number of processes was reduced, and this one is no longer needed.",
        exposed=False,
    ),
    Metric(
        "yields",
        Kind.GAUGE,
        "The next version serves: this process continues, but accepts no new connections.",
        exposed=False,
    ),
    Metric(
        "generation",
        Kind.IDENTITY,
        "The sequence number of this process's start, among all starts of this server.",
        exposed=False,
    ),
    Metric(
        "heartbeat_ns",
        Kind.GAUGE,
        "time.monotonic_ns() at the last heartbeat of the process's event loop.",
        "ns",
        exposed=False,
    ),
    Metric("ready", Kind.GAUGE, "1 from the end of its start until it is killed or ends."),
    Metric("restarts", Kind.COUNTER, "Processes that replaced one that had ended."),
    Metric("log_lines_lost", Kind.COUNTER, "Lines of the log that could not be written."),
)
"""Of every process that the supervisor starts."""
SUPERVISOR: Final = (
    Metric("start_time_ns", Kind.GAUGE, "When the server was started, since 1970.", "ns"),
    Metric(
        "reloads",
        Kind.COUNTER,
        "Reloads of the settings.",
        labels=("applied", "refused"),
        label="outcome",
    ),
    Metric("stopping", Kind.GAUGE, "1 once the server has been asked to stop."),
)
"""Of the supervisor itself."""
AGENT: Final = (
    *PROCESS,
    Metric("agent_queue", Kind.GAUGE, "Handshakes that wait for the key agent."),
    Metric("agent_unwraps", Kind.COUNTER, "Handshakes that the key agent has processed."),
    Metric(
        "agent_busy",
        Kind.COUNTER,
        "Handshakes that the key agent has refused because too many waited.",
    ),
    Metric(
        "agent_unwrap_ns",
        Kind.HISTOGRAM,
        "Duration of the RSA private-key operation of one handshake.",
        "ns",
        buckets=COMMIT_BUCKETS,
    ),
)
WORKER: Final = (
    *PROCESS,
    Metric(
        "not_accepting",
        Kind.GAUGE,
        "1 while the worker accepts no connections: it is full, or draining.",
    ),
    Metric("connections", Kind.GAUGE, "Open connections."),
    Metric("connections_logged_in", Kind.GAUGE, "Connections that are logged in."),
    Metric("sources", Kind.GAUGE, "Sources of connections that have a budget in the worker."),
    Metric("users", Kind.GAUGE, "Accounts that have a budget in the worker."),
    Metric("joins", Kind.GAUGE, "Rooms that connections follow, counted once for each connection."),
    Metric(
        "received_bytes", Kind.GAUGE, "Bytes that were received and not processed yet.", "bytes"
    ),
    Metric(
        "stalled_bytes",
        Kind.GAUGE,
        "Bytes that were written for slow readers, and not read by them.",
        "bytes",
    ),
    Metric(
        "readers_catching_up", Kind.GAUGE, "Readers that are catching up: they read pages of a log."
    ),
    Metric(
        "bus_lag_ns", Kind.GAUGE, "How long another worker has not accepted all its data.", "ns"
    ),
    Metric("commit_lag_ns", Kind.GAUGE, "How long messages have waited without a commit.", "ns"),
    Metric("partitions_unavailable", Kind.GAUGE, "Partitions that cannot be opened or written."),
    Metric("partitions_refused", Kind.GAUGE, "Partitions that are damaged, and refused."),
    Metric("partitions_short_of_disk", Kind.GAUGE, "Partitions whose disk is at its reserve."),
    Metric("messages_accepted", Kind.COUNTER, "Messages that were committed and acknowledged."),
    Metric(
        "messages_repeated",
        Kind.COUNTER,
        "Messages that were resent although they were stored.",
    ),
    Metric("deliveries", Kind.COUNTER, "Messages passed to connections, live."),
    Metric(
        "handshakes",
        Kind.COUNTER,
        "Handshakes that ended.",
        labels=tuple(Handshake),
        label="outcome",
    ),
    Metric(
        "handshake_kinds",
        Kind.COUNTER,
        "Completed handshakes: full ones, and those with a ticket.",
        labels=tuple(HandshakeKind),
        label="kind",
    ),
    Metric(
        "closes",
        Kind.COUNTER,
        "Connections that ended after their handshake, by the server's code, or by who ended them.",
        labels=(*CLOSE_CODES, *Closed),
        label="code",
    ),
    Metric(
        "resumes",
        Kind.COUNTER,
        "Clients that resumed a room with a cursor, and the result.",
        labels=tuple(Resume),
        label="outcome",
    ),
    Metric(
        "gaps",
        Kind.COUNTER,
        "Gaps reported to readers: entries that they do not get.",
        labels=GAP_REASONS,
        label="reason",
    ),
    Metric(
        "retention_removed",
        Kind.COUNTER,
        "Entries that were removed by retention, or because their room was deleted.",
    ),
    Metric(
        "retention_removed_bytes", Kind.COUNTER, "Bytes of the entries that were removed.", "bytes"
    ),
    Metric(
        "readers_caught_up", Kind.COUNTER, "Readers that reached the head of a log and became live."
    ),
    Metric(
        "readers_fell_behind",
        Kind.COUNTER,
        "Readers that left live delivery because they were slow.",
    ),
    Metric(
        "readers_too_slow",
        Kind.COUNTER,
        "Readers that were disconnected because they read nothing.",
    ),
    Metric("bus_repairs", Kind.COUNTER, "Missing batches that were repaired from the store."),
    Metric(
        "pages_read", Kind.COUNTER, "Pages that were read from the store for readers that catch up."
    ),
    Metric(
        "refused",
        Kind.COUNTER,
        "Connections, requests and messages that a budget has refused.",
        labels=tuple(Budget),
        label="budget",
    ),
    Metric(
        "searches",
        Kind.COUNTER,
        "Searches, by outcome.",
        labels=tuple(Searched),
        label="outcome",
    ),
    Metric("messages_indexed", Kind.COUNTER, "Entries that were processed for the search index."),
    Metric("search_behind", Kind.GAUGE, "Partitions whose search index is not up to date."),
    Metric(
        "search_ns",
        Kind.HISTOGRAM,
        "Duration of one search of the index, including the wait for earlier searches.",
        "ns",
        buckets=COMMIT_BUCKETS,
    ),
    Metric(
        "commit_ns",
        Kind.HISTOGRAM,
        "Duration of one group commit: the wait of each of its messages.",
        "ns",
        buckets=COMMIT_BUCKETS,
    ),
    Metric(
        "checkpoint_ns",
        Kind.HISTOGRAM,
        "Duration of one checkpoint of a partition. Commits continue during most of it.",
        "ns",
        buckets=DELAY_BUCKETS,
    ),
    Metric(
        "loop_delay_ns",
        Kind.HISTOGRAM,
        "Delay of the event loop's timers, measured ten times a second.",
        "ns",
        buckets=DELAY_BUCKETS,
    ),
)
