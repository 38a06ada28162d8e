"""Requests a turn of the worker: now, or at a later time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, final

FAR: Final = float("inf")
TIMER_S: Final = 0.001
"""Resolution of the loop's timers."""


class Loop(Protocol):
    """The part of an event loop that the alarm uses."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        """Call after a number of seconds."""


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
        """True while a turn is due. The turn sets it to False once it has taken all requests so
        far: later ones are for another turn."""

    def bind(self, run: Callable[[], None]) -> None:
        """Set the function that runs a turn."""
        self._run = run

    def request(self) -> None:
        """Request a turn unless one is already scheduled."""
        if not self.scheduled:
            self.scheduled = True
            self._call_soon(self._run)


@final
class Alarm:
    """Requests a turn at the earliest of the times that it was set for."""

    __slots__ = ("_clock", "_due_at", "_loop", "_wakeup")

    def __init__(self, loop: Loop, clock: Callable[[], float], wakeup: Wakeup) -> None:
        self._loop = loop
        self._clock = clock
        self._wakeup = wakeup
        self._due_at = FAR

    def set(self, when: float) -> None:
        """Request a turn at this time of the clock, or at an earlier one that was set before."""
        if when < self._due_at:
            self._due_at = when
            self._loop.call_later(timer_s(when - self._clock()), self._rung)

    def _rung(self) -> None:
        self._due_at = FAR
        self._wakeup.request()


def timer_s(left_s: float) -> float:
    """Return the delay of a timer for something that is due in this many seconds.

    The loop rounds to whole ms. Rounded down to zero, the timer would fire again and again until it
    is due, and a pause would consume the whole CPU.
    """
    return max(left_s + TIMER_S / 2, TIMER_S)


def _nothing() -> None:
    """Do nothing: placeholder until ``bind`` is called."""
