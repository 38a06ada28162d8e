"""Nobody gets rights because an entry is lost, also one that no table lists as a control entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from relay.chat.accounts import invitation
from relay.chat.entries import Kind as EntryKind
from relay.chat.entries import Submission
from relay.chat.rooms import events
from relay.chat.rooms import state as rooms
from relay.chat.rooms.events import Kind
from relay.chat.rooms.state import Room
from relay.server.worker.home.rooms.entries import entry_of
from relay.server.worker.home.rooms.rules import RoomRules
from relay.store.salvage.log import SalvagedLog
from relay.store.stub import LOST
from tests.support import logs
from tests.support.logs import append, message, open_partition

ANN = b"\xaa" * 32
CREATED = entry_of("lobby", 0, events.Created(Kind.PRIVATE, False, ANN), "ann", b"")
TOPIC = entry_of("lobby", 1, events.TopicSet("tea"), "ann", b"")
LATER_TOPIC = entry_of("lobby", 2, events.TopicSet("tea"), "ann", b"")
BAN = entry_of("lobby", 1, events.Banned("eve", b"\xee" * 32, 0, ""), "ann", b"")
INVITATION = invitation.log_of(b"\xcc" * 32)
LISTED_MESSAGE = "INSERT INTO control SELECT id, 4 FROM log;"
WRITTEN = message(1)._replace(sender="ann", root=ANN)


def unreadable(seq: int) -> str:
    return f"UPDATE entry SET packed=x'c1c1' WHERE id & 0xff = {seq};"  # noqa: S608 - a number


def unlisted(seq: int) -> str:
    return f"DELETE FROM control WHERE seq={seq};"  # noqa: S608 - a number


def salvaged(
    path: Path, damage: str, *batch: Submission, rules: bool = True
) -> tuple[SalvagedLog, apsw.Connection]:
    """Store entries of one log, damage the file, and salvage it."""
    path.mkdir(exist_ok=True)
    partition = open_partition(path)
    if rules:
        partition._rules = RoomRules(anyone_creates=True)
    for one in batch:
        append(partition, one)
    partition.close()
    connection = apsw.Connection(str(path / "00.sqlite"))
    connection.execute(damage)
    connection.close()
    [found] = logs.salvaged(path / "00.sqlite", path / "new.sqlite", batch[0].log)
    return found, apsw.Connection(str(path / "new.sqlite"))


def room_in(connection: apsw.Connection) -> Room | None:
    """Return the stored room; None: nobody has rights there."""
    found: list[Any] = connection.execute("SELECT packed FROM state").fetchall()
    connection.close()
    [(packed,)] = found
    return None if packed == LOST else rooms.unpack(packed)


@pytest.mark.parametrize(
    ("batch", "damage"),
    [
        ((CREATED, WRITTEN), unlisted(1) + unreadable(1)),
        ((CREATED, TOPIC, WRITTEN), unlisted(1) + unreadable(1)),
        ((CREATED, BAN, LATER_TOPIC), unlisted(2) + unlisted(3) + unreadable(2)),
        ((CREATED, BAN, WRITTEN), unlisted(1) + unlisted(2) + unreadable(1) + unreadable(2)),
        ((CREATED, WRITTEN, message(2)._replace(sender="ann", root=ANN)), unreadable(2)),
    ],
    ids=["creation", "creation before another", "ban", "all", "message"],
)
@pytest.mark.parametrize("state", ["good", "unreadable"])
def test_the_rights_in_a_room(
    tmp_path: Path, batch: tuple[Submission, ...], damage: str, state: str
) -> None:
    """The stored state counts. Without it, only what follows from the entries for sure."""
    is_message = damage == unreadable(2)
    whole, made = salvaged(tmp_path / "whole", "", *batch)
    before = room_in(made)
    if state == "unreadable":
        damage += "UPDATE state SET packed=x'c2'"
    found, made = salvaged(tmp_path / "damaged", damage, *batch)
    room = room_in(made)
    assert not whole.lost
    assert before is not None
    assert before.kind is Kind.PRIVATE
    known = state == "good" or is_message
    assert room == (before if known else None)
    assert found.doubtful is not known


def test_a_stored_state_that_is_older_than_the_entries(tmp_path: Path) -> None:
    """It lacks the ban, and the entries may lack something else."""
    old = rooms.pack(rooms.applied(Room(), events.Created(Kind.PUBLIC, True, ANN), "ann", 1))
    damage = f"UPDATE state SET packed=x'{old.hex()}', seq=1;" + unreadable(3)  # noqa: S608
    found, made = salvaged(tmp_path, damage, CREATED, BAN, WRITTEN)
    assert found.doubtful
    assert room_in(made) is None


def test_a_room_that_nothing_creates(tmp_path: Path) -> None:
    found, made = salvaged(tmp_path, unreadable(1), message(1), message(2), rules=False)
    assert found.doubtful
    assert room_in(made) is None


@pytest.mark.parametrize("noted", [False, True], ids=["entries", "and a later state"])
@pytest.mark.parametrize(
    ("log", "damage", "known"),
    [
        ("@alice", unreadable(2), False),
        ("@alice", unlisted(2) + unlisted(3) + unreadable(2), False),
        ("@alice", unlisted(3) + unreadable(2), False),
        ("@alice", unlisted(2) + LISTED_MESSAGE + unreadable(2), False),
        ("@alice", unreadable(4), True),
        (INVITATION, unlisted(2) + unreadable(2), False),
    ],
    ids=["listed", "not listed", "another lacks", "another is listed", "message", "invitation"],
)
def test_an_account_and_an_invitation(
    tmp_path: Path, log: str, damage: str, known: bool, noted: bool
) -> None:
    """A lost entry may have removed a device. Then the log cannot be read, or a later state counts.

    What the entries mean is nothing to the store.
    """
    controls = [
        message(number, b"event", log=log)._replace(kind=int(EntryKind.SYSTEM))
        for number in (1, 2, 3)
    ]
    if noted:
        damage += "INSERT INTO fold SELECT id, 3, x'aa' FROM log;"
    found, made = salvaged(
        tmp_path, damage, *controls, message(4, log=log), message(5, log=log), rules=False
    )
    listed = {seq for (seq,) in made.execute("SELECT seq FROM control").fetchall()}
    folds = made.execute("SELECT seq, packed FROM fold").fetchall()
    made.close()
    assert listed == {1, 2, 3}
    assert found.lost == 1
    assert found.doubtful is (not known and not noted)
    assert folds == ([(3, b"\xaa")] if noted else [])
