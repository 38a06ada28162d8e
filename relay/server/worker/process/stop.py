"""When a worker must stop, and how fast: a signal, the supervisor's request, or its death."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

from relay.server.worker.process.drain import AT_ONCE, DrainPace

if TYPE_CHECKING:
    from relay.server.settings.live import LiveSettings

ORPHAN_EXIT_S: Final = 1.5
"""Invariant "Nobody outlives the supervisor": stopped within 2 s."""


class Stop:
    """The reasons for this worker to stop."""

    def __init__(self, live: LiveSettings, parent_fd: int) -> None:
        """Create for a worker that runs.

        Args:
            live: the current settings.
            parent_fd: reading end of a pipe that closes when the supervisor dies.
        """
        self._live = live
        self._parent_fd = parent_fd
        self.requested = asyncio.Event()
        self._patience_s: float | None = None
        """How long a fast shutdown may take; None: as in the settings."""
        self._leaving = False
        """True once the supervisor has asked this worker to leave; others continue."""

    def listen(self) -> None:
        """Watch for signals and for the death of the supervisor. Runs in the loop."""
        loop = asyncio.get_running_loop()
        # The supervisor handles INT: a terminal sends it to all processes.
        loop.add_signal_handler(signal.SIGTERM, self.requested.set)
        loop.add_signal_handler(signal.SIGQUIT, self.within, 0.0)
        loop.add_reader(self._parent_fd, self._parent_gone)

    def within(self, seconds: float) -> None:
        """Stop within this time."""
        self._patience_s = seconds
        self.requested.set()

    def leave(self) -> None:
        """Stop: the supervisor needs fewer workers."""
        if not self._leaving:
            self._leaving = True
            self.requested.set()

    def pace(self) -> DrainPace:
        """Return how slowly to stop, as of now."""
        self._live.changed()  # the shutdown of a server may have been accelerated
        server = self._live.current.server
        if self._patience_s is not None:
            return DrainPace(0.0, 0.0, min(self._patience_s, server.graceful_timeout_s))
        if not server.graceful_timeout_s:
            return AT_ONCE
        # No delay is needed if the server itself does not stop.
        delay_s = 0.0 if self._leaving else server.drain_delay_s
        return DrainPace(delay_s, server.drain_spread_s, server.graceful_timeout_s)

    def _parent_gone(self) -> None:
        """The supervisor died: stop, so that neither port nor partitions stay in use.

        Invariant "Nobody outlives the supervisor".
        """
        asyncio.get_running_loop().remove_reader(self._parent_fd)
        self.within(ORPHAN_EXIT_S)
