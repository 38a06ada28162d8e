"""Export and removal of a user's own data, with both clients."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from relay.client.account_calls import Devices, Preferences, User
from relay.client.blocking import BlockingClient
from relay.client.errors import ClientError
from relay.client.events import Erased, LogEntry, Message
from relay.client.own_data import ReadUpTo
from relay.client.refusals import NotAllowed, NotRegistered
from relay.client.room_calls import ListedRoom
from tests.client.faces.adapters import AioFace, Face
from tests.client.faces.test_arguments import call

Connect = Callable[..., Face]


@pytest.fixture
def people(connect: Connect, room: str) -> tuple[Face, Face]:
    tag = hashlib.sha256(room.encode()).hexdigest()[:8]
    return connect(f"ann-{tag}"), connect(f"bob-{tag}")


def exported(face: Face, most: int = 10**6) -> list[Any]:
    """Return the items of an export, up to a number."""
    found: list[Any] = []
    if isinstance(face, AioFace):

        async def collect() -> None:
            steps = face.client.export()
            async with contextlib.aclosing(steps):  # type: ignore[type-var]
                async for one in steps:
                    found.append(one)
                    if len(found) == most:
                        break

        face._run(collect())
    else:
        client: BlockingClient = face.client  # type: ignore[assignment]
        for one in client.export():
            found.append(one)
            if len(found) == most:
                break
    return found


def test_an_export(people: tuple[Face, Face], room: str) -> None:
    """Each kind; a room and an inbox that the program has joined stay joined."""
    ann, bob = people
    to_ann, to_bob = (f"@{one.client.name}" for one in people)
    bob.join(room)
    bob.join("@me")
    mine = bob.send(room, "mine")
    ann.send(room, "hers")
    bob.send(room, "gone")
    while not isinstance(gone := bob.next(), Message) or gone.text != "gone":
        pass
    call(bob, "redact", gone)
    bob.send(to_ann, "one")
    ann.send(to_bob, "two")
    while not isinstance(two := bob.next(), Message) or two.text != "two":
        pass
    call(bob, "mark_read", two)
    for _ in range(2):  # nothing is left of the first time
        found = exported(bob)
        user, devices, chosen, *rest = found
        assert isinstance(user, User)
        assert (user.name, user.state) == (to_bob[1:], "active")
        assert isinstance(devices, Devices)
        assert len(devices.devices) == 1
        assert chosen == Preferences("all", "known", ())
        marks = [one for one in rest if isinstance(one, ReadUpTo)]
        assert marks == [ReadUpTo(to_ann, two.cursor)]
        roles = [(one.name, one.role) for one in rest if isinstance(one, ListedRoom)]
        assert roles == [(room, "owner")]
        entries = [one for one in rest if isinstance(one, LogEntry)]
        written = [(one.room, one.sender, one.text) for one in entries if isinstance(one, Message)]
        assert written == [
            (to_bob, to_bob[1:], "one"), (to_bob, to_ann[1:], "two"), (room, to_bob[1:], "mine"),
        ]  # fmt: skip
        assert any(isinstance(one, Erased) for one in entries)
    assert mine.cursor in {one.cursor for one in entries}
    ann.send(room, "still followed")
    while not isinstance(last := bob.next(), Message) or last.text != "still followed":
        pass


def test_an_export_that_is_given_up(people: tuple[Face, Face], room: str) -> None:
    """The room that was being read is left."""
    ann, bob = people
    for number in range(5):
        ann.send(f"@{bob.client.name}", str(number))
    assert isinstance(exported(bob, 6)[-1], Message)
    bob.join("@me")


def test_the_end_of_an_account(people: tuple[Face, Face], room: str) -> None:
    """With its messages: all others see that they were erased."""
    ann, bob = people
    to_bob = f"@{bob.client.name}"
    ann.join(room)
    for text in ("one", "two"):
        bob.send(room, text)
    bob.send(f"@{ann.client.name}", "direct")
    ann.send(to_bob, "hers")
    assert call(bob, "delete_account", erase_messages=True) == (3, 0)
    with pytest.raises(ClientError):
        bob.send(room, "three")
    page = ann.history(room)
    assert [one.text for one in page.entries if isinstance(one, Message)] == []
    assert sum(isinstance(one, Erased) for one in page.entries) == 2
    with pytest.raises(NotRegistered):
        ann.send(to_bob, "x")


def blocks(bob: Face, ann: str) -> None:
    call(bob, "block", ann)


def takes_nothing(bob: Face, ann: str) -> None:
    call(bob, "set_preferences", writers="nobody")


def is_gone(bob: Face, ann: str) -> None:
    call(bob, "delete_account")


@pytest.mark.parametrize(
    ("done", "left"),
    [(blocks, (2, 0)), (takes_nothing, (2, 0)), (is_gone, (1, 1))],
)
def test_nobody_can_keep_an_account_from_ending(
    people: tuple[Face, Face],
    room: str,
    done: Callable[[Face, str], None],
    left: tuple[int, int],
) -> None:
    """Messages are erased whoever has blocked their author, and the account ends in any case."""
    ann, bob = people
    ann.join(room)
    ann.send(room, "in a room")
    ann.send(f"@{bob.client.name}", "in an inbox")
    done(bob, ann.client.name)
    found = call(ann, "delete_account", erase_messages=True, rooms=[room])
    assert found == left


def test_a_guest_has_nothing(connect: Connect) -> None:
    guest = connect("~guest")
    with pytest.raises(NotAllowed):
        exported(guest)
    with pytest.raises(NotAllowed):
        call(guest, "delete_account")
