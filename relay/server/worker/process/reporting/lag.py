"""Measures how far a worker is behind with work that others wait for, off the data path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.bus.link import Link
    from relay.server.worker.home.committing.writer import Writer


class Lag:
    """Ages, in nanoseconds, as of the last ``sample``; 0 while nothing is late."""

    def __init__(
        self, writer: Writer, links: Mapping[int, Link], clock_ns: Callable[[], int]
    ) -> None:
        """Create with all ages 0.

        Args:
            writer: of this worker.
            links: to the other workers.
            clock_ns: monotonic.
        """
        self._writer = writer
        self._links = links
        self._clock_ns = clock_ns
        self.commit_ns = 0
        """How long messages have waited without any commit."""
        self.bus_ns = 0
        """How long another worker has been accepting less than it is sent."""
        self._committed = -1
        self._waits_since_ns: int | None = None
        """None: nothing waits."""
        self._congested_since_ns: int | None = None

    def sample(self) -> None:
        """Update. Called several times a second."""
        now = self._clock_ns()
        writer = self._writer
        committed = writer.publishing.accepted + writer.publishing.repeated
        if not writer.busy:
            self._waits_since_ns = None
        elif self._waits_since_ns is None or committed != self._committed:
            self._waits_since_ns = now
        self._committed = committed
        if not any(link.congested for link in self._links.values()):
            self._congested_since_ns = None
        elif self._congested_since_ns is None:
            self._congested_since_ns = now
        self.commit_ns = 0 if self._waits_since_ns is None else now - self._waits_since_ns
        self.bus_ns = 0 if self._congested_since_ns is None else now - self._congested_since_ns
