"""Connections that do not take what is written to them: counted, bounded, and ended in the end.

Rule 4: a transport that the kernel takes nothing from holds sealed bytes that cannot be taken back.
Each connection's are bounded by a record; all of a worker's by ``BUDGET_BYTES``: before that,
catching up waits; above it, those that have been stuck longest are closed. They resume from their
cursors.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.wire.codes import CloseCode

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session

BUDGET_BYTES: Final = 64 * 1024 * 1024
CROWDED_BYTES: Final = BUDGET_BYTES * 3 // 4
CROWDED_TIMEOUT_S: Final = 5.0
"""How long readers that take nothing may keep the others from catching up."""
PROGRESS_BYTES_MIN: Final = 4096
"""What counts as taking something: a byte now and then does not."""
NAMED_MAX: Final = 20
"""Slow readers named in one line of the log."""
log = logging.getLogger("relay.worker")


class Pressure:
    """The stuck transports of one worker, longest stuck first."""

    def __init__(self, clock: Callable[[], float], timeout_s: float) -> None:
        """Begin.

        Args:
            clock: monotonic seconds.
            timeout_s: a connection that takes nothing for so long is closed with TOO_SLOW.
        """
        self._clock = clock
        self._timeout_s = timeout_s
        self._stuck: OrderedDict[Session, tuple[float, int]] = OrderedDict()
        """When it last took something, and how many bytes it had waiting then."""
        self._behind: dict[str, int] = {}
        """Names that fell behind since it was last said, and how often."""
        self._leaving: dict[Session, int] = {}
        """Closed here; they hold their bytes until these have left or the time for that is up."""
        self.bytes = 0
        """Of all of them, those that leave too."""
        self.fell_behind = 0
        self.too_slow = 0

    @property
    def crowded(self) -> bool:
        """True when readers that are behind must wait for others to take their bytes."""
        return self.bytes > CROWDED_BYTES

    def add(self, session: Session) -> None:
        """The kernel takes no more of a connection, and its transport holds the rest."""
        size = session.buffered
        self._stuck[session] = (self._clock(), size)
        self.bytes += size

    def remove(self, session: Session) -> None:
        """It holds nothing any more, or is gone."""
        found = self._stuck.pop(session, None)
        self.bytes -= self._leaving.pop(session, 0) if found is None else found[1]

    def behind(self, name: str) -> None:
        """A reader has left live because it takes less than its logs bring."""
        self.fell_behind += 1
        self._behind[name] = self._behind.get(name, 0) + 1

    def sweep(self, now: float) -> None:
        """Close who takes nothing; say who is slow. Called about once a second."""
        timeout_s = min(self._timeout_s, CROWDED_TIMEOUT_S) if self.crowded else self._timeout_s
        for session, (since, size) in list(self._stuck.items()):
            left = session.buffered
            if size - left >= PROGRESS_BYTES_MIN:
                self._stuck[session] = (now, left)
                self._stuck.move_to_end(session)
                self.bytes -= size - left
            elif now - since >= timeout_s:
                self._close(session, "took nothing for too long")
        excess = sum([size for _, size in self._stuck.values()]) - BUDGET_BYTES
        while excess > 0:
            session, (_, size) = next(iter(self._stuck.items()))
            excess -= size
            self._close(session, "too many bytes wait in this worker")
        if self._behind:
            named = sorted(self._behind, key=lambda name: -self._behind[name])
            log.warning(
                "readers_fell_behind",
                extra={
                    "readers": {name: self._behind[name] for name in named[:NAMED_MAX]},
                    "total": len(named),
                },
            )
            self._behind.clear()

    def _close(self, session: Session, why: str) -> None:
        self.too_slow += 1
        log.warning("reader_too_slow", extra={"reader": session.name, "peer": session.peer})
        # Its bytes count until connection_lost: or those who wait would take their place too soon.
        _, self._leaving[session] = self._stuck.pop(session)
        session.close(CloseCode.TOO_SLOW, detail=why)
