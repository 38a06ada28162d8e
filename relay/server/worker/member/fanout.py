"""Fan-out: from what the feeds have received to the outboxes of the live subscriptions.

*Breathing*: after a distribution whose writes took T, the log rests for ``REST_FACTOR * T`` before
the next one; the first entry after a rest leaves at once. One busy room then never takes more than
1 / (1 + REST_FACTOR) of the worker, and its batches grow before the loop saturates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay import limits
from relay.chat.entries import NO_EPOCH
from relay.chunking import count_fitting
from relay.server.worker.delivery.batch import EVENT, Batch

if TYPE_CHECKING:
    from relay.server.worker.delivery.flusher import Flusher
    from relay.server.worker.member.catchup import Catchup
    from relay.server.worker.member.feed import Feed
    from relay.server.worker.member.feeds import Feeds
    from relay.server.worker.member.subscription import Subscription

REST_FACTOR: Final = 1.0
"""See docs/architecture.md, "Breathing"."""
REST_S_MIN: Final = 0.0005
"""Shorter rests are not worth a timer: small rooms never rest."""
REST_S_MAX: Final = 0.05
RUNNING_BYTES_MAX: Final = 4 * 1024 * 1024
"""Received and not distributed yet; beyond it the log does not rest."""


class Fanout:
    """Distributes what the feeds of a worker have received."""

    def __init__(self, feeds: Feeds, flusher: Flusher, catchup: Catchup) -> None:
        self._feeds = feeds
        self._flusher = flusher
        self._catchup = catchup
        self.distributed: list[Feed] = []
        """Feeds of the distribution that is being written."""
        self.deliveries = 0
        self.outbox_bytes_max = limits.OUTBOX_BYTES_MAX

    def distribute(self, now: float) -> None:
        """Hand the running batches of all feeds that do not rest to their live outboxes."""
        waiting = self._feeds.to_distribute
        done = self.distributed
        for feed in list(waiting):
            if feed.rest_until > now and feed.running.size < RUNNING_BYTES_MAX:
                continue
            del waiting[feed]
            done.append(feed)
            if feed.events:
                content = _whole(feed.events)
                feed.events.clear()
                self._offer(feed, Batch(feed.log, NO_EPOCH, EVENT, EVENT, 0, content))
            if feed.running:
                # H moves before the batches are offered: whoever falls behind while they
                # are has the batch in its outbox, and its cursor is the prev of that.
                batches = feed.running.close(feed.log, feed.epoch)
                feed.epoch, feed.seq = feed.received
                for batch in batches:
                    self._offer(feed, batch)
            if feed.ahead:
                ahead, feed.ahead = feed.ahead, []
                for subscription in ahead:
                    self._catchup.add(feed, subscription)
        self._flusher.begin(now)

    def flush(self) -> None:
        """Write a slice of what was distributed; when all of it is written, its feeds rest."""
        written = self._flusher.flush()
        if written is None:
            return
        now, took_s = written
        self._rest(self.distributed, took_s, now)
        self.distributed.clear()

    def _offer(self, feed: Feed, batch: Batch) -> None:
        size, outbox_bytes_max = batch.size, self.outbox_bytes_max
        dirty = self._flusher.dirty
        over: list[Subscription] = []
        for subscription, outbox in feed.live.items():
            items = outbox.items
            if not items:
                dirty.append(outbox)
            items.append(batch)
            outbox.size += size
            if outbox.size > outbox_bytes_max:
                over.append(subscription)
        self.deliveries += batch.count * (len(feed.live) - len(over))
        for subscription in over:
            subscription.subscriber.fall_behind()

    def _rest(self, feeds: list[Feed], took_s: float, now: float) -> None:
        total = sum(len(feed.live) for feed in feeds)
        for feed in feeds:
            rest_s = REST_FACTOR * took_s * len(feed.live) / total if total else 0.0
            if rest_s >= REST_S_MIN:
                feed.rest_until = now + min(rest_s, REST_S_MAX)


def _whole(events: list[bytes]) -> bytes:
    """Join the newest events that fit one record; each is whole."""
    newest = events[::-1]
    count = count_fitting(map(len, newest), limits.RECORD_CONTENT_BYTES_MAX)
    return b"".join(reversed(newest[:count]))
