"""This client's position in each followed room, and the check that no entry is missing.

Each entry names the one before it (``prev``). An entry at or below the cursor is a repeat and is
dropped. If an entry's ``prev`` is not the cursor, something is missing: the room is left and joined
again from the cursor; nothing is ever skipped. *Received* cursors are here; what the application
has *taken* is in ``event_queue``.

Here is also which of the rooms that have a name one after another the program means: the one that
it has joined, created or entered last. What it sends names that one, also after a reconnection, and
when the room is gone: it is then refused, even if somebody else has created a room of that
name.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from relay import limits
from relay.chat.entries import NO_EPOCH, Cursor, Kind
from relay.chat.rooms.events import is_creation
from relay.wire.envelopes import Behind, EntryMessage, Gap, Join, Live

SYSTEM: Final = int(Kind.SYSTEM)
REJOINS_MAX: Final = 3
"""Rejoins without a single new entry before the connection itself is given up."""


class Start(NamedTuple):
    """Where a program wants to start: after a cursor, or with the last entries."""

    cursor: Cursor | None
    last: int


class Step(Enum):
    """The meaning of an envelope for the reader."""

    DELIVER = "the application gets it"
    DROP = "a repeat, or of a room that is not followed"
    REJOIN = "something is missing: join again from the cursor"


class Subscription:
    """One followed room."""

    __slots__ = ("identity", "joined", "received", "rejoins", "room", "start")

    def __init__(self, room: str, start: Start, meant: bytes = b"") -> None:
        """Create one that is not joined yet; ``meant``: what the program means until it is."""
        self.room = room
        self.start = start
        self.received: Cursor | None = None
        """The last entry that arrived; None before the first JOINED."""
        self.joined = False
        """True from JOINED until the connection ends or a rejoin begins."""
        self.rejoins = 0
        """Since the last new entry."""
        self.identity = meant
        """Which of the rooms of this name it is; empty: not known, or there is none yet. Before the
        first JOINED: the one that the program was in before."""

    def join(self, number: int) -> Join:
        """Return the JOIN that starts or continues."""
        if self.received is not None:
            return Join(number, self.room, *self.received, 0, self.identity)
        cursor, last = self.start
        if cursor is None:
            return Join(number, self.room, None, 0, last)
        return Join(number, self.room, *cursor, 0)

    def joined_at(self, start: Cursor, identity: bytes) -> None:
        """Handle the server's JOINED: entries after ``start`` follow."""
        if self.received is None:
            self.received = start
            self.identity = identity
        elif not self.identity:
            self.identity = identity
        self.joined = True


class Subscriptions:
    """All followed rooms."""

    __slots__ = ("_meant", "_rooms", "repeats")

    def __init__(self) -> None:
        self._rooms: dict[str, Subscription] = {}
        self._meant: dict[str, bytes] = {}
        """Identities of rooms that the program does not follow, and means by their names: it has
        created or entered them, or the server has put it out. The last ones."""
        self.repeats = 0
        """Entries that arrived again and were dropped, for statistics."""

    def __contains__(self, room: str) -> bool:
        return room in self._rooms

    def add(self, room: str, start: Start) -> Subscription:
        """Begin to follow a room. Until it is joined, the program means the one before."""
        subscription = self._rooms[room] = Subscription(room, start, self._meant.pop(room, b""))
        return subscription

    def get(self, room: str) -> Subscription | None:
        """Return a followed room, or None."""
        return self._rooms.get(room)

    def remove(self, room: str) -> Subscription | None:
        """Stop following. The program still means this room: see ``forget``."""
        subscription = self._rooms.pop(room, None)
        if subscription is not None and subscription.identity:
            self._remember(room, subscription.identity)
        return subscription

    def _remember(self, room: str, identity: bytes) -> None:
        self._meant.pop(room, None)  # the last one comes last
        self._meant[room] = identity
        if len(self._meant) > limits.LOGS_PER_CONNECTION_MAX:
            del self._meant[next(iter(self._meant))]

    def forget(self, room: str) -> None:
        """The program no longer means a certain room by this name, unless it is followed."""
        self._meant.pop(room, None)

    def means(self, room: str, identity: bytes) -> None:
        """The program has created or entered a room, and means it.

        It may still follow the one before, until it hears that that one was deleted.
        """
        if (subscription := self._rooms.get(room)) is not None:
            subscription.identity = identity
        else:
            self._remember(room, identity)

    def identity(self, log: str) -> bytes:
        """Return which room the program means by a name; empty: whichever has it."""
        subscription = self._rooms.get(log)
        return self._meant.get(log, b"") if subscription is None else subscription.identity

    def identities(self) -> dict[str, bytes]:
        """Return which rooms the program means, by their names."""
        followed = {name: one.identity for name, one in self._rooms.items()}
        return {name: one for name, one in (self._meant | followed).items() if one}

    def offline(self) -> None:
        """The connection has ended: nothing is joined."""
        for subscription in self._rooms.values():
            subscription.joined = False

    def known(self) -> list[Subscription]:
        """Return the rooms that were joined at least once, which are joined again by the client."""
        return [f for f in self._rooms.values() if f.received is not None]

    # --- what arrives ----------------------------------------------------------------------------
    def entry(self, entry: EntryMessage) -> Step:
        """Check an entry against the cursor, and move the cursor."""
        subscription = self._rooms.get(entry.log)
        if subscription is None or not subscription.joined:
            return Step.DROP
        received = subscription.received
        assert received is not None
        seq = entry.seq
        if entry.prev == received.seq < seq:
            subscription.received = Cursor(entry.epoch, seq)
            subscription.rejoins = 0
            if entry.kind == SYSTEM and is_creation(entry):
                subscription.identity = entry.epoch
            return Step.DELIVER
        if seq <= received.seq:
            self.repeats += 1
            return Step.DROP
        return Step.REJOIN

    def gap(self, gap: Gap) -> Step:
        """Move the cursor over a gap that the server reports."""
        subscription = self._rooms.get(gap.log)
        if subscription is None or not subscription.joined:
            return Step.DROP
        assert subscription.received is not None
        if gap.from_seq > subscription.received.seq:
            return Step.REJOIN
        subscription.received = Cursor(gap.to_epoch, gap.to_seq)
        subscription.rejoins = 0
        return Step.DELIVER

    def place(self, place: Live | Behind) -> Step:
        """Check LIVE and BEHIND: entries up to ``seq`` must have arrived."""
        subscription = self._rooms.get(place.log)
        if subscription is None or not subscription.joined:
            return Step.DROP
        received = subscription.received
        assert received is not None
        # After BEHIND, entries may be repeated: it may name a position already passed. LIVE may
        # not.
        if place.seq > received.seq or (type(place) is Live and place.seq < received.seq):
            return Step.REJOIN
        if received.epoch == NO_EPOCH and place.seq == received.seq:
            subscription.received = Cursor(place.epoch, place.seq)
        return Step.DELIVER
