"""Tracks who is in the room, so that a chat only reports actual changes.

The server reports arrivals and departures. When the room moves to another home (a worker has died),
it only reports that the roster is a new one: then the chat requests it, and compares.
"""

from __future__ import annotations

from relay import limits
from relay.client.events import Member, Members, RosterChanged


class Presence:
    """The presence in one room."""

    def __init__(self) -> None:
        """Create without an answer to WHO: ``stale``."""
        self._here: dict[str, Member] | None = None
        """None: not known, or too many members to report each."""
        self._last: tuple[int, int] | None = None
        """Incarnation and version of the known roster."""
        self.unasked = True
        """True if nobody has asked yet."""
        self.stale = True
        """True if the members must be requested, and the answer passed to ``asked``."""

    def news(self, event: RosterChanged) -> RosterChanged:
        """Return the news in a change."""
        last, self._last = self._last, (event.incarnation, event.version)
        if last is None or last[0] != event.incarnation or event.version > last[1] + 1:
            self.stale = True  # some changes were not reported
        if last is not None and last[0] != event.incarnation:
            return _only(event, (), ())
        if self._here is None:
            return event
        joined = tuple(one for one in event.joined if one.name not in self._here)
        self._here.update((one.name, one) for one in joined)
        # One by one: a server may name somebody twice, which must be neither news twice nor an
        # error.
        left = tuple(name for name in event.left if self._here.pop(name, None) is not None)
        if max(event.total, len(self._here)) > limits.ROSTER_NAMES_MAX:
            self._here = None  # changes are no longer reported one by one
        return _only(event, joined, left)

    def asked(self, members: Members) -> RosterChanged:
        """Process an answer to WHO, and return the news in it: none for the first."""
        before, self.stale, self.unasked = self._here, False, False
        self._last = members.incarnation, members.version
        whole = members.total == len(members.members)
        now = {one.name: one for one in members.members} if whole else None
        joined: tuple[Member, ...] = ()
        left: tuple[str, ...] = ()
        if before is not None and now is not None:
            joined = tuple(one for name, one in now.items() if name not in before)
            left = tuple(name for name in before if name not in now)
        self._here = now
        return RosterChanged(members.room, members.total, joined, left, *self._last)


def _only(event: RosterChanged, joined: tuple[Member, ...], left: tuple[str, ...]) -> RosterChanged:
    return RosterChanged(event.room, event.total, joined, left, event.incarnation, event.version)
