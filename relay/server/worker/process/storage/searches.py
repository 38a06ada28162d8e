"""Searches the indexes in a thread, one search at a time, without blocking the loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from relay.chat.partition import partition_of
from relay.server.system.threads import started_pool
from relay.server.worker.member.reply import Reply
from relay.server.worker.out_of_memory import exit_if_out_of_memory
from relay.store.errors import StoreError
from relay.store.search.finder import Finder, Found

OPEN_MAX: Final = 4
"""Number of indexes kept open: those used last."""
WAITING_MAX: Final = 32
"""Searches that may wait: at 25 ms each, the last one waits for less than a second."""
log = logging.getLogger("relay.worker")


class Searches:
    """Runs the searches of a worker."""

    def __init__(
        self,
        path_of: Callable[[int], Path],
        loop: asyncio.AbstractEventLoop,
        observe_ns: Callable[[int], None],
        *,
        on: bool,
    ) -> None:
        """Create with no index open.

        Args:
            path_of: returns the index of a partition.
            loop: of the worker.
            observe_ns: called with the duration of each search, including the time it waited.
            on: whether there are indexes.
        """
        self.on = on
        self._path_of = path_of
        self._loop = loop
        self._observe_ns = observe_ns
        self._thread = started_pool(1, "relay-search")
        self._finders: dict[int, Finder] = {}
        """Used by the thread only."""
        self._waiting = 0

    def find(
        self, log: str, match: str, after: int, before: int, count: int
    ) -> Reply[Found | None] | None:
        """See ``services.Searching``."""
        if self._waiting >= WAITING_MAX:
            return None
        reply: Reply[Found | None] = Reply()
        began_ns = time.monotonic_ns()

        def work() -> Found | None:
            if reply.abandoned:
                return None
            return self._find(log, match, after, before, count)

        def ended(future: asyncio.Future[Found | None]) -> None:
            self._waiting -= 1
            self._observe_ns(time.monotonic_ns() - began_ns)
            reply.resolve(None if future.cancelled() else future.result())

        self._waiting += 1
        self._loop.run_in_executor(self._thread, work).add_done_callback(ended)
        return reply

    def _find(self, log_name: str, match: str, after: int, before: int, count: int) -> Found | None:
        index = partition_of(log_name)
        finder = self._finders.pop(index, None) or Finder(self._path_of(index))
        self._finders[index] = finder  # now the most recently used
        if len(self._finders) > OPEN_MAX:
            self._finders.pop(next(iter(self._finders))).close()
        try:
            return finder.find(log_name, match, after, before, count)
        except StoreError as error:
            log.warning("search_failed", extra={"partition": index, "reason": str(error)})
        except Exception as bug:
            exit_if_out_of_memory(bug)
            log.exception("search_failed")
        return None

    def close(self) -> None:
        """Wait for the running search, and close the indexes."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        for finder in self._finders.values():
            finder.close()
