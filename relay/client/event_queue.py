"""Events that the application has not taken yet, limited by bytes and by number.

A room may have a queue of its own, for a program that iterates over it. The limits apply to all
queues together.

The cursor of a room that a program sees, and may save, moves when it *takes* a message (invariant
"Falling behind"), not when the message arrives: if the program dies, messages in the queue are
delivered again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from relay.chat.entries import Cursor
from relay.client.devices.unverified import UnverifiedSenders
from relay.client.events import (
    DeviceWarning,
    Event,
    Gap,
    Invited,
    LogEntry,
    Postponed,
    RoomChanged,
    RosterChanged,
    StateChanged,
    Unfollowed,
)

EVENTS_MAX: Final = 8192
EVENTS_BYTES_MAX: Final = 8 * 1024 * 1024
"""Above either limit, the client stops reading its socket, and the server lets it fall behind: the
store is the buffer. Each limit is at least four times what one read from the socket yields."""
OVER: Final = 2
"""Above this multiple of either limit nothing more is added: it is more than one read from an
honest server can add, so only a malicious one reaches it."""
EVENT_OVERHEAD_BYTES: Final = 1024
"""Memory of the largest Python object of an event with its small fields. The body of a message and
the names of a roster are counted separately."""
MEMBER_BYTES: Final = 288
"""Memory of a name, with its tuple and its place in a list, without the display name."""
STATES_MAX: Final = 32
"""Limit for changes of the client's own state, postponed sends and invitations in one queue; beyond
it the oldest is dropped. A program that only sends takes none of these, and its server may restart,
or its disk be full, a thousand times."""
_STATES: Final = (StateChanged, Postponed, Invited)
WARNINGS_MAX: Final = 1024
"""Limit for warnings about devices: each is added once, and beyond the limit no more are added.
None is dropped, so a server cannot displace a warning by causing others."""
RESUME_AT: Final = 0.5
"""Reading continues when both values are below this fraction of their limits, to avoid switching
with every message."""


class _Events(deque[Event]):
    """One queue."""

    __slots__ = ("states",)

    def __init__(self, events: Iterable[Event] = ()) -> None:
        super().__init__(events)
        self.states = sum(type(event) in _STATES for event in self)
        """Number of events of the types ``_STATES`` in it."""

    def drop_oldest_state(self) -> Event:
        """Remove and return the oldest of them.

        The search starts at the end: where there are many, they are consecutive at that end, so
        none costs a walk through everything the program has not taken.
        """
        left = self.states
        for back, event in enumerate(reversed(self), 1):
            left -= type(event) in _STATES
            if not left:
                del self[-back]
                self.states -= 1
                return event
        raise AssertionError("there is one")


class EventQueue:
    """Queues of events, and the cursors of what was taken from them."""

    __slots__ = (
        "_bytes",
        "_count",
        "_events",
        "_separate",
        "_unverified",
        "_warnings",
        "changes",
        "full",
        "over",
        "taken",
    )  # fmt: skip

    def __init__(self, unverified: UnverifiedSenders | None = None) -> None:
        self._unverified = unverified or UnverifiedSenders()
        """Marks what is taken, and delays some of it."""
        self._events = _Events()
        self._separate: dict[str, _Events] = {}
        """The events of rooms that have a queue of their own."""
        self._count = 0
        """Number of events in all queues."""
        self._bytes = 0
        self._warnings: set[Event] = set()
        """The warnings in the queue."""
        self.full = False
        """True from the limit until half of it is taken."""
        self.over = False
        """True above ``OVER`` times the limit, which only a malicious server reaches."""
        self.taken: dict[str, Cursor] = {}
        """For each followed room, the last entry that the application has taken."""
        self.changes: dict[str, int] = {}
        """For some of them, the number of the last change of the room that it has taken."""

    def __len__(self) -> int:
        return self._count

    def has(self, room: str | None = None) -> bool:
        """True if ``take`` of the same room has something."""
        events = self._events if room is None else self._separate.get(room)
        if not events:
            return False
        return not (self._unverified.any and self._unverified.must_wait(events[0]))

    @property
    def size(self) -> int:
        """Memory of the events in bytes, never underestimated."""
        return self._bytes

    def put(self, event: Event) -> None:
        """Append an event. The caller must respect the limits, by ``full`` and ``over``."""
        if type(event) is DeviceWarning:
            if event in self._warnings or len(self._warnings) >= WARNINGS_MAX:
                return
            self._warnings.add(event)
        events = self._events
        # an invitation is to a room that is not followed
        if self._separate and type(event) is not Invited:
            events = self._separate.get(getattr(event, "room", ""), events)
        events.append(event)
        self._count += 1
        self._bytes += _size(event)
        if type(event) in _STATES:
            events.states += 1
            if events.states > STATES_MAX:
                self._bytes -= _size(events.drop_oldest_state())
                self._count -= 1
        if self._bytes > EVENTS_BYTES_MAX or self._count > EVENTS_MAX:
            self.full = True
            self.over = self._bytes > OVER * EVENTS_BYTES_MAX or self._count > OVER * EVENTS_MAX

    def take(self, room: str | None = None) -> Event | None:
        """Return the oldest event, or None if it must wait. Moves the cursor of its room.

        Args:
            room: one with a queue of its own; None: the queue of all others.
        """
        events = self._events if room is None else self._separate.get(room)
        if not events:
            return None
        unverified = self._unverified
        if unverified.any and unverified.must_wait(events[0]):
            return None
        event = events.popleft()
        self._count -= 1
        self._bytes -= _size(event)
        kind = type(event)
        if isinstance(event, LogEntry):
            self._move(event.room, Cursor(event.epoch, event.seq))
        elif kind is RoomChanged:
            assert isinstance(event, RoomChanged)
            self._move(event.room, Cursor(event.epoch, event.seq))
            if event.room in self.taken:
                self.changes[event.room] = event.seq
        elif kind is Gap:
            assert isinstance(event, Gap)
            self._move(event.room, event.end)
        elif kind in _STATES:
            events.states -= 1
        elif kind is DeviceWarning:
            self._warnings.discard(event)
        elif kind is Unfollowed:  # the room changes unseen from now on
            self.changes.pop(event.room, None)  # type: ignore[union-attr]
        if (
            self.full
            and self._bytes <= EVENTS_BYTES_MAX * RESUME_AT
            and self._count <= EVENTS_MAX * RESUME_AT
        ):
            self.full = self.over = False
        return unverified.marked(event) if unverified.any else event

    def follow(self, room: str, start: Cursor) -> None:
        """Follow a room from here on."""
        self.taken[room] = start

    def separate(self, room: str) -> None:
        """Give a room a queue of its own, until ``forget``."""
        self._separate[room] = _Events()

    def forget(self, room: str) -> Cursor | None:
        """Drop a room and its events, except warnings; return the cursor it had."""
        own = self._separate.pop(room, ())
        left = [
            e
            for e in self._events
            if getattr(e, "room", None) != room or type(e) in (Invited, DeviceWarning)
        ]
        left += (event for event in own if type(event) is DeviceWarning)
        self._events = _Events(left)
        self._recount()
        self.changes.pop(room, None)
        return self.taken.pop(room, None)

    def clear(self) -> None:
        """Drop every event."""
        for events in self._all():
            events.clear()
            events.states = 0
        self._recount()

    def _all(self) -> list[_Events]:
        return [self._events, *self._separate.values()]

    def _recount(self) -> None:
        left = [event for events in self._all() for event in events]
        self._count = len(left)
        self._bytes = sum(map(_size, left))
        self._warnings = {event for event in left if type(event) is DeviceWarning}
        if not left:
            self.full = self.over = False

    def _move(self, room: str, cursor: Cursor) -> None:
        if room in self.taken:
            self.taken[room] = cursor


def _size(event: Event) -> int:
    kind = type(event)
    if isinstance(event, LogEntry):
        return EVENT_OVERHEAD_BYTES + len(event.body)
    if kind is RoomChanged:
        assert isinstance(event, RoomChanged)
        return EVENT_OVERHEAD_BYTES + 4 * len(event.text)
    if kind is RosterChanged:
        assert isinstance(event, RosterChanged)
        displays = sum(4 * len(member.display) for member in event.joined)
        names = len(event.joined) + len(event.left)
        return EVENT_OVERHEAD_BYTES + MEMBER_BYTES * names + displays
    if kind is Invited:
        return EVENT_OVERHEAD_BYTES
    if kind in _STATES or kind is Unfollowed or kind is DeviceWarning:
        return EVENT_OVERHEAD_BYTES + 4 * len(event.detail)  # type: ignore[union-attr]
    return EVENT_OVERHEAD_BYTES


assert EVENTS_MAX * EVENT_OVERHEAD_BYTES <= EVENTS_BYTES_MAX
