"""Tracks who is in the room, so that a chat only reports actual changes.

The server reports arrivals and departures. When the room moves to another home (a worker has died),
it only reports that the roster is a new one: then the chat requests it, and compares.

Somebody who is back soon has not left: a departure is reported after ``AWAY_S``, and nothing is if
the person returns within that time. If it was noticed by comparing (this side has reconnected, or
the room has moved), others may have lost their connections as well, and have ``BACK_S`` to return.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from relay import limits
from relay.client.events import Member, Members, RosterChanged

AWAY_S: Final = 5.0
"""Longer than reconnecting to another worker takes."""
BACK_S: Final = 30.0
"""Longer than the longest pause of a client between two attempts to connect, and a login."""
NAMED_MAX: Final = 20
"""Arrivals and departures that are reported by name, one after the other."""
NAMED_PER_S: Final = 0.2
"""The rate at which more may be reported by name after that. Others are counted."""
COUNTED_S: Final = 60.0
"""How long they are counted before the number is reported."""


class Presence:
    """The presence in one room. Times are those of any monotonic clock."""

    def __init__(self) -> None:
        """Create without an answer to WHO: ``stale``."""
        self._here: dict[str, Member] | None = None
        """None: not known, or too many members to report each."""
        self._last: tuple[int, int] | None = None
        """Incarnation and version of the known roster."""
        self._leaving: dict[str, float] = {}
        """Who has gone, without being reported yet: when that is due."""
        self._postponed: set[str] = set()
        """Those of them who were missing in an answer already: another one postpones nothing."""
        self.unasked = True
        """True if nobody has asked yet."""
        self.stale = True
        """True if the members must be requested, and the answer passed to ``asked``."""

    @property
    def due_at(self) -> float | None:
        """When ``gone`` is due; None: not before another change."""
        return None if self.stale else min(self._leaving.values(), default=None)

    def disconnected(self) -> None:
        """The connection is lost: who has gone may have lost theirs, and is looked for first."""
        self.stale = self.stale or bool(self._leaving)

    def news(self, event: RosterChanged, now: float) -> RosterChanged:
        """Return the news in a change: who has come. Who has gone is reported by ``gone``."""
        last, self._last = self._last, (event.incarnation, event.version)
        if last is None or last[0] != event.incarnation or event.version > last[1] + 1:
            self.stale = True  # some changes were not reported
        if last is not None and last[0] != event.incarnation:
            return _only(event, ())
        if self.unasked:
            return _only(event, ())  # the answer will name all
        joined, left = event.joined, event.left
        if self._here is not None:
            joined = tuple(one for one in joined if one.name not in self._here)
            self._here.update((one.name, one) for one in joined)
            # One by one: a server may name somebody twice, which must be neither news twice nor an
            # error.
            left = tuple(name for name in left if self._here.pop(name, None) is not None)
            if max(event.total, len(self._here)) > limits.ROSTER_NAMES_MAX:
                self._here = None  # changes are no longer reported one by one
        news = tuple(one for one in joined if self._leaving.pop(one.name, None) is None)
        self._note(left, now + AWAY_S)
        return _only(event, news)

    def asked(self, members: Members, now: float) -> RosterChanged:
        """Process an answer to WHO, and return the news in it: none for the first."""
        before, self.stale, self.unasked = self._here, False, False
        self._last = members.incarnation, members.version
        whole = members.total == len(members.members)
        here = {one.name: one for one in members.members} if whole else None
        joined: tuple[Member, ...] = ()
        if here is not None:
            back = [name for name in self._leaving if name in here]
            if before is not None:
                joined = tuple(
                    one for name, one in here.items() if name not in before and name not in back
                )
                self._note((name for name in before if name not in here), now + BACK_S)
            for name in back:
                del self._leaving[name]
        for name in self._leaving.keys() - self._postponed:
            self._leaving[name] = max(self._leaving[name], now + BACK_S)
        self._postponed = set(self._leaving)
        self._here = here
        return RosterChanged(members.room, members.total, joined, (), *self._last)

    def _note(self, left: Iterable[str], due: float) -> None:
        for name in left:
            if len(self._leaving) < limits.ROSTER_NAMES_MAX:
                self._leaving[name] = due

    def gone(self, now: float) -> tuple[str, ...]:
        """Return, once, who has been gone for long enough."""
        if self.stale:
            return ()
        gone = tuple(name for name, due in self._leaving.items() if due <= now)
        for name in gone:
            del self._leaving[name]
        return gone


class Allowance:
    """How many arrivals and departures are reported by name: in a busy room only some of them."""

    def __init__(self) -> None:
        """Create with the whole allowance."""
        self._left = float(NAMED_MAX)
        self._since = 0.0
        self.counted = 0
        """How many were not reported by name."""
        self.due_at: float | None = None
        """When their number is to be reported; None: there is none."""

    def named(self, count: int, now: float) -> int:
        """Return how many of so many changes may be reported by name; count the others."""
        self._left = min(NAMED_MAX, self._left + NAMED_PER_S * (now - self._since))
        self._since = now
        named = min(count, int(self._left))
        self._left -= named
        if count > named:
            self.counted += count - named
            self.due_at = now + COUNTED_S if self.due_at is None else self.due_at
        return named

    def take(self) -> int:
        """Return how many were counted, and begin again."""
        counted, self.counted, self.due_at = self.counted, 0, None
        return counted


def _only(event: RosterChanged, joined: tuple[Member, ...]) -> RosterChanged:
    return RosterChanged(event.room, event.total, joined, (), event.incarnation, event.version)
