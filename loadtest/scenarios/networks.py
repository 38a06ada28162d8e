"""Users with a bad network or a slow machine."""

from __future__ import annotations

import time
from typing import Final

from loadtest.scenarios.steady import Steady
from loadtest.socket_watch import WatchedSocket
from loadtest.swarm import SWARM

CUT_ANSWER: Final = 0.2
"""Of a flaky user's messages: the connection breaks while the acknowledgement is under way."""
HANDSHAKE_BYTES: Final = 4000
"""A first connection that fails is a person's affair, not the library's: it is left whole."""
ANSWER_BYTES: Final = 120
"""About what comes back for a message."""


class ReconnectStorm(Steady):
    """All users of all processes lose their connections at the same moment, and return."""

    def begin(self) -> None:
        """Join, and find out when the first storm is."""
        super().begin()
        self.storm = self._next_storm()
        self.speak_at = self.user.due
        self._plan()

    def _next_storm(self) -> float:
        """All processes of a machine have one monotonic clock, so they agree on the moment."""
        every = self.parameters.storm_every
        return (time.monotonic() // every + 1) * every

    def turn(self) -> None:
        """Send, or lose the connection."""
        if self.user.due == self.storm:
            self.user.cut()
            self.storm = self._next_storm()
        else:
            super().turn()
            self.speak_at = self.user.due
        self._plan()

    def _plan(self) -> None:
        self.user.due = min(self.speak_at, self.storm)


class SlowReaders(Steady):
    """Some users read only so many bytes a second; the others must not notice."""

    def prepare(self) -> None:
        """Slow some users down."""
        super().prepare()
        told = self.parameters
        if self.user.random.random() < told.slow:
            self.writes = False
            self.user.timed = False
            self.user.network = self.network(bytes_per_s=told.slow_bytes)


class FlakyNetwork(Steady):
    """Connections break after some bytes, in the middle of a frame, in both directions."""

    def dialled(self, watched: WatchedSocket) -> None:
        """Give each connection a length of its own."""
        chance = self.user.random
        watched.cut_after = HANDSHAKE_BYTES + int(
            chance.expovariate(1.0 / self.parameters.cut_after)
        )
        SWARM.here.counts["connections cut by users"] += 1

    def turn(self) -> None:
        """Send; sometimes the acknowledgement is lost."""
        chance, watched = self.user.random, self.user.socket
        if self.writes and watched is not None and chance.random() < CUT_ANSWER:
            watched.cut_answer_after = chance.randrange(ANSWER_BYTES)
        super().turn()
