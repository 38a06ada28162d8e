"""A rush: a time in which many clients log in, as after a restart or a lost network.

In a rush the worker's time is better used for those who are not back yet than for bringing each
message at once to each of those who are: see ``outbox.Flusher``. Only logins that succeed begin and
continue a rush. Connections that never log in, however many, do not: idle ones are not counted.
"""

from __future__ import annotations

from typing import Final

LOGINS_MIN: Final = 24
"""A login is part of a rush if at least so many more connections may be logging in."""
CALM_S: Final = 2.0
"""A rush ends this long after the last such login. Logins come in bursts, above all where CPU time
is short; if each burst were a rush of its own, those of the one before would be set aside no more.
"""


class Rush:
    """Whether there is one, and which clients came in it."""

    def __init__(self) -> None:
        self.number = 0
        """Of the latest rush; 0: there was none."""
        self.until = float("-inf")
        """When it ends. The hot path reads this directly."""

    def logged_in(self, now: float, others: int) -> int:
        """Return the number of the rush that a login belongs to; 0 if it belongs to none.

        ``others``: how many connections may be logging in (``Admission.logging_in``).
        """
        if others >= LOGINS_MIN:
            if now >= self.until:
                self.number += 1
            self.until = now + CALM_S
        return self.number if now < self.until else 0
