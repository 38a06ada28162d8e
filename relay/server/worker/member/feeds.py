"""All logs that are followed on this worker, and what their homes send about them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from relay.bus.messages import Subscribe
from relay.server.worker.member.feed import Feed
from relay.server.worker.member.reply import Reply
from relay.wire.codes import CloseCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.bus.messages import Batch, Event
    from relay.server.worker.member.routes import Routes

log = logging.getLogger("relay.worker")


class Feeds:
    """The feeds of a worker, by the name of their log, and which of them have something to do."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self.by_log: dict[str, Feed] = {}
        self.to_distribute: dict[Feed, None] = {}
        """Feeds with entries or events for their live members, resting ones too."""
        self.to_repair: dict[Feed, None] = {}
        """Feeds with entries to read from the store."""

    def open(self, name: str) -> Feed:
        """Return the feed of a log; a new one is not ``known`` until the home has answered."""
        feed = self.by_log.get(name)
        if feed is None:
            feed = self.by_log[name] = Feed(name)
            port = self._routes.port_of(name)
            if port is not None:
                port.send(Subscribe(name))
        return feed

    def known(self, feed: Feed) -> Reply[None]:
        """Return what a join awaits: the head of a log from its home."""
        reply: Reply[None] = Reply()
        if feed.known:
            reply.resolve(None)
        else:
            feed.joining.append(reply)
        return reply

    def forget(self, feed: Feed) -> bool:
        """Drop a feed that nobody follows any more.

        Returns:
            False when it was dropped before: by now its log may have another one.
        """
        assert feed.idle, "a feed that is followed must not be forgotten"
        if self.by_log.get(feed.log) is not feed:
            return False
        del self.by_log[feed.log]
        self.to_distribute.pop(feed, None)
        self.to_repair.pop(feed, None)
        return True

    # --- from the homes -----------------------------------------------------------------------
    def on_head(self, name: str, epoch: bytes, seq: int, state: bytes = b"") -> None:
        """Take the head of a log, and what control entries have made of it."""
        feed = self.by_log.get(name)
        if feed is None:
            return
        if not feed.on_head(epoch, seq, state):
            log.error("log_went_back", extra={"log": name})
            for subscriber in list(feed.subscriptions):
                subscriber.close(CloseCode.INTERNAL, detail="stored state was lost")
            return
        if feed.repair_to:
            self.to_repair[feed] = None
        # Each goes on with whatever its client asks next; those still in line hold the feed.
        while feed.joining:
            feed.joining.popleft().resolve(None)

    def on_batch(self, _: Port, batch: Batch) -> None:
        """Take a batch of entries."""
        feed = self.by_log.get(batch.log)
        if feed is None:
            return
        if feed.receive(batch):
            self.to_distribute[feed] = None
        if feed.repair_to:
            self.to_repair[feed] = None

    def on_event(self, _: Port, event: Event) -> None:
        """Take an envelope that is no entry (a roster change): to the live members, best effort."""
        feed = self.by_log.get(event.log)
        if feed is not None:
            feed.events.append(event.content)
            self.to_distribute[feed] = None
