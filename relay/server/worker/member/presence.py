"""Reports to the homes of logs who follows them on this worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.bus.messages import ITEMS_PER_MESSAGE, Presence, Unsubscribe
from relay.chunking import chunks

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.member.feed import Feed, Feeds
    from relay.server.worker.member.routes import Routes
    from relay.server.worker.wakeup import Wakeup


class PresenceReports:
    """Changes since the last report, sent as one message per log and turn."""

    def __init__(self, feeds: Feeds, routes: Routes, wakeup: Wakeup) -> None:
        self._feeds = feeds
        self._routes = routes
        self._wakeup = wakeup
        self.to_report: dict[Feed, None] = {}
        """Feeds with changes that ``send`` has to report."""

    def changed(self, feed: Feed) -> None:
        """Connections came or left: in this turn the home is told, or the feed is dropped."""
        self.to_report[feed] = None
        self._wakeup.request()

    def send(self) -> None:
        """Send the changes to the homes."""
        while self.to_report:
            feed, _ = self.to_report.popitem()
            port = self._routes.port_of(feed.log)
            if feed.idle:
                if self._feeds.forget(feed) and port is not None:
                    port.send(Unsubscribe(feed.log))
                continue
            names, feed.changed = feed.changed, set()
            if port is not None:
                send_presence(port, feed, names)


def send_presence(port: Port, feed: Feed, names: set[str], *, again: bool = False) -> None:
    """Tell a log's home how many connections of some names there are here.

    ``again``: another home of the log may have been told before.
    """
    changes = feed.presence(names)
    for chunk in chunks(changes, count_max=ITEMS_PER_MESSAGE):
        port.send(Presence(feed.log, list(chunk), again))
