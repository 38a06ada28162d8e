"""The parts of a worker that the process uses directly, and their metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay.bus.link import Link
    from relay.server.worker.connection.connections import Connections
    from relay.server.worker.connection.services import ConnectionBudgets, ConnectionServices
    from relay.server.worker.delivery.outbox import Flusher
    from relay.server.worker.delivery.stalled import StalledConnections
    from relay.server.worker.home.accounts import AccountsHome
    from relay.server.worker.home.followers import Followers
    from relay.server.worker.home.home import Home
    from relay.server.worker.home.names import NameRegistry
    from relay.server.worker.home.partitions import OwnPartitions
    from relay.server.worker.home.publishing import Interest
    from relay.server.worker.home.room_rules import RoomRules
    from relay.server.worker.home.rooms import RoomsHome
    from relay.server.worker.home.rosters import Rosters
    from relay.server.worker.member.attachment import Attachment
    from relay.server.worker.member.catchup import Catchup
    from relay.server.worker.member.claims import Claims
    from relay.server.worker.member.fanout import Fanout
    from relay.server.worker.member.feed import Feeds
    from relay.server.worker.member.forward import Forward
    from relay.server.worker.member.queries import PendingQueries
    from relay.server.worker.member.repair import Repair
    from relay.server.worker.member.routes import Routes
    from relay.server.worker.process.bus_dispatcher import BusDispatcher
    from relay.server.worker.process.own_home import OwnHome
    from relay.server.worker.process.turn import Turn
    from relay.server.worker.refusals import Refusals
    from relay.server.worker.wakeup import Wakeup

Gauges = dict[str, Callable[[], int]]
Counters = dict[str, Callable[[], int]]
Labelled = dict[str, Mapping[Any, int]]


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The parts that the process uses directly."""

    wakeup: Wakeup
    links: dict[int, Link]
    routes: Routes
    partitions: OwnPartitions
    followers: Followers
    home: Home
    interest: Interest
    rosters: Rosters
    names: NameRegistry
    accounts: AccountsHome
    rooms: RoomsHome
    rules: RoomRules
    feeds: Feeds
    fanout: Fanout
    repair: Repair
    catchup: Catchup
    forward: Forward
    claims: Claims
    queries: PendingQueries
    attachment: Attachment
    stalled: StalledConnections
    flusher: Flusher
    own_home: OwnHome
    dispatcher: BusDispatcher
    turn: Turn
    services: ConnectionServices
    connections: Connections
    refusals: Refusals
    budgets: ConnectionBudgets

    def measured(self) -> tuple[Gauges, Counters, Labelled]:
        """Return the gauges and the counters of ``server.metrics`` that these parts provide."""
        budgets, stalled, catchup = self.budgets, self.stalled, self.catchup
        home, partitions = self.home, self.partitions
        counters: Counters = {
            "messages_accepted": lambda: home.publishing.accepted,
            "messages_repeated": lambda: home.publishing.repeated,
            "deliveries": lambda: self.fanout.deliveries,
            "readers_caught_up": lambda: catchup.caught_up,
            "readers_fell_behind": lambda: stalled.fell_behind,
            "readers_too_slow": lambda: stalled.too_slow,
            "bus_repairs": lambda: self.repair.repaired,
            "pages_read": lambda: catchup.pages_read,
        }
        counts = self.services.counts
        labelled: Labelled = {
            "handshakes": counts.handshakes,
            "handshake_kinds": counts.kinds,
            "closes": counts.closes,
            "resumes": counts.resumes,
            "gaps": counts.gaps,
            "refused": self.refusals.counts,
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
                "partitions_short_of_disk": lambda: len(home.short_of_disk),
            },
            counters,
            labelled,
        )
