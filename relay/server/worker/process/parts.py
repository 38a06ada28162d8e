"""The parts of a worker that the process uses directly, and their metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay.bus.link import Link
    from relay.server.worker.connection.connections import Connections
    from relay.server.worker.connection.services import ConnectionServices
    from relay.server.worker.delivery.outbox import Flusher
    from relay.server.worker.delivery.stalled import StalledConnections
    from relay.server.worker.home.parts import HomeParts
    from relay.server.worker.member.parts import MemberParts
    from relay.server.worker.process.loop.turn import Turn
    from relay.server.worker.process.messaging.bus_dispatcher import BusDispatcher
    from relay.server.worker.process.messaging.own_home import OwnHome
    from relay.server.worker.wakeup import Wakeup

Gauges = dict[str, Callable[[], int]]
Counters = dict[str, Callable[[], int]]
Labelled = dict[str, Mapping[Any, int]]


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The parts that the process uses directly."""

    wakeup: Wakeup
    links: dict[int, Link]
    own_home: OwnHome
    flusher: Flusher
    stalled: StalledConnections
    home: HomeParts
    member: MemberParts
    services: ConnectionServices
    connections: Connections
    dispatcher: BusDispatcher
    turn: Turn

    def measured(self) -> tuple[Gauges, Counters, Labelled]:
        """Return the gauges and the counters of ``server.metrics`` that these parts provide."""
        budgets, stalled, member = self.services.budgets, self.stalled, self.member
        catchup, writer, partitions = member.catchup, self.home.writer, self.home.partitions
        counters: Counters = {
            "messages_accepted": lambda: writer.publishing.accepted,
            "messages_repeated": lambda: writer.publishing.repeated,
            "deliveries": lambda: member.fanout.deliveries,
            "readers_caught_up": lambda: catchup.caught_up,
            "readers_fell_behind": lambda: stalled.fell_behind,
            "readers_too_slow": lambda: stalled.too_slow,
            "bus_repairs": lambda: member.repair.repaired,
            "pages_read": lambda: catchup.pages_read,
        }
        counts = self.services.counts
        labelled: Labelled = {
            "handshakes": counts.handshakes,
            "handshake_kinds": counts.kinds,
            "closes": counts.closes,
            "resumes": counts.resumes,
            "gaps": counts.gaps,
            "refused": budgets.refusals.counts,
            "searches": counts.searches,
        }
        return (
            {
                "connections_logged_in": lambda: budgets.admission.authenticated,
                "readers_catching_up": lambda: catchup.waiting,
                "sources": lambda: len(budgets.sources),
                "users": lambda: len(budgets.users),
                "joins": lambda: budgets.sources.joins,
                "received_bytes": lambda: budgets.received.total,
                "stalled_bytes": lambda: stalled.bytes,
                "partitions_unavailable": lambda: len(partitions.troubles),
                "partitions_refused": lambda: len(partitions.refused),
                "partitions_short_of_disk": lambda: len(writer.short_of_disk),
            },
            counters,
            labelled,
        )
