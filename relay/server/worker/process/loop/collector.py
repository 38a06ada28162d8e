"""Tunes a worker's garbage collector so that long-lived objects are not scanned repeatedly.

Nothing on the data path creates reference cycles, and ended sessions need no collector (with it
off, a connection that came and left kept less than 1 KiB, mostly its producer's row in a cache), so
collections are pure cost. A full one walks every live session: 50 ms with about 10,000 of them. So
live objects are frozen from time to time: moved to where collections do not look (``gc.freeze``).
They are still freed with their last reference.
"""

from __future__ import annotations

import gc
from typing import Final

THRESHOLDS: Final = (1_000, 2, 50_000)
"""New objects between collections of the first generation, and collections of one generation
between those of the next. Those of the first two are walked in about a millisecond; when it was
five times as many and many operations waited, a collection took 4 to 20. The third generation, with
every live session, takes tens of milliseconds and is hardly ever walked. With Python's own 700 and
10 it is walked again and again."""
WALKED_MAX: Final = THRESHOLDS[0] * (THRESHOLDS[1] + 2)
"""Objects of the first two generations, and of those created since."""
ADMITTED_BETWEEN: Final = 500
"""Connections whose objects may be walked: a few milliseconds."""


class Collector:
    """Decides when to freeze. Controls the interpreter's only collector."""

    def __init__(self) -> None:
        self._seen = self._frozen_at = 0

    def start(self) -> None:
        """Freeze what the imports and the start have created."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)

    def look(self, admitted: int) -> None:
        """Freeze live objects after many new connections, or after the last of some.

        Garbage is collected first: frozen, it would stay for ever.

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
