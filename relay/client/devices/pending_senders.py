"""Senders with unproved keys, and how long their events are held for the proof. No I/O.

Events are delivered in order, so a held event holds all later ones, of every room. None is held for
longer than ``VERIFY_S_MAX``, whatever the server answers and whatever timeout the program has for
its own requests: then it is delivered as unverified, and its sender is checked later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

VERIFY_S_MAX: Final = 30.0
"""As long as an answer to a request may take."""


class Sender:
    """A sender with unproved keys."""

    __slots__ = ("again", "doubt", "keys", "warned")

    def __init__(self) -> None:
        """Create without keys."""
        self.keys: dict[bytes, str] = {}
        """Unproved key ids, each with a room where it was seen."""
        self.doubt = ""
        """Why the sender's chain is doubtful; empty: it is not, or is not known yet."""
        self.again = 0.0
        """From then on, a message causes another request for the chain."""
        self.warned: set[str] = set()
        """Rooms in which the application has been warned."""


class PendingSenders:
    """The senders whose events are held, and since when."""

    __slots__ = ("_at_next_request", "_since")

    def __init__(self) -> None:
        """Create without senders."""
        self._since: dict[str, float] = {}
        """In order of time."""
        self._at_next_request: dict[str, None] = {}
        """Senders whose time starts with the next request."""

    @property
    def deadline(self) -> float | None:
        """When the first of them have been held for long enough."""
        return next((since + VERIFY_S_MAX for since in self._since.values()), None)

    def add(self, name: str, now: float) -> None:
        """Hold the events of a sender from now on, unless they are held already."""
        self._since.setdefault(name, now)

    def add_at_next_request(self, names: Iterable[str]) -> None:
        """Hold those of several senders from the next request on."""
        self._at_next_request = dict.fromkeys(names)

    def requests_sent(self, now: float) -> None:
        """Start the time of those that waited for this: requests are sent."""
        for name in self._at_next_request:
            self.add(name, now)
        self._at_next_request.clear()

    def remove(self, name: str) -> None:
        """Stop holding the events of a sender."""
        self._since.pop(name, None)
        self._at_next_request.pop(name, None)

    def clear(self) -> None:
        """Stop holding events."""
        self._since.clear()
        self._at_next_request.clear()

    def due(self, now: float) -> list[str]:
        """Return the senders whose events have been held for long enough."""
        return [name for name, since in self._since.items() if since + VERIFY_S_MAX <= now]
