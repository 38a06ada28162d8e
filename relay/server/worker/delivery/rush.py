"""A rush: a time in which many clients log in, as after a restart or a lost network.

In a rush the worker's time is better used for those who are not back yet than for bringing each
message at once to each of those who are: see ``outbox.Flusher``. Only logins that succeed begin and
continue a rush. Connections that never log in, however many, do not.
"""

from __future__ import annotations

from typing import Final

LOGINS_MIN: Final = 24
"""A login is part of a rush if at least so many more connections are not logged in."""
CALM_S: Final = 2.0
"""A rush ends this long after the last such login. Logins come in bursts, above all where CPU time
is short; if each burst were a rush of its own, those of the one before would be set aside no more.
"""


class Rush:
    """Whether there is one, and which clients came in it."""

    def __init__(self) -> None:
        self._number = 0
        self._until = float("-inf")

    def current(self, now: float) -> int:
        """Return the number of the rush; 0 if there is none."""
        return self._number if now < self._until else 0

    def logged_in(self, now: float, others: int) -> int:
        """Return the number of the rush that a login belongs to; 0 if it belongs to none.

        ``others``: how many connections are not logged in.
        """
        if others >= LOGINS_MIN:
            if now >= self._until:
                self._number += 1
            self._until = now + CALM_S
        return self.current(now)
