"""The server's envelopes as the events and results that programs get. Pure functions."""

from __future__ import annotations

from typing import Any, Final, cast

from relay.chat.entries import Cursor, GapReason, Kind
from relay.chat.rooms import events
from relay.client.events import (
    Behind,
    Control,
    Edit,
    Erased,
    Gap,
    HistoryPage,
    Joined,
    Live,
    LogEntry,
    Member,
    Members,
    Message,
    Reaction,
    ReadMark,
    Redaction,
    RoomChanged,
    RosterChanged,
    SearchPage,
)
from relay.client.room_calls import KIND_NAMES, ROLE_NAMES
from relay.errors import EnvelopeError
from relay.wire import envelopes as wire

assert tuple(LogEntry._fields[1:-1]) == tuple(wire.EntryMessage._fields[1:])
SYSTEM: Final = int(Kind.SYSTEM)
_KINDS: Final[dict[int, type[LogEntry]]] = {
    Kind.MESSAGE: Message,
    Kind.EDIT: Edit,
    Kind.REDACTION: Redaction,
    Kind.SYSTEM: Control,
    Kind.REACTION: Reaction,
    Kind.MARK: ReadMark,
    Kind.ERASED: Erased,
}
_GAP_REASONS: Final = frozenset(int(reason) for reason in GapReason)


def as_entry(entry: wire.EntryMessage) -> LogEntry | RoomChanged:
    """Return an entry as the program sees it; an unknown kind of a later version as it is."""
    if entry.kind == SYSTEM and is_change(entry):
        return as_change(entry)
    # The same fields in the same order: two C calls per message.
    return tuple.__new__(_KINDS.get(entry.kind, LogEntry), (*entry, ""))


def is_change(entry: wire.EntryMessage) -> bool:
    """Return True if an entry changes its room."""
    return entry.kind == SYSTEM and entry.content_type == events.CONTENT_TYPE


def as_change(entry: wire.EntryMessage) -> RoomChanged:
    """Return the change in an entry."""
    try:
        event = events.unpack(entry.body)
    except EnvelopeError:
        event = None
    head = (*entry[:5], entry.sender, entry.key_id)
    match event:
        case events.Created(kind=kind, listed=listed):
            return RoomChanged(*head, "create", kind=KIND_NAMES[kind], listed=listed)
        case events.TopicSet(topic=text):
            return RoomChanged(*head, "topic", text=text)
        case events.TitleSet(title=text):
            return RoomChanged(*head, "title", text=text)
        case events.KindSet(kind=kind, listed=listed):
            return RoomChanged(*head, "kind", kind=KIND_NAMES[kind], listed=listed)
        case events.RoleSet(handle=handle, role=role):
            return RoomChanged(*head, "role", handle, role=ROLE_NAMES[role])
        case events.Invited(handle=handle):
            return RoomChanged(*head, "invite", handle)
        case events.Kicked(handle=handle, reason=text):
            return RoomChanged(*head, "kick", handle, text)
        case events.Banned(handle=handle, until_ms=until_ms, reason=text):
            return RoomChanged(*head, "ban", handle, text, until_ms)
        case events.Muted(handle=handle, until_ms=until_ms, reason=text):
            return RoomChanged(*head, "mute", handle, text, until_ms)
        case events.Freed(handle=handle):
            return RoomChanged(*head, "free", handle)
        case events.Closed(closed=closed):
            return RoomChanged(*head, "close" if closed else "reopen")
        case events.Entered():
            return RoomChanged(*head, "enter", entry.sender)
        case events.Left():
            return RoomChanged(*head, "leave", entry.sender)
        case events.KeepSet(age_s=age_s, messages=messages, bytes=size):
            return RoomChanged(*head, "keep", keep=(age_s, messages, size))
        case events.Deleted(reason=text):
            return RoomChanged(*head, "delete", text=text)
        case None:
            return RoomChanged(*head, "")


def as_page(page: wire.Page) -> HistoryPage:
    """Return a page of history."""
    return HistoryPage(tuple(map(as_entry, page.entries)), page.next, page.end)


def as_search_page(found: wire.Found) -> SearchPage:
    """Return search results; entries of other kinds are left out."""
    entries = [as_entry(entry) for entry in found.entries]
    shown = tuple(entry for entry in entries if isinstance(entry, Message | Edit))
    return SearchPage(shown, found.next, found.end, found.indexed)


def as_joined(room: str, joined: wire.Joined, before: bytes) -> Joined:
    """Return where a join starts.

    ``before``: the identity of the room of this name that the client was in before; empty: none.
    """
    start = Cursor(joined.start_epoch, joined.start_seq)
    head = Cursor(joined.head_epoch, joined.head_seq)
    another = bool(before and joined.identity) and before != joined.identity
    return Joined(room, start, head, another)


def as_roster(roster: wire.Roster) -> RosterChanged:
    """Return who has arrived and left."""
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
    """Return the gap."""
    start = Cursor(gap.from_epoch, gap.from_seq)
    end = Cursor(gap.to_epoch, gap.to_seq)
    reason = GapReason(gap.reason) if gap.reason in _GAP_REASONS else gap.reason
    return Gap(gap.log, start, end, reason)
