"""Catch-up: readers that are not live read the log page by page until they reach its head.

Invariant "Catching up is rationed": pages of at most a record, round robin over subscriptions, a
slice of time per loop iteration, live traffic first. Join with history, resume, and falling behind
are all the same operation: read (cursor, H], and when cursor = H enter the live set in the same
turn. Requests for a page of history wait in the same queue.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.chat.entries import Cursor, GapInfo, GapReason
from relay.chat.partition import partition_of
from relay.chat.rooms.refusal import Reason, Refused
from relay.server.worker.member.checked_entries import CheckedEntries
from relay.server.worker.member.pages import Page
from relay.server.worker.member.reply import Reply
from relay.server.worker.out_of_memory import exit_if_out_of_memory
from relay.server.worker.stored import damage_of
from relay.store.errors import StoreCorrupt
from relay.wire.codes import CloseCode
from relay.wire.envelopes import Gap, Live
from relay.wire.packing import pack, unpack_entry

if TYPE_CHECKING:
    from relay.server.scoreboard import Erasures
    from relay.server.worker.delivery.stalled import StalledConnections
    from relay.server.worker.member.damage import DamageReports
    from relay.server.worker.member.feed import Feed
    from relay.server.worker.member.pages import Pages
    from relay.server.worker.member.subscription import Subscription
    from relay.server.worker.wakeup import Wakeup
    from relay.store.log import Reader

SLICE_S: Final = 0.002
"""Time per loop iteration: how long a live message may wait behind readers of history."""
log = logging.getLogger("relay.worker")


class Catchup:
    """The readers of a worker that are behind, in turn."""

    def __init__(
        self,
        reader_of: Callable[[str], Reader],
        erasures: Callable[[int], Erasures],
        clock: Callable[[], float],
        stalled: StalledConnections,
        wakeup: Wakeup,
        gaps: dict[str, int],
        damage: DamageReports,
        pages: Pages,
    ) -> None:
        self._reader_of = reader_of
        self._erasures = erasures
        self._clock = clock
        self._stalled = stalled
        self._wakeup = wakeup
        self._damage = damage
        self.gaps = gaps
        """Number of reported gaps by reason; joins are counted here, too."""
        self.queue: deque[tuple[Feed, Subscription] | Reply[None]] = deque()
        """Readers with something to read: subscriptions that are not live, and requests for a page.
        """
        self.heavy: deque[Reply[None]] = deque()
        """Requests for a page from heavy users: they wait until it is the turn of heavy users."""
        self.pages = pages
        self.checked = CheckedEntries()
        self.pages_read = 0
        self.caught_up = 0

    @property
    def near_limit(self) -> bool:
        """True while the worker must not hold more pages: too many bytes wait to be read."""
        return self._stalled.near_limit

    @property
    def waiting(self) -> int:
        """Number of readers that are behind and not blocked by their own socket."""
        return len(self.queue) + len(self.heavy)

    def add(self, feed: Feed, subscription: Subscription) -> None:
        """Queue a subscription that is not live. If its socket blocks, the socket adds it later."""
        if not subscription.queued:
            subscription.queued = True
            subscription.outbox.page_due = True
            self.queue.append((feed, subscription))
            self._wakeup.request()

    def turn(self) -> Reply[None]:
        """Return an awaitable for the turn of a request for a page of history."""
        reply: Reply[None] = Reply()
        self.queue.append(reply)
        self._wakeup.request()
        return reply

    def turn_of_heavy(self) -> Reply[None]:
        """The same, for a heavy user."""
        reply: Reply[None] = Reply()
        self.heavy.append(reply)
        self._wakeup.request()
        return reply

    def erasures(self, log: str) -> Erasures:
        """Return a value that changes whenever entries are erased: what was read before it changed
        must be read again.
        """
        return self._erasures(partition_of(log))

    def gap(self, feed: Feed, reader: Reader, cursor: Cursor) -> GapInfo | None:
        """Return the gap before the first entry of a reader that resumes; None: there is none.

        Where one reader continues, all do that are further in the same epoch, until something is
        erased: of thousands that return at once, the store is asked for one. So a file that cannot
        be read is not noticed here if somebody continued before: who has all entries needs nothing
        of it and gets what follows, and who lacks some is told when its page is read.

        Raises:
            StoreError: the file had to be read, and cannot be.
        """
        erasures = self.erasures(feed.log)  # before reading
        known, seq = feed.continued, cursor.seq
        here = cursor.epoch == feed.epoch and seq <= feed.seq
        if here and known is not None and known[:2] == (erasures, cursor.epoch) and known[2] <= seq:
            return None
        gap = reader.resume(feed.log, cursor, feed.head).gap
        if here and gap is None:
            feed.continued = erasures, cursor.epoch, seq
        return gap

    def run(self) -> None:
        """Serve pages for one slice of time."""
        deadline = self._clock() + SLICE_S
        while self.queue and not self._stalled.near_limit:
            reader = self.queue.popleft()
            if isinstance(reader, Reply):
                reader.resolve(None)
            else:
                self._serve_subscription(*reader)
            if self._clock() >= deadline:
                return

    def run_heavy(self, slice_s: float) -> None:
        """Serve pages to heavy users, for this long."""
        deadline = self._clock() + slice_s
        while self.heavy and not self._stalled.near_limit:
            self.heavy.popleft().resolve(None)
            if self._clock() >= deadline:
                return

    def _serve_subscription(self, feed: Feed, subscription: Subscription) -> None:
        subscription.queued = subscription.outbox.page_due = False
        try:
            self._serve(feed, subscription)
        except StoreCorrupt as error:
            # A reader that reconnects would find the same damage.
            self._damage.report(partition_of(feed.log), error)
            subscription.subscriber.remove(feed.log, Refused(Reason.DAMAGED))
        except Exception as error:
            exit_if_out_of_memory(error)
            # The store cannot be read now, or a damaged entry cannot be unpacked. The client has
            # its cursor: it reconnects and resumes.
            log.exception("catchup_failed", extra={"log": feed.log})
            subscription.subscriber.close(CloseCode.INTERNAL)

    def _serve(self, feed: Feed, subscription: Subscription) -> None:
        if feed.subscriptions.get(subscription.subscriber) is not subscription or subscription.live:
            return
        outbox = subscription.outbox
        if outbox.paused:
            return  # Subscriptions.resume adds it again
        content = b""
        if subscription.seq < feed.seq:
            page = self._page(feed, subscription.seq, feed.seq)
            if page.before > subscription.seq:
                outbox.answer(pack(self._gap(feed, subscription.seq, page.before, page.reason)))
            content = page.content
            if content:
                outbox.put(content)
            subscription.seq = page.last
        if subscription.seq == feed.seq:
            self.enter_live(feed, subscription)
        elif subscription.seq > feed.seq:
            feed.ahead.append(subscription)  # Fanout adds it again when H has moved
        else:
            self.add(feed, subscription)
        if content:
            outbox.flush(self._clock())  # after the last page, LIVE is in the same record

    def enter_live(self, feed: Feed, subscription: Subscription) -> None:
        """Make a subscription whose cursor is the head live, and tell its client."""
        feed.enter_live(subscription)
        self.caught_up += 1
        subscription.outbox.answer(pack(Live(feed.log, feed.epoch, feed.seq)))

    def _gap(self, feed: Feed, after: int, upto: int, reason: GapReason) -> Gap:
        """Return the gap to report for entries that a reader cannot have."""
        self.gaps[reason.name.lower()] += 1
        reader = self._reader_of(feed.log)
        places = (reader.epoch_at(feed.log, after), after, reader.epoch_at(feed.log, upto), upto)
        return Gap(feed.log, *places, int(reason))

    def _page(self, feed: Feed, after: int, upto: int) -> Page:
        """Return the next page.

        An empty page is the end of the log. The seq before the page is greater than ``after`` if
        the entries between were removed, or cannot be read.
        """
        erasures = self.erasures(feed.log)  # before reading
        cached = self.pages.get(feed, after, erasures)
        if cached is not None and (cached.last == upto or (cached.last < upto and not cached.ends)):
            return cached
        if cached is not None and cached.last < upto:
            page = self._grown(feed, cached, upto)
        else:
            page = self._read(feed, after, upto, limits.PAGE_BYTES_MAX)
        if page.content and page.intact:
            self.pages.put(feed, after, page, erasures)
        return page

    def _grown(self, feed: Feed, page: Page, upto: int) -> Page:
        """Return a page that ended with the log, with what has been added to the log."""
        room = limits.PAGE_BYTES_MAX - len(page.content)
        if room > 0:
            more = self._read(feed, page.last, upto, room)
            if more.intact and more.before == page.last and 0 < len(more.content) <= room:
                content = page.content + more.content
                return page._replace(last=more.last, content=content, ends=more.ends)
        return page._replace(ends=False)

    def _read(self, feed: Feed, after: int, upto: int, bytes_max: int) -> Page:
        log = feed.log
        found = self._reader_of(log).read(log, after, upto, bytes_max)
        self.pages_read += 1
        rows = found.rows
        if not rows:
            before = min(upto, max(after, self._reader_of(log).floor(log)))
            return Page(before, upto, b"")
        if bad := self.checked.unreadable(log, feed.epoch, rows, after):
            self._damage.report_log(damage_of(log, bad))
            return _page_around(rows, bad, after, upto if found.end else rows[-1][0])
        first = rows[0][0]
        before = after if first == after + 1 else unpack_entry(rows[0][1]).prev
        content = b"".join([row[1] for row in rows])
        return Page(before, upto if found.end else rows[-1][0], content, ends=found.end)


def _page_around(rows: list[tuple[int, bytes]], bad: set[int], after: int, last: int) -> Page:
    """Return what can be read of a page: the part before its first bad row, or after it.

    Args:
        rows: of the page.
        bad: seqs of those that cannot be read; at least one.
        after: the seq that the reader has.
        last: the seq that it has after all of the page.
    """
    start = next((at for at, (seq, _) in enumerate(rows) if seq not in bad), len(rows))
    end = next((at for at in range(start, len(rows)) if rows[at][0] in bad), len(rows))
    if start:
        before = rows[start - 1][0]
    else:
        before = after if rows[0][0] == after + 1 else unpack_entry(rows[0][1]).prev
    if start == len(rows):
        before = last
    elif end < len(rows):
        last = rows[end - 1][0]
    reason = GapReason.DAMAGED if start else GapReason.RETENTION
    content = b"".join([packed for _, packed in rows[start:end]])
    return Page(before, last, content, reason, intact=False)
