"""Resends to a home all that this worker has for its partition, whenever the home changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.bus.messages import Announced, Attach, Subscribe
from relay.chat.partition import partition_of
from relay.server.worker.member.presence import send_presence

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.member.catchup import Catchup
    from relay.server.worker.member.claims import Claims
    from relay.server.worker.member.feed import Feeds
    from relay.server.worker.member.forward import Forward
    from relay.server.worker.member.queries import PendingQueries
    from relay.server.worker.member.routes import Routes


class Attachment:
    """Attaches partitions to their homes."""

    def __init__(
        self,
        routes: Routes,
        feeds: Feeds,
        claims: Claims,
        forward: Forward,
        queries: PendingQueries,
        catchup: Catchup,
    ) -> None:
        self._routes = routes
        self._feeds = feeds
        self._claims = claims
        self._forward = forward
        self._queries = queries
        self._catchup = catchup

    def refresh(self) -> None:
        """Attach every unattached partition whose home is available."""
        attached: dict[Port, None] = {}
        for partition, port in self._routes.refresh():
            self._attach(partition, port)
            attached[port] = None
        for port in attached:
            self.announce(port)

    def announce(self, port: Port) -> None:
        """Tell a home that everything of this worker has been sent."""
        port.send(Announced(self._routes.generation))

    def _attach(self, partition: int, port: Port) -> None:
        port.send(Attach(partition))
        self._catchup.checked.forget()
        for feed in list(self._feeds.by_log.values()):
            if partition_of(feed.log) == partition:
                port.send(Subscribe(feed.log))
                send_presence(port, feed, set(feed.here), again=True)
        self._claims.attach(partition, port)
        self._forward.attach(partition, port)
        self._queries.attach(partition, port)
