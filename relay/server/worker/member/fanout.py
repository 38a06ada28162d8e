"""Fan-out: from what the feeds have received to the outboxes of their live members on this worker.

*Breathing*: after a distribution whose writes took T, the log rests for ``REST_FACTOR * T`` before
the next one; the first entry after a rest leaves at once. One busy room then never takes more than
1 / (1 + REST_FACTOR) of the worker, and its batches grow before the loop saturates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay import limits
from relay.bus.messages import Batch as BusBatch
from relay.bus.messages import Event
from relay.chat.entries import NO_EPOCH
from relay.server.worker.delivery.batch import EVENT, Batch
from relay.server.worker.member.feed import Feed, Member

if TYPE_CHECKING:
    from relay.server.worker.delivery.outbox import Outbox

REST_FACTOR: Final = 1.0
"""k of architecture.md ("about 0.5 to 1")."""
REST_S_MIN: Final = 0.0005
"""Shorter rests are not worth a timer: small rooms never rest."""
REST_S_MAX: Final = 0.05
RUNNING_BYTES_MAX: Final = 4 * 1024 * 1024
"""Received and not distributed yet; beyond it the log does not rest."""


class Fanout:
    """All feeds of a worker, and the ones with something to distribute."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}
        self.waiting: dict[Feed, None] = {}
        """Feeds with entries or events to distribute, resting ones too."""
        self.broken: dict[Feed, None] = {}
        """Feeds with entries to read from the store."""
        self.dirty: list[Outbox] = []
        """Outboxes that were empty before this turn's distribution: to be flushed."""
        self.deliveries = 0

    def receive(self, batch: BusBatch) -> None:
        """Take a batch from a log's home."""
        feed = self.feeds.get(batch.log)
        if feed is None:
            return
        if feed.receive(batch):
            self.waiting[feed] = None
        if feed.repair_to:
            self.broken[feed] = None

    def announce(self, event: Event) -> None:
        """Take an envelope that is no entry (a roster change): to the live members, best effort."""
        feed = self.feeds.get(event.log)
        if feed is not None:
            feed.events.append(event.content)
            self.waiting[feed] = None

    def forget(self, feed: Feed) -> None:
        """Drop a feed that nobody follows any more."""
        self.feeds.pop(feed.log, None)
        self.waiting.pop(feed, None)
        self.broken.pop(feed, None)

    def distribute(self, now: float) -> list[Feed]:
        """Hand the running batches of all feeds that do not rest to their live members' outboxes.

        Returns:
            The feeds that were distributed, for ``rest``.
        """
        done: list[Feed] = []
        for feed in list(self.waiting):
            if feed.rest_until > now and feed.running.size < RUNNING_BYTES_MAX:
                continue
            del self.waiting[feed]
            done.append(feed)
            if feed.events:
                content = _whole(feed.events)
                feed.events.clear()
                self._offer(feed, Batch(feed.log, NO_EPOCH, EVENT, EVENT, 0, content))
            if feed.running:
                # H moves before the batches are offered: a member that falls behind while they
                # are has the batch in its outbox, and its cursor is the prev of that.
                batches = feed.running.close(feed.log, feed.epoch)
                feed.epoch, feed.seq = feed.received
                for batch in batches:
                    self._offer(feed, batch)
        return done

    def _offer(self, feed: Feed, batch: Batch) -> None:
        size = batch.size
        dirty = self.dirty
        over: list[Member] = []
        for member, outbox in feed.live.items():
            items = outbox.items
            if not items:
                dirty.append(outbox)
            items.append(batch)
            outbox.size += size
            if outbox.size > limits.OUTBOX_BYTES_MAX:
                over.append(member)
        self.deliveries += batch.count * (len(feed.live) - len(over))
        for member in over:
            member.session.fall_behind()

    def rest(self, feeds: list[Feed], took_s: float, now: float) -> None:
        """Let the feeds of a distribution rest in proportion to what writing it took."""
        total = sum(len(feed.live) for feed in feeds)
        for feed in feeds:
            rest_s = REST_FACTOR * took_s * len(feed.live) / total if total else 0.0
            if rest_s >= REST_S_MIN:
                feed.rest_until = now + min(rest_s, REST_S_MAX)


def _whole(events: list[bytes]) -> bytes:
    """Join the newest events that fit one record; each is whole."""
    size = 0
    kept: list[bytes] = []
    for event in reversed(events):
        size += len(event)
        if size > limits.RECORD_CONTENT_BYTES_MAX:
            break
        kept.append(event)
    return b"".join(reversed(kept))
