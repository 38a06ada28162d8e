"""Fan-out: from the entries that feeds have received to the outboxes of live subscriptions.

A *sweep* writes to all outboxes that a distribution has filled, in slices of time. What arrives
during a sweep is distributed between two slices if it is small: members not written to yet get it
in the same record as the previous message, the others in the next sweep. So a message waits for one
sweep at most, not for the rest of one and the whole of the next.

*Sweep pauses*: after a sweep that took a time T, its logs pause before their next one: for a
multiple of T that grows with the number of messages per record. The first message after a pause is
sent at once. So one busy room never takes all of a worker, and its records fill up before the loop
is saturated. Where records carry few messages, pauses save less and are shorter.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.chat.entries import NO_EPOCH
from relay.chunking import count_fitting
from relay.server.worker.delivery.batch import EVENT, Batch
from relay.server.worker.out_of_memory import exit_if_out_of_memory

if TYPE_CHECKING:
    from relay.server.worker.delivery.outbox import Flusher
    from relay.server.worker.member.catchup import Catchup
    from relay.server.worker.member.feed import Feed, Feeds

PAUSE_LEAST: Final = 0.72
PAUSE_PER_MESSAGE: Final = 0.08
PAUSE_MOST: Final = 1.0
"""Pause of a log after a sweep, as multiples of the sweep's duration: the basic pause, the increase
for each message that the sweep brought to each member, and the maximum (docs/architecture.md,
"Sweep pauses")."""
PAUSE_S_MIN: Final = 0.0005
"""Shorter pauses are not worth a timer, so small rooms never pause."""
PAUSE_S_MAX: Final = 0.05
SWEPT_BYTES_MAX: Final = 40_960
"""Maximum for one log in one sweep; the rest waits for the next one. Outboxes wait for their write
meanwhile, which is not their readers' fault, so this is far below ``OUTBOX_BYTES_MAX``. Records of
this size gain nothing from further messages."""
RUNNING_BYTES_MAX: Final = 4 * 1024 * 1024
"""Received and not yet distributed bytes; beyond it the log does not pause."""
EVENTS_HELD_MAX: Final = 16
"""Events that wait while entries of their log are missing; newer ones replace older ones."""
log = logging.getLogger("relay.worker")


class Fanout:
    """Distributes what the feeds of a worker have received."""

    def __init__(self, feeds: Feeds, flusher: Flusher, catchup: Catchup) -> None:
        self._feeds = feeds
        self._flusher = flusher
        self._catchup = catchup
        self.sweeping: list[Feed] = []
        """Feeds of the sweep that is being written."""
        self.late: list[Feed] = []
        """Feeds distributed during a sweep, with some outboxes that wait for the next one."""
        self.deliveries = 0
        self.outbox_bytes_max = limits.OUTBOX_BYTES_MAX

    def distribute(self, now: float) -> None:
        """Move the running batches of all feeds that are not paused to their live outboxes.

        Begins a sweep unless one is in progress; feeds whose members were already written to become
        late.
        """
        waiting, sweeping = self._feeds.to_distribute, bool(self.sweeping)
        done: list[Feed] = []
        feeds = list(waiting)
        if len(feeds) > 1:
            feeds.sort(key=_size)  # feeds with few bytes do not wait for those with many
        for feed in feeds:
            size = feed.running.size
            if feed.paused_until > now and size < RUNNING_BYTES_MAX:
                continue
            if not sweeping:
                feed.swept_bytes = size
            elif feed.swept_bytes + size <= SWEPT_BYTES_MAX:
                feed.swept_bytes += size
            else:
                continue
            del waiting[feed]
            done.append(feed)
            try:
                self._distribute(feed)
            except Exception as error:
                exit_if_out_of_memory(error)
                # H has moved, so the rest of the batch would be lost silently.
                log.exception("fan_out_failed", extra={"log": feed.log})
                feed.fail()
        late = self.late
        if sweeping:
            late.extend(done)
        elif done or (late and min([feed.paused_until for feed in late]) <= now):
            # Late feeds go with any other sweep: no message waits for another room's pause.
            self.sweeping = list(dict.fromkeys(late + done)) if late else done
            late.clear()
            self._flusher.begin(now)

    def _distribute(self, feed: Feed) -> None:
        if feed.running.size:
            # H moves before the batches are offered: a subscription that falls behind meanwhile has
            # the batch in its outbox, and its cursor is the batch's prev.
            batches = feed.running.close(feed.log, feed.epoch)
            feed.epoch, feed.seq = feed.received
            for batch in batches:
                self._offer(feed, batch)
                if batch.control:
                    # In the same turn: nothing that follows reaches members that it excludes.
                    for subscriber, refused in feed.control(batch.content):
                        subscriber.remove(feed.log, refused)
        if feed.events:
            # After the entries, which may exclude members: presence is as of now, not as of H.
            if feed.repair_to:
                del feed.events[:-EVENTS_HELD_MAX]
            else:
                content = _whole(feed.events)
                feed.events.clear()
                self._offer(feed, Batch(feed.log, NO_EPOCH, EVENT, EVENT, 0, content))
        if feed.ahead:
            ahead, feed.ahead = feed.ahead, []
            for subscription in ahead:
                self._catchup.add(feed, subscription)
        if feed.awaiting:
            feed.reached(feed.seq)

    def flush(self) -> None:
        """Write a slice of a sweep; when the sweep is complete, its feeds pause."""
        written = self._flusher.flush()
        if written is None:
            return
        self._pause(*written)
        self.sweeping = []

    def _offer(self, feed: Feed, batch: Batch) -> None:
        size, outbox_bytes_max = batch.size, self.outbox_bytes_max
        dirty = self._flusher.dirty
        over = 0
        for outbox in feed.live.values():  # the subscriptions themselves are not touched
            items = outbox.items
            if not items:
                dirty.append(outbox)
            items.append(batch)
            outbox.size += size
            if outbox.size > outbox_bytes_max:
                over += 1
        self.deliveries += batch.count * (len(feed.live) - over)
        if over:
            for subscription, outbox in list(feed.live.items()):
                if outbox.size > outbox_bytes_max:
                    self._flusher.relieve(outbox)
                if outbox.size > outbox_bytes_max:
                    subscription.subscriber.fall_behind()

    def _pause(self, now: float, took_s: float) -> None:
        feeds = self.sweeping
        for feed in self.late:
            feed.swept_bytes = 0
        if took_s * PAUSE_MOST < PAUSE_S_MIN:  # small rooms
            for feed in feeds:
                feed.swept = feed.seq
            return
        total = sum([len(feed.live) for feed in feeds])
        for feed in feeds:
            messages, feed.swept = feed.seq - feed.swept, feed.seq
            factor = min(PAUSE_MOST, PAUSE_LEAST + PAUSE_PER_MESSAGE * messages)
            pause_s = factor * took_s * len(feed.live) / total if total else 0.0
            if pause_s >= PAUSE_S_MIN:
                feed.paused_until = max(feed.paused_until, now + min(pause_s, PAUSE_S_MAX))


def _size(feed: Feed) -> int:
    return feed.running.size


def _whole(events: list[bytes]) -> bytes:
    """Join the newest events that fit one record; each event is complete."""
    newest = events[::-1]
    count = count_fitting(map(len, newest), limits.RECORD_CONTENT_BYTES_MAX)
    return b"".join(reversed(newest[:count]))
