"""What the server sends, as the events and results that programs get. Pure functions."""

from __future__ import annotations

from typing import Any, Final, cast

from relay.chat.entries import Cursor, GapReason
from relay.client.events import (
    Behind,
    Gap,
    HistoryPage,
    Joined,
    Live,
    Member,
    Members,
    Message,
    RosterChanged,
)
from relay.wire import envelopes as wire

assert Message._fields[1:] == wire.EntryMessage._fields[1:]
_GAP_REASONS: Final = frozenset(int(reason) for reason in GapReason)


def as_message(entry: wire.EntryMessage) -> Message:
    """Return an entry as a message."""
    # The same fields in the same places: one call in C for each message.
    return tuple.__new__(Message, entry)


def as_page(page: wire.Page) -> HistoryPage:
    """Return a page of history."""
    return HistoryPage(tuple(map(as_message, page.entries)), page.next, page.end)


def as_joined(room: str, joined: wire.Joined) -> Joined:
    """Return where a join begins."""
    start = Cursor(joined.start_epoch, joined.start_seq)
    return Joined(room, start, Cursor(joined.head_epoch, joined.head_seq))


def as_roster(roster: wire.Roster) -> RosterChanged:
    """Return who came and went."""
    joined = tuple(Member(name, display) for name, display in roster.joined)
    left = tuple(roster.left)
    return RosterChanged(roster.log, roster.total, joined, left, roster.incarnation, roster.version)


def as_members(room: str, members: wire.Members) -> Members:
    """Return who is in a room."""
    listed = tuple(Member(*cast("list[Any]", row)) for row in members.names)
    _, _, incarnation, version, total, _ = members
    return Members(room, total, listed, incarnation, version)


def as_place(place: wire.Live | wire.Behind) -> Live | Behind:
    """Return whether delivery is live."""
    kind = Live if type(place) is wire.Live else Behind
    return kind(place.log, place.seq)


def as_gap(gap: wire.Gap) -> Gap:
    """Return what will not come."""
    start = Cursor(gap.from_epoch, gap.from_seq)
    end = Cursor(gap.to_epoch, gap.to_seq)
    reason = GapReason(gap.reason) if gap.reason in _GAP_REASONS else gap.reason
    return Gap(gap.log, start, end, reason)
