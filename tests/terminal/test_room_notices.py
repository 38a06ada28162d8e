"""Notices about rooms."""

from __future__ import annotations

import pytest

from relay.client.events import RoomChanged
from relay.client.room_calls import ListedRoom, RoomRole
from relay.terminal.room_notices import SHOWN_MAX, is_member, keep_words, waiting_notices


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ((0, 0, 0), "messages are kept as the server's settings say"),
        ((30, 0, 0), "30 seconds are kept"),
        ((5400, 0, 0), "90 minutes are kept"),
        ((7200, 0, 0), "2 hours are kept"),
        ((86_400, 0, 0), "1 day are kept"),
        ((30 * 86_400, 1000, 1 << 30), "30 days and at most 1,000 messages and at most 1024 MiB"),
        ((2**63 - 1, 0, 0), "9,223,372,036,854,775,807 seconds are kept"),
    ],
)
def test_how_long_messages_are_kept(keep: tuple[int, int, int], words: str) -> None:
    assert keep_words(keep).startswith(words)


def change(what: str, person: str = "", sender: str = "ann", role: str = "") -> RoomChanged:
    return RoomChanged("room", b"e" * 8, 1, 0, 1, sender, b"", what, person, role=role)


@pytest.mark.parametrize(
    ("event", "before", "after"),
    [
        (change("create", sender="me"), False, True),
        (change("create"), True, False),
        (change("enter", "me", sender="me"), False, True),
        (change("enter", "ann"), False, False),
        (change("leave", "me", sender="me"), True, False),
        (change("leave", "ann"), True, True),
        (change("role", "me", role="moderator"), False, True),
        (change("role", "me", role="none"), True, False),
        (change("role", "bob", role="none"), True, True),
        (change("invite", "me"), False, False),
        (change("kick", "me"), True, False),
        (change("ban", "me"), True, False),
        (change("free", "me"), False, False),
        (change("mute", "me"), True, True),
        (change("topic"), True, True),
        (change("delete"), True, False),
    ],
    ids=lambda value: value.change if isinstance(value, RoomChanged) else None,
)
def test_who_is_a_lasting_member_after_a_change(
    event: RoomChanged, before: bool, after: bool
) -> None:
    assert is_member(event, "me", before) is after


def room(name: str, role: RoomRole, unread: int) -> ListedRoom:
    return ListedRoom(name, "public", "", "", False, role, 2, 9, unread)


def test_what_is_told_of_the_own_rooms() -> None:
    rooms = [room("here", "member", 5), room("read", "owner", 0), room("asked", "invited", 3)]
    assert waiting_notices(rooms[:2], "here") == []
    more = [room(f"room{n}", "member", n + 1) for n in range(SHOWN_MAX + 2)]
    unread, invited = waiting_notices([*rooms, *more], "here")
    assert unread.startswith("unread: room0 (1), room1 (2), ")
    assert unread.endswith(f"({SHOWN_MAX}) and 2 more")
    assert invited.startswith("invited to: asked;")
