"""What ``relay data check`` calls a damaged state, and what it does not."""

from __future__ import annotations

from relay.chat.entries import Entry
from relay.chat.entries import Kind as EntryKind
from relay.chat.rooms import events
from relay.chat.rooms import state as rooms
from relay.chat.rooms.events import Event, Kind, Role
from relay.chat.rooms.state import Room
from relay.server.meaning import OTHER_STATE, meaningless
from relay.store.examine import Controls

ANN, BOB = b"\xaa" * 32, b"\xbb" * 32
HISTORY: tuple[tuple[str, Event], ...] = (
    ("ann", events.Created(Kind.PRIVATE, False, ANN)),
    ("ann", events.RoleSet("bob", BOB, Role.MODERATOR)),
)


def folded() -> tuple[Room, list[Entry]]:
    room, entries = Room(), []
    for seq, (sender, event) in enumerate(HISTORY, 1):
        room = rooms.applied(room, event, sender, seq)
        entries.append(
            Entry(
                "den", b"e" * 8, seq, seq - 1, 1000, sender, b"k" * 8, b"p" * 16, seq,
                int(EntryKind.SYSTEM), events.CONTENT_TYPE, events.pack(event),
            )
        )  # fmt: skip
    return room, entries


def checked(room: Room, entries: list[Entry]) -> list[tuple[str, str]]:
    return meaningless([Controls("den", entries, rooms.pack(room), len(entries))])


def test_a_state_from_before_it_was_noted_who_has_not_entered() -> None:
    room, entries = folded()
    bob = room.people["bob"]
    assert bob.given
    assert checked(room, entries) == []
    before = room._replace(people={**room.people, "bob": bob._replace(given=False)})
    assert checked(before, entries) == []


def test_other_rights_are_no_healthy_state() -> None:
    room, entries = folded()
    for name, changed in (
        ("bob", room.people["bob"]._replace(role=Role.OWNER)),
        ("ann", room.people["ann"]._replace(given=True)),
    ):
        other = room._replace(people={**room.people, name: changed})
        assert checked(other, entries) == [("den", OTHER_STATE)]
