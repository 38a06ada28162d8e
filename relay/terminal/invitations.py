"""The invitations to rooms of which a person has been notified. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from relay.client.events import Invited, State, StateChanged
from relay.client.room_calls import ListedRoom
from relay.terminal.room_notices import invited_notice
from relay.terminal.text import harmless_name

KNOWN_MAX: Final = 1000
"""Beyond so many all are forgotten, and told of once more after the next lost connection: a server
can name as many rooms as it likes."""


class Invitations:
    """Those that are told at once, and those that came while there was no connection."""

    def __init__(self, here: str) -> None:
        """Leave out the room ``here``: an invitation to it is an entry that the person sees."""
        self._here = here
        self.out = False
        """The person was put out of it, and sees no entries of it."""
        self._known: set[str] = set()
        self._away = False

    def known(self, rooms: Iterable[ListedRoom]) -> None:
        """The person was told of these rooms."""
        self._known = _inviting(rooms)

    def notice_of(self, event: Invited) -> str | None:
        """Return the notice for an invitation that has just come."""
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.add(event.room)
        if event.room != self._here:
            return invited_notice([event.room], event.by)
        who = harmless_name(event.by)
        return f"{who} has invited you to this room: /join goes back" if self.out else None

    def are_due(self, event: StateChanged) -> bool:
        """Tell whether the rooms have to be looked at again: the connection has come back."""
        due = self._away and event.state is State.ONLINE
        self._away = event.state is State.WAITING or (self._away and not due)
        return due

    def missed(self, rooms: Iterable[ListedRoom]) -> str | None:
        """Return the notice for those that came meanwhile; None: there are none."""
        found = _inviting(rooms)
        news = sorted(found - self._known - {self._here})
        self._known = found
        return invited_notice(news) if news else None


def _inviting(rooms: Iterable[ListedRoom]) -> set[str]:
    return {room.name for room in rooms if room.role == "invited"}
