"""The last connections of a worker that ended, and why, for diagnosis."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from relay.server.worker.connection.counts import count_end

if TYPE_CHECKING:
    from relay.server.metrics import Closed
    from relay.server.worker.connection.counts import Counts

RECENT: Final = 200
"""Ends that a worker remembers, for who looks into what happened."""


class Ending(NamedTuple):
    """How a connection ended that had completed its handshake."""

    time: float
    """Seconds since 1970."""
    id: str
    name: str
    """Empty: it had not logged in."""
    peer: str
    reason: str
    lasted_s: float
    detail: str
    """In our words; may be empty."""


class Endings:
    """The last ends of connections of a worker."""

    def __init__(self, counts: Counts, wall_clock_ns: Callable[[], int]) -> None:
        self._counts = counts
        self._wall_clock_ns = wall_clock_ns
        self.recent: Final[deque[Ending]] = deque(maxlen=RECENT)
        """The last one is the latest."""

    def add(
        self,
        id_: str,
        name: str,
        peer: str,
        code: Closed | int | None,
        lasted_s: float,
        detail: str,
    ) -> None:
        """Count an end and remember it, and forget the oldest one. ``code``: see ``count_end``."""
        reason = count_end(self._counts, code)
        now = self._wall_clock_ns() / 1e9
        self.recent.append(Ending(now, id_, name, peer, reason, round(lasted_s, 1), detail))
