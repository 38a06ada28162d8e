"""Asking for a turn of the worker."""

from __future__ import annotations

from collections.abc import Callable


class Wakeup:
    """Requests one turn at the end of this iteration of the loop, however often it is called."""

    __slots__ = ("_call_soon", "_run", "scheduled")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """Begin without a turn to run: ``bind`` names it.

        Args:
            call_soon: the loop's; runs a callback in the next iteration.
        """
        self._call_soon = call_soon
        self._run: Callable[[], None] = _nothing
        self.scheduled = False

    def bind(self, run: Callable[[], None]) -> None:
        """Name what a turn is."""
        self._run = run

    def request(self) -> None:
        """Have a turn, if none is due already."""
        if not self.scheduled:
            self.scheduled = True
            self._call_soon(self._run)

    def begun(self) -> None:
        """The turn has taken everything that was requested so far: the next request is another."""
        self.scheduled = False


def _nothing() -> None:
    """Before the worker is built, there is no turn."""
