"""Requests a turn of the worker."""

from __future__ import annotations

from collections.abc import Callable


class Wakeup:
    """Requests one turn at the end of the current loop iteration; repeated calls have no effect."""

    __slots__ = ("_call_soon", "_run", "scheduled")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """Create without a callback; set it with ``bind``.

        Args:
            call_soon: the loop's ``call_soon``: runs a callback in the next iteration.
        """
        self._call_soon = call_soon
        self._run: Callable[[], None] = _nothing
        self.scheduled = False

    def bind(self, run: Callable[[], None]) -> None:
        """Set the function that runs a turn."""
        self._run = run

    def request(self) -> None:
        """Request a turn unless one is already scheduled."""
        if not self.scheduled:
            self.scheduled = True
            self._call_soon(self._run)

    def begun(self) -> None:
        """Note that a turn has taken all requests so far; later requests schedule another turn."""
        self.scheduled = False


def _nothing() -> None:
    """Do nothing: placeholder until ``bind`` is called."""
