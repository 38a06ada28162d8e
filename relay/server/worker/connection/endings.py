"""The most recently closed connections of a worker and the reasons, for diagnosis."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from relay.server.worker.connection.counts import count_end

if TYPE_CHECKING:
    from relay.server.metrics import Closed
    from relay.server.worker.connection.counts import Counts

RECENT: Final = 200
"""Number of closed connections that a worker remembers."""


class Ending(NamedTuple):
    """How a connection ended that had completed its handshake."""

    time: float
    """Seconds since 1970."""
    id: str
    name: str
    """Empty if it had not logged in."""
    peer: str
    reason: str
    lasted_s: float
    detail: str
    """Our description; may be empty."""


class Endings:
    """The most recently closed connections of a worker."""

    def __init__(self, counts: Counts, wall_clock_ns: Callable[[], int]) -> None:
        self._counts = counts
        self._wall_clock_ns = wall_clock_ns
        self.recent: Final[deque[Ending]] = deque(maxlen=RECENT)
        """In order of time, the latest one last."""

    def add(
        self,
        id_: str,
        name: str,
        peer: str,
        code: Closed | int | None,
        lasted_s: float,
        detail: str,
    ) -> None:
        """Count and remember a closed connection; drop the oldest. ``code``: see ``count_end``."""
        reason = count_end(self._counts, code)
        now = self._wall_clock_ns() / 1e9
        self.recent.append(Ending(now, id_, name, peer, reason, round(lasted_s, 1), detail))
