"""Pages of logs that are kept for the next reader at the same position.

When all members of a room reconnect, they have the same cursor, and read what all have missed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, NamedTuple, TypeAlias

from relay import limits
from relay.chat.entries import GapReason
from relay.server.scoreboard import Erasures

COUNT_MAX: Final = 1024
BYTES_MAX: Final = 64 * limits.PAGE_BYTES_MAX
Feed: TypeAlias = Hashable
"""A log as this worker follows it, from the first of its clients to the last."""


class Page(NamedTuple):
    """Packed entries for a reader."""

    before: int
    """Seq before them."""
    last: int
    content: bytes
    reason: GapReason = GapReason.RETENTION
    """Why the seq before it is not the one that the reader has."""
    ends: bool = False
    """True if the log ended here. What is added to the log later can be added to the page."""
    intact: bool = True
    """False if an entry cannot be read. Such a page is not kept."""


class _Kept(NamedTuple):
    """The pages of a feed, by the seq that the reader has, the oldest first."""

    erasures: Erasures
    """In the log's partition, before the first of them was read."""
    pages: dict[int, Page]


class Pages:
    """The kept pages of a worker: until something is erased in their partition."""

    def __init__(self) -> None:
        self._feeds: OrderedDict[Feed, _Kept] = OrderedDict()
        """The last used feed is the last."""
        self.count = 0
        self.bytes = 0
        """Total size of their contents."""

    def get(self, feed: Feed, after: int, erasures: Erasures) -> Page | None:
        """Return the page for a reader that has ``after``. ``erasures``: until now."""
        kept = self._feeds.get(feed)
        if kept is None:
            return None
        if kept.erasures != erasures:
            self.drop(feed)
            return None
        self._feeds.move_to_end(feed)
        return kept.pages.get(after)

    def put(self, feed: Feed, after: int, page: Page, erasures: Erasures) -> None:
        """Keep a page, in place of an earlier one for the same reader.

        ``erasures``: before the page was read; those of ``get``, which was asked for it.
        """
        kept = self._feeds.setdefault(feed, _Kept(erasures, {}))
        assert kept.erasures == erasures, "get has dropped what was read before"
        pages = kept.pages
        self._feeds.move_to_end(feed)
        self._pop(pages, after)
        pages[after] = page
        self.count += 1
        self.bytes += len(page.content)
        while self.count > COUNT_MAX or self.bytes > BYTES_MAX:
            oldest = next(iter(self._feeds))
            pages = self._feeds[oldest].pages
            self._pop(pages, next(iter(pages)))
            if not pages:
                del self._feeds[oldest]

    def drop(self, feed: Feed) -> None:
        """Drop the pages of a feed."""
        kept = self._feeds.pop(feed, None)
        if kept is not None:
            for page in kept.pages.values():
                self._less(page)

    def _pop(self, pages: dict[int, Page], after: int) -> None:
        page = pages.pop(after, None)
        if page is not None:
            self._less(page)

    def _less(self, page: Page) -> None:
        self.count -= 1
        self.bytes -= len(page.content)
