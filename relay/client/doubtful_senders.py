"""Senders with keys that are not proved, and how long their events wait for that. No I/O.

Events are taken in their order, so one that waits holds all that came behind it, of whichever room.
So none waits for longer than ``HELD_S``, whatever the server answers and whatever time the program
gives its own requests: then it is shown as unverified, and its sender is looked at later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

HELD_S: Final = 30.0
"""As long as an answer may take."""


class Sender:
    """Somebody with keys that are not proved."""

    __slots__ = ("again", "doubt", "keys", "warned")

    def __init__(self) -> None:
        """Begin with none."""
        self.keys: dict[bytes, str] = {}
        """Key ids that are not proved, and a room where each was seen."""
        self.doubt = ""
        """What is wrong with the whole of it; empty: nothing, or it is not known yet."""
        self.again = 0.0
        """A message from then on has the chain asked for again."""
        self.warned: set[str] = set()
        """Rooms in which the application was told of this doubt."""


class HeldSenders:
    """Those whose events wait, and since when."""

    __slots__ = ("_anew", "_since")

    def __init__(self) -> None:
        """Begin with nobody."""
        self._since: dict[str, float] = {}
        """In the order of time."""
        self._anew: dict[str, None] = {}
        """Those whose time begins with the next question."""

    @property
    def deadline(self) -> float | None:
        """When somebody's events have waited for long enough."""
        return next((since + HELD_S for since in self._since.values()), None)

    def add(self, name: str, now: float) -> None:
        """Events of a sender wait from now on, if they do not already."""
        self._since.setdefault(name, now)

    def add_anew(self, names: Iterable[str]) -> None:
        """Likewise of several, from the next question on."""
        self._anew = dict.fromkeys(names)

    def asking(self, now: float) -> None:
        """Questions are sent."""
        for name in self._anew:
            self.add(name, now)
        self._anew.clear()

    def over(self, name: str) -> None:
        """Nothing of a sender waits any more."""
        self._since.pop(name, None)
        self._anew.pop(name, None)

    def clear(self) -> None:
        """Nothing waits any more."""
        self._since.clear()
        self._anew.clear()

    def due(self, now: float) -> list[str]:
        """Return the senders whose events have waited for long enough."""
        return [name for name, since in self._since.items() if since + HELD_S <= now]
