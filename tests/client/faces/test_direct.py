"""Direct messages, edits, reactions and erasing, with both clients."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from relay.client.events import (
    Edit,
    Erased,
    HistoryPage,
    LogEntry,
    Message,
    Reaction,
    ReadMark,
    Redaction,
)
from relay.client.refusals import NoSuchEntry, NotAccepted, NotAllowed, NotRegistered
from relay.client.room_calls import ListedRoom
from tests.client.faces.adapters import WAIT_S, Face
from tests.client.faces.test_arguments import call

Connect = Callable[..., Face]


def entry(face: Face, kind: type[LogEntry]) -> LogEntry:
    """Take events until one of a type comes."""
    while True:
        event = face.next(WAIT_S)
        assert event is not None, f"no {kind.__name__}"
        if isinstance(event, kind):
            return event


@pytest.fixture
def people(connect: Connect, room: str) -> tuple[Face, Face]:
    """Two users of this test alone: the relay is shared."""
    tag = hashlib.sha256(room.encode()).hexdigest()[:8]
    return connect(f"ann-{tag}"), connect(f"bob-{tag}")


def test_two_exchange_messages(people: tuple[Face, Face]) -> None:
    """Each has them in its own inbox, with the other user as the peer."""
    ann, bob = people
    ann_name, bob_name = ann.client.name, bob.client.name
    for face in (ann, bob):
        face.join("@me")
    stored = ann.send(f"@{bob_name}", "hello")
    for face, peer in ((ann, bob_name), (bob, ann_name)):
        got = entry(face, Message)
        assert (got.text, got.sender, got.to, got.peer) == (
            "hello", ann_name, bob_name, peer,
        )  # fmt: skip
        if face is ann:
            assert got.cursor == stored.cursor
    answer = call(bob, "send", f"@{ann_name}", "hello, too", reply_to=got)
    reply = entry(ann, Message)
    assert reply.about == stored.cursor
    assert entry(bob, Message).cursor == answer.cursor
    page = call(ann, "history", f"@{bob_name}")
    assert isinstance(page, HistoryPage)
    assert [one.text for one in page.entries] == ["hello", "hello, too"]
    assert ann.client.cursors[f"@{ann_name}"] == reply.cursor


def test_who_takes_no_messages(people: tuple[Face, Face]) -> None:
    """Blocked, or not known: the same error."""
    ann, bob = people
    to_ann, to_bob = (f"@{one.client.name}" for one in people)
    ann.send(to_bob, "one")
    call(bob, "block", to_ann[1:])
    assert call(bob, "preferences") == ("all", "known", (to_ann[1:],), (0, 0, 0))
    with pytest.raises(NotAccepted):
        ann.send(to_bob, "two")
    call(bob, "unblock", to_ann[1:])
    call(bob, "set_preferences", writers="known")
    with pytest.raises(NotAccepted):
        ann.send(to_bob, "two")
    with pytest.raises(NotRegistered):
        ann.send("@nobody-at-all", "two")
    with pytest.raises(NotAllowed):
        ann.join(to_bob)
    with pytest.raises(ValueError, match=r"writers is .*; it must be one of"):
        call(bob, "set_preferences", writers="friends")
    bob.send(to_ann, "hello")
    ann.send(to_bob, "three")


def left(face: Face, room: str) -> list[type[LogEntry]]:
    """Return the users' messages in a history."""
    page = call(face, "history", room)
    assert isinstance(page, HistoryPage)
    return [type(one) for one in page.entries if isinstance(one, LogEntry)]


def test_edits_reactions_and_erasing(people: tuple[Face, Face], room: str) -> None:
    """In a room: readers get them in order, and later readers the result."""
    ann, bob = people
    ann.join(room)
    bob.join(room)
    ann.send(room, "helo")
    original = entry(ann, Message)
    call(ann, "edit", original, "hello")
    call(bob, "react", original, "👍")
    with pytest.raises(NotAllowed):
        call(bob, "edit", original, "x")
    with pytest.raises(NotAllowed):
        call(bob, "redact", original)
    edit, reaction = entry(bob, Edit), entry(bob, Reaction)
    assert (edit.text, edit.about, reaction.text) == ("hello", original.cursor, "👍")
    call(ann, "redact", original, "a mistake")
    assert entry(bob, Redaction).about == original.cursor
    with pytest.raises(NoSuchEntry):
        call(ann, "edit", original, "again")
    assert left(bob, room) == [Erased, Erased, Reaction, Redaction]
    call(bob, "redact", reaction)
    assert left(bob, room) == [Erased, Erased, Erased, Redaction, Redaction]


def test_an_edit_stands_for_its_message(people: tuple[Face, Face], room: str) -> None:
    """In search results: what refers to the edit refers to the message."""
    ann, bob = people
    ann.join(room)
    ann.send(room, "helo")
    original = entry(ann, Message)
    call(ann, "edit", original, "hello")
    edit = entry(ann, Edit)
    call(ann, "edit", edit, "hello again")
    call(bob, "react", edit, "🎉")
    call(bob, "send", room, "hi", reply_to=edit)
    for kind in (Edit, Reaction, Message):
        assert entry(ann, kind).about == original.cursor


def rooms_of(face: Face) -> list[ListedRoom]:
    found = call(face, "rooms", mine=True)
    assert isinstance(found, list)
    return found


def test_read_marks_are_shared_between_devices(
    people: tuple[Face, Face], connect: Connect, room: str
) -> None:
    ann, bob = people
    phone = connect(bob.client.name)
    phone.join("@me")
    bob.join(room)
    bob.join("@me")
    ann.send(f"@{bob.client.name}", "hi")
    direct = entry(bob, Message)
    ann.send(room, "in the room")
    spoken = entry(bob, Message)
    call(bob, "mark_read", direct)
    call(bob, "mark_read", spoken)
    marks = [entry(phone, ReadMark), entry(phone, ReadMark)]
    assert [(mark.of, mark.about) for mark in marks if isinstance(mark, ReadMark)] == [
        (f"@{ann.client.name}", direct.cursor),
        (room, spoken.cursor),
    ]
    assert [one.unread for one in rooms_of(bob)] == []
    call(bob, "change_room", room, "enter")
    call(ann, "send", room, "again")
    assert [(one.name, one.role, one.unread) for one in rooms_of(bob)] == [(room, "member", 1)]
    assert call(phone, "read_marks") == {f"@{ann.client.name}": direct.cursor, room: spoken.cursor}
