"""Tracks which invitations to rooms a user has been notified of. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from relay.client.events import Invited, State, StateChanged
from relay.client.room_calls import ListedRoom
from relay.terminal.room_notices import invited_notice
from relay.terminal.text import harmless_name

KNOWN_MAX: Final = 1000
"""Rooms remembered; when there are more, all are forgotten, and reported again after a reconnect. A
malicious server can name any number of rooms."""


class Invitations:
    """New invitations, and those that arrived while there was no connection."""

    def __init__(self, here: str) -> None:
        """Leave out the room ``here``: an invitation to it is an entry that the user sees."""
        self._here = here
        self.out = False
        """True if the user was removed from it, and sees no entries of it."""
        self._known: set[str] = set()
        self._away = False
        self._listed = False
        """True once the user was told of rooms."""

    def known(self, rooms: Iterable[ListedRoom]) -> None:
        """The user was told of these rooms."""
        self._known = _inviting(rooms)
        self._listed = True

    def notice_of(self, event: Invited) -> str | None:
        """Return the notice for an invitation that has just arrived."""
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.add(event.room)
        if event.room != self._here:
            return invited_notice([event.room], event.by)
        who = harmless_name(event.by)
        return f"{who} has invited you to this room: /join goes back" if self.out else None

    def are_due(self, event: StateChanged) -> bool:
        """Return True if the rooms must be checked again: the connection is back."""
        due = self._listed and self._away and event.state is State.ONLINE
        self._away = event.state is State.WAITING or (self._away and not due)
        return due

    def missed(self, rooms: Iterable[ListedRoom]) -> str | None:
        """Return the notice for those that arrived meanwhile; None: there are none."""
        found = _inviting(rooms)
        news = sorted(found - self._known - {self._here})
        self._known = found
        return invited_notice(news) if news else None


def _inviting(rooms: Iterable[ListedRoom]) -> set[str]:
    return {room.name for room in rooms if room.role == "invited"}
