"""Reads entries that a feed missed on the bus from the store, and distributes them.

Invariant "No silent tail".
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.chat.partition import partition_of
from relay.server.worker.out_of_memory import exit_if_out_of_memory
from relay.store.errors import LogDamaged, StoreCorrupt, StoreError

if TYPE_CHECKING:
    from relay.server.worker.member.damage import DamageReports
    from relay.server.worker.member.feed import Feeds
    from relay.store.log import Reader

SLICE_S: Final = 0.005
RETRY_S: Final = 0.1
"""Delay before reading again from a store that cannot be read now."""
log = logging.getLogger("relay.worker")


class Repair:
    """Repairs the feeds of a worker that miss entries, in turn."""

    def __init__(
        self,
        feeds: Feeds,
        reader_of: Callable[[str], Reader],
        clock: Callable[[], float],
        damage: DamageReports,
    ) -> None:
        self._feeds = feeds
        self._reader_of = reader_of
        self._clock = clock
        self._damage = damage
        self.repaired = 0

    def run(self) -> bool:
        """Read pages for a slice of time.

        Returns:
            True while there is more to read at once; False when everything is read, or when the
            store failed and a retry after ``RETRY_S`` is due (``Feeds.to_repair`` is then not
            empty).
        """
        feeds = self._feeds
        deadline = self._clock() + SLICE_S
        for feed in list(feeds.to_repair):
            if self._clock() >= deadline:
                break
            del feeds.to_repair[feed]  # moved to the end of the queue, if it needs another page
            try:
                if feed.repair(self._reader_of(feed.log), limits.PAGE_BYTES_MAX):
                    feeds.to_distribute[feed] = None
                if feed.torn:
                    feed.repair_to = 0
                    log.warning("feed_torn", extra={"log": feed.log})
                    feed.fail("its log was removed meanwhile")
                    continue
            except StoreCorrupt as error:
                self._damage.report(partition_of(feed.log), error)  # its home ends the feed
                continue
            except LogDamaged as error:
                self._damage.report_log(error)
                feed.repair_to = 0
                feed.fail()
                continue
            except StoreError as error:
                feeds.to_repair[feed] = None
                log.warning("repair_failed", extra={"log": feed.log, "reason": str(error)})
                return False
            except Exception as bug:
                exit_if_out_of_memory(bug)
                log.exception("fan_out_failed", extra={"log": feed.log})
                feed.repair_to = 0
                feed.fail()
                continue
            if feed.repair_to:
                feeds.to_repair[feed] = None
            else:
                self.repaired += 1
                if feed.events:  # they have waited for this
                    feeds.to_distribute[feed] = None
        return bool(feeds.to_repair)
