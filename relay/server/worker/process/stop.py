"""When a worker has to stop, and how fast: by signal, the supervisor's request, or its death."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

from relay.server.worker.process.drain import AT_ONCE, Pace

if TYPE_CHECKING:
    from relay.server.live_settings import LiveSettings

ORPHAN_EXIT_S: Final = 1.5
"""Invariant "Nobody outlives the supervisor": gone within 2 s."""


class Stop:
    """See the module's docstring."""

    def __init__(self, live: LiveSettings, parent_fd: int) -> None:
        """Begin with a worker that goes on.

        Args:
            live: the settings, as they are now.
            parent_fd: reading end of a pipe that closes when the supervisor dies.
        """
        self._live = live
        self._parent_fd = parent_fd
        self.requested = asyncio.Event()
        self._patience_s: float | None = None
        """How long the end may take, in a hurry; None: as in the settings."""
        self._leaving = False
        """True once the supervisor has asked this worker to leave; others go on."""

    def listen(self) -> None:
        """Take signals, and notice the supervisor's end. Runs in the loop."""
        loop = asyncio.get_running_loop()
        # INT is the supervisor's to handle: a terminal sends it to all.
        loop.add_signal_handler(signal.SIGTERM, self.requested.set)
        loop.add_signal_handler(signal.SIGQUIT, self.within, 0.0)
        loop.add_reader(self._parent_fd, self._parent_gone)

    def within(self, seconds: float) -> None:
        """End, and take no longer than this."""
        self._patience_s = seconds
        self.requested.set()

    def leave(self) -> None:
        """End: the supervisor needs fewer workers."""
        if not self._leaving:
            self._leaving = True
            self.requested.set()

    def pace(self) -> Pace:
        """Return how gently to end, as of now."""
        self._live.changed()  # the end of a server may have become a quicker one
        server = self._live.current.server
        if self._patience_s is not None:
            return Pace(0.0, 0.0, min(self._patience_s, server.graceful_timeout_s))
        if not server.graceful_timeout_s:
            return AT_ONCE
        # Nobody has to be told that the server stops if it does not.
        delay_s = 0.0 if self._leaving else server.drain_delay_s
        return Pace(delay_s, server.drain_spread_s, server.graceful_timeout_s)

    def _parent_gone(self) -> None:
        """Invariant "Nobody outlives the supervisor": the supervisor died; leave so that neither
        port nor partition stays held.
        """
        asyncio.get_running_loop().remove_reader(self._parent_fd)
        self.within(ORPHAN_EXIT_S)
