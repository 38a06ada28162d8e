"""A stopped clock, for tests of rates: however slow the machine is, no time passes."""

from __future__ import annotations

import time


class StandingClock:
    """Monotonic seconds, as a worker's ``clock``: always the same, until it is told to go on."""

    def __init__(self) -> None:
        """Stand at this moment."""
        self._at = time.monotonic()
        self._begun: float | None = None

    def __call__(self) -> float:
        """Return its time."""
        return self._at + (0.0 if self._begun is None else time.monotonic() - self._begun)

    def stand(self) -> None:
        """Stand, where it has gone to."""
        self._at, self._begun = self(), None

    def forward(self, seconds: float) -> None:
        """Stand so much later."""
        self._at += seconds

    def resume(self) -> None:
        """Go, from where it stands."""
        self._begun = time.monotonic()
