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
GAP_REASONS: Final = ("epoch", "ahead", "retention")
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
        "The supervisor asks it to leave: it sends its clients away, and ends.",
        exposed=False,
    ),
    Metric("retired", Kind.GAUGE, "There are fewer processes than were.", exposed=False),
    Metric(
        "yields",
        Kind.GAUGE,
        "The next version's processes serve: it goes on, and takes no new connection.",
        exposed=False,
    ),
    Metric(
        "generation",
        Kind.IDENTITY,
        "Which start of any process of this server it is.",
        exposed=False,
    ),
    Metric(
        "heartbeat_ns",
        Kind.GAUGE,
        "time.monotonic_ns() when the process's loop last showed that it runs.",
        "ns",
        exposed=False,
    ),
    Metric("ready", Kind.GAUGE, "1 from the end of its boot on, until it is killed or ends."),
    Metric("restarts", Kind.COUNTER, "Processes that took the place of one that had ended."),
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
    Metric("stopping", Kind.GAUGE, "1 from the moment on in which the server is asked to stop."),
)
"""Of the supervisor itself."""
AGENT: Final = (
    *PROCESS,
    Metric("agent_queue", Kind.GAUGE, "Handshakes that wait for the key agent."),
    Metric("agent_unwraps", Kind.COUNTER, "Handshakes that the key agent has worked for."),
    Metric("agent_busy", Kind.COUNTER, "Handshakes that it has turned away: too many waited."),
    Metric(
        "agent_unwrap_ns",
        Kind.HISTOGRAM,
        "The private operation of one handshake.",
        "ns",
        buckets=COMMIT_BUCKETS,
    ),
)
WORKER: Final = (
    *PROCESS,
    Metric("not_accepting", Kind.GAUGE, "1 while it leaves connections to others: full, draining."),
    Metric("connections", Kind.GAUGE, "Open connections."),
    Metric("connections_logged_in", Kind.GAUGE, "Connections that are logged in."),
    Metric("sources", Kind.GAUGE, "Sources of connections that it keeps budgets of."),
    Metric("users", Kind.GAUGE, "Accounts that it keeps budgets of."),
    Metric("joins", Kind.GAUGE, "Rooms that connections follow, each counted for each of them."),
    Metric("received_bytes", Kind.GAUGE, "Received and not processed yet.", "bytes"),
    Metric("stalled_bytes", Kind.GAUGE, "Written, and not taken by who reads slowly.", "bytes"),
    Metric("readers_catching_up", Kind.GAUGE, "Readers that wait for pages of a log, not live."),
    Metric("bus_lag_ns", Kind.GAUGE, "How long another worker has taken too little.", "ns"),
    Metric("commit_lag_ns", Kind.GAUGE, "How long messages wait and none is committed.", "ns"),
    Metric("partitions_unavailable", Kind.GAUGE, "Partitions that cannot be opened or written."),
    Metric("partitions_refused", Kind.GAUGE, "Partitions that are damaged, and refused."),
    Metric("partitions_short_of_disk", Kind.GAUGE, "Partitions whose disk is at its reserve."),
    Metric("messages_accepted", Kind.COUNTER, "Messages committed, and so acknowledged."),
    Metric("messages_repeated", Kind.COUNTER, "Messages sent again that were stored already."),
    Metric("deliveries", Kind.COUNTER, "Messages handed to connections, live."),
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
        "Handshakes that were completed: full ones, and by ticket.",
        labels=tuple(HandshakeKind),
        label="kind",
    ),
    Metric(
        "closes",
        Kind.COUNTER,
        "Connections that ended after their handshake: by a close code of ours, or by whom.",
        labels=(*CLOSE_CODES, *Closed),
        label="code",
    ),
    Metric(
        "resumes",
        Kind.COUNTER,
        "Clients that came back to a room with a cursor, and what they got.",
        labels=tuple(Resume),
        label="outcome",
    ),
    Metric(
        "gaps",
        Kind.COUNTER,
        "Gaps that readers were told of: entries that they do not get.",
        labels=GAP_REASONS,
        label="reason",
    ),
    Metric(
        "retention_removed",
        Kind.COUNTER,
        "Entries that were removed because they are not to be kept, or their room has ended.",
    ),
    Metric("retention_removed_bytes", Kind.COUNTER, "Bytes of these.", "bytes"),
    Metric("readers_caught_up", Kind.COUNTER, "Readers that reached the head of a log: live."),
    Metric("readers_fell_behind", Kind.COUNTER, "Readers that left live for being slow."),
    Metric("readers_too_slow", Kind.COUNTER, "Readers that were closed for taking nothing."),
    Metric("bus_repairs", Kind.COUNTER, "Holes between batches that were read from the store."),
    Metric("pages_read", Kind.COUNTER, "Pages read from the store for readers not live."),
    Metric(
        "refused",
        Kind.COUNTER,
        "What a budget has refused: connections, requests and messages.",
        labels=tuple(Budget),
        label="budget",
    ),
    Metric(
        "searches",
        Kind.COUNTER,
        "Searches, and what they have come to.",
        labels=tuple(Searched),
        label="outcome",
    ),
    Metric("messages_indexed", Kind.COUNTER, "Entries that were looked at for the search index."),
    Metric("search_behind", Kind.GAUGE, "Partitions of which not all is in the search index yet."),
    Metric(
        "search_ns",
        Kind.HISTOGRAM,
        "One look into the search index, with waiting for those before it.",
        "ns",
        buckets=COMMIT_BUCKETS,
    ),
    Metric(
        "commit_ns",
        Kind.HISTOGRAM,
        "One group commit: what every message of it waited for.",
        "ns",
        buckets=COMMIT_BUCKETS,
    ),
    Metric(
        "checkpoint_ns",
        Kind.HISTOGRAM,
        "One checkpoint of a partition. Commits go on for most of it.",
        "ns",
        buckets=DELAY_BUCKETS,
    ),
    Metric(
        "loop_delay_ns",
        Kind.HISTOGRAM,
        "How much later than due the event loop came to a timer, ten times a second.",
        "ns",
        buckets=DELAY_BUCKETS,
    ),
)
