"""Everything that one connection follows: feeds, cursors, falling behind, resuming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from relay.chat.names import is_inbox
from relay.chat.rooms.rights import Actor
from relay.server.worker.error_codes import ROOM_CODES
from relay.server.worker.member.subscription import Subscription
from relay.wire.envelopes import Behind, Removed
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.chat.rooms.refusal import Refused
    from relay.server.worker.delivery.outbox import Outbox
    from relay.server.worker.delivery.stalled import StalledConnections
    from relay.server.worker.member.catchup import Catchup
    from relay.server.worker.member.feed import Feed, Feeds
    from relay.server.worker.member.presence import PresenceReports


NOBODY: Final = Actor("")
"""The user before the login."""


class Following:
    """What the subscriptions of all connections of a worker share."""

    __slots__ = ("catchup", "feeds", "presence", "stalled")

    def __init__(
        self,
        feeds: Feeds,
        catchup: Catchup,
        presence: PresenceReports,
        stalled: StalledConnections,
    ) -> None:
        self.feeds = feeds
        self.catchup = catchup
        self.presence = presence
        self.stalled = stalled


class Follower(Protocol):
    """The session that owns the subscriptions."""

    def close(self, code: int, retry_after_s: int = 0, detail: str = "") -> None:
        """End the connection."""

    def count_joins(self, change: int) -> None:
        """Change the number of followed logs."""


class Subscriptions:
    """The subscriptions of one connection. A ``feed.Subscriber``."""

    __slots__ = ("_follower", "_following", "actor", "by_log", "display", "outbox")

    def __init__(self, following: Following, outbox: Outbox, follower: Follower) -> None:
        """Create without subscriptions.

        Args:
            following: of this worker.
            outbox: pending output of the connection.
            follower: ends the connection, and counts what it follows.
        """
        self._following = following
        self._follower = follower
        self.outbox = outbox
        self.by_log: dict[str, Subscription] = {}
        self.actor = NOBODY
        """The user; set before the first subscription."""
        self.display = ""

    def get(self, log: str) -> Feed | None:
        """Return the feed of a log that the connection follows; None if it does not."""
        return self._following.feeds.by_log[log] if log in self.by_log else None

    def enter(self, feed: Feed, after: int) -> None:
        """Follow a log from the entry after ``after``.

        It is live at once if that is the head and no batches are queued (those of an earlier
        membership would tell a wrong cursor if it fell behind). Otherwise it starts in catch-up.
        """
        assert self._following.feeds.by_log.get(feed.log) is feed, "a feed that was dropped"
        assert feed.known, "a cursor can be placed only in a log whose head is known"
        subscription = Subscription(self, after)
        # Only its owner follows an inbox: there is nobody to report presence to.
        feed.add(subscription, "" if is_inbox(feed.log) else self.actor.handle, self.display)
        self.by_log[feed.log] = subscription
        self._follower.count_joins(1)
        self._following.presence.changed(feed)
        outbox = self.outbox
        if after == feed.seq and outbox.size == outbox.answers and not outbox.paused:
            self._following.catchup.enter_live(feed, subscription)
        else:
            self._following.catchup.add(feed, subscription)

    def leave(self, log: str) -> None:
        """Stop following a log."""
        subscription = self.by_log.pop(log)
        self._follower.count_joins(-1)
        feed = self._following.feeds.by_log[log]
        feed.remove(subscription, "" if is_inbox(log) else self.actor.handle)
        self._following.presence.changed(feed)

    def leave_all(self) -> None:
        """The connection has ended."""
        for log in list(self.by_log):
            self.leave(log)

    def resume(self) -> None:
        """The connection accepts bytes again: continue with what it has not read yet."""
        feeds = self._following.feeds.by_log
        for log, subscription in self.by_log.items():
            if not subscription.live:
                self._following.catchup.add(feeds[log], subscription)

    # --- subscription.Subscriber --------------------------------------------------------------
    def fall_behind(self) -> None:
        """Leave the live set of every log and drop their queued entries.

        Invariant "Falling behind".
        """
        dropped = self.outbox.drop_batches()
        self._following.stalled.count_behind(self.actor.handle)
        feeds = self._following.feeds.by_log
        for log, subscription in self.by_log.items():
            if not subscription.live:
                continue
            feed = feeds[log]
            first = dropped.get(log)
            epoch, seq = (first.prev_epoch, first.prev) if first else feed.head
            feed.leave_live(subscription, seq)
            self.outbox.answer(pack(Behind(log, epoch, seq)))
            self._following.catchup.add(feed, subscription)

    def remove(self, log: str, refused: Refused) -> None:
        """Stop following a log because it may no longer be read."""
        self.leave(log)
        self.outbox.answer(pack(Removed(log, int(ROOM_CODES[refused.reason]), refused.text)))

    def close(self, code: int, detail: str = "") -> None:
        """End the connection."""
        self._follower.close(code, 0, detail)
