"""A wall clock that is never adjusted while the process runs."""

from __future__ import annotations

from collections.abc import Callable


class SteadyClock:
    """Expiry times are neither early nor late when somebody sets the machine's clock."""

    def __init__(self, wall_ns: Callable[[], int], monotonic_ns: Callable[[], int]) -> None:
        """Read the time of day once.

        Args:
            wall_ns: nanoseconds since 1970.
            monotonic_ns: monotonic nanoseconds.
        """
        self._began_ns = wall_ns() - monotonic_ns()
        self._monotonic_ns = monotonic_ns

    def now_ms(self) -> int:
        """Return milliseconds since 1970."""
        return (self._began_ns + self._monotonic_ns()) // 1_000_000
