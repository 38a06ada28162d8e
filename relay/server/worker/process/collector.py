"""Tunes the garbage collector of a worker: long-lived objects are not scanned again and again.

Nothing on the data path makes reference cycles, and ended sessions need no collector (with it off,
a connection that came and went left less than 1 KiB, most of it its producer's row in a cache), so
collections only cost. A full one walks every live session: 50 ms with some 10,000 of them. So what
lives is frozen from time to time: moved to where collections do not look (``gc.freeze``). It is
still freed when its last reference goes.
"""

from __future__ import annotations

import gc
from typing import Final

THRESHOLDS: Final = (5_000, 2, 10_000)
"""Objects that have become more between collections of the first generation, and how many of one
generation there are before one of the next. The first two are walked in less than a millisecond
each, which matters where many operations wait; the third, every live session, in tens of them, and
hardly ever. Python's own 700 and 10 have that walked again and again."""
ADMITTED_BETWEEN: Final = 500
"""Connections whose objects may be walked: some milliseconds."""


class Collector:
    """When to freeze. Steers the interpreter's only collector."""

    def __init__(self) -> None:
        self._seen = self._frozen_at = 0

    def start(self) -> None:
        """Freeze what the imports and the start have made."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)

    def look(self, admitted: int) -> None:
        """Freeze what lives, if many connections have come since, or some and now no more.

        What has become garbage since the last time is collected first: frozen, it would stay for
        ever.

        Args:
            admitted: connections that were accepted since the start of the worker.
        """
        settled = admitted == self._seen
        self._seen = admitted
        since = admitted - self._frozen_at
        if since >= ADMITTED_BETWEEN or (since and settled):
            gc.collect(1)
            gc.freeze()
            self._frozen_at = admitted
