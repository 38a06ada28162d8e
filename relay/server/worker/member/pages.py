"""Pages of logs that are kept for the next reader at the same position.

When all members of a room reconnect, they have the same cursor, and read what all have missed.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple, Protocol

from relay import limits
from relay.chat.entries import GapReason

COUNT_MAX: Final = 1024
BYTES_MAX: Final = 64 * limits.PAGE_BYTES_MAX


class Feed(Protocol):
    """A log as this worker follows it, from the first of its clients to the last."""

    @property
    def log(self) -> str:
        """Name of the log."""


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


class Pages:
    """The kept pages of a worker.

    They are valid while this worker follows the log and is told of erasures.
    """

    def __init__(self) -> None:
        self._feeds: OrderedDict[Feed, dict[int, Page]] = OrderedDict()
        """By the seq that the reader has, the oldest first. The last used feed is the last."""
        self.count = 0
        self.bytes = 0
        """Total size of their contents."""

    def get(self, feed: Feed, after: int) -> Page | None:
        """Return the page for a reader that has ``after``."""
        pages = self._feeds.get(feed)
        if pages is None:
            return None
        self._feeds.move_to_end(feed)
        return pages.get(after)

    def put(self, feed: Feed, after: int, page: Page) -> None:
        """Keep a page, in place of an earlier one for the same reader."""
        pages = self._feeds.setdefault(feed, {})
        self._feeds.move_to_end(feed)
        self._pop(pages, after)
        pages[after] = page
        self.count += 1
        self.bytes += len(page.content)
        while self.count > COUNT_MAX or self.bytes > BYTES_MAX:
            oldest = next(iter(self._feeds))
            pages = self._feeds[oldest]
            self._pop(pages, next(iter(pages)))
            if not pages:
                del self._feeds[oldest]

    def forget(self, log: str | None) -> None:
        """Drop the pages of a log; None: of all logs."""
        for feed in [feed for feed in self._feeds if log in (None, feed.log)]:
            self.drop(feed)

    def drop(self, feed: Feed) -> None:
        """Drop the pages of a feed."""
        for page in self._feeds.pop(feed, {}).values():
            self._less(page)

    def _pop(self, pages: dict[int, Page], after: int) -> None:
        page = pages.pop(after, None)
        if page is not None:
            self._less(page)

    def _less(self, page: Page) -> None:
        self.count -= 1
        self.bytes -= len(page.content)
