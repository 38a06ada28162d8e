"""The rooms of a user: a table derived from the states of rooms, in the same commit."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from relay.chat.entries import Submission
from relay.chat.rooms import events
from relay.chat.rooms.events import Kind, Role
from relay.server.worker.home.rooms.entries import entry_of
from relay.server.worker.home.rooms.rules import RoomRules
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from tests.support.logs import NOW_MS, append, open_partition, salvaged, unnoticed

ANN, BOB, CAT, DAN = b"\xaa" * 32, b"\xbb" * 32, b"\xcc" * 32, b"\xdd" * 32


def change(version: int, event: events.Event, by: str = "ann", log: str = "lobby") -> Submission:
    return entry_of(log, version, event, by, b"")


@pytest.fixture
def partition(tmp_path: Path) -> SqlitePartition:
    """A lobby of ann, with bob as a member and cat invited; a den of bob, with ann as a member.

    Dan was given a role in the lobby, and has not entered.
    """
    made = open_partition(tmp_path)
    made._rules = RoomRules(anyone_creates=True)
    for one in (
        change(0, events.Created(Kind.PUBLIC, True, ANN)),
        change(1, events.Entered(BOB), "bob"),
        change(2, events.Invited("cat", CAT)),
        change(3, events.RoleSet("dan", DAN, Role.MEMBER)),
        change(0, events.Created(Kind.PRIVATE, True, BOB), "bob", "den"),
        change(1, events.Invited("ann", ANN), "bob", "den"),
        change(2, events.Entered(ANN), "ann", "den"),
    ):
        append(made, one)
    return made


def everything(tmp_path: Path) -> dict[str, list[str]]:
    reader = SqliteReader(tmp_path / "00.sqlite")
    people = {"ann": ANN, "bob": BOB, "cat": CAT}
    return {name: reader.memberships(name, root, "", 10) for name, root in people.items()}


def test_the_rooms_of_a_person(tmp_path: Path, partition: SqlitePartition) -> None:
    reader = SqliteReader(tmp_path / "00.sqlite")
    assert everything(tmp_path) == {
        "ann": ["den", "lobby"], "bob": ["den", "lobby"], "cat": ["lobby"],
    }  # fmt: skip
    assert reader.memberships("ann", ANN, "", 1) == ["den"]
    assert reader.memberships("ann", ANN, "den", 9) == ["lobby"]
    assert reader.memberships("ann", BOB, "", 9) == [], "another account of this name"
    assert [reader.owned(name, root) for name, root in (("ann", ANN), ("cat", CAT))] == [1, 0]
    assert reader.shares("ann", ANN, "bob", BOB)
    assert not reader.shares("cat", CAT, "bob", BOB), "an invited user is no permanent member"
    assert not reader.shares("dan", DAN, "bob", BOB), "nor is one who was only given a role"
    assert not reader.shares("ann", ANN, "bob", CAT)


def test_it_follows_each_change(tmp_path: Path, partition: SqlitePartition) -> None:
    append(partition, change(4, events.Entered(CAT), "cat"))
    assert SqliteReader(tmp_path / "00.sqlite").shares("cat", CAT, "bob", BOB)
    batch = [change(5, events.Left(), "cat"), change(6, events.Banned("bob", BOB, 0, ""))]
    append(partition, *batch)
    assert everything(tmp_path) == {"ann": ["den", "lobby"], "bob": ["den"], "cat": []}
    append(partition, change(7, events.Deleted("")))
    assert everything(tmp_path) == {"ann": ["den"], "bob": ["den"], "cat": []}
    append(partition, change(8, events.Created(Kind.PUBLIC, True, CAT), "cat"))
    assert everything(tmp_path) == {"ann": ["den"], "bob": ["den"], "cat": ["lobby"]}


def test_a_file_of_format_3_is_brought_up_to_date(
    tmp_path: Path, partition: SqlitePartition
) -> None:
    """A reader may open it before the writer: then no user has a room yet."""
    before = everything(tmp_path)
    partition.close()
    connection = apsw.Connection(str(tmp_path / "00.sqlite"))
    connection.execute("DROP TABLE member")
    connection.execute("DROP TABLE fold")
    connection.execute("DROP TABLE unflushed")
    connection.execute("PRAGMA user_version=3")
    connection.close()
    unnoticed(partition)
    reader = SqliteReader(tmp_path / "00.sqlite")
    assert reader.memberships("ann", ANN, "", 9) == []
    open_partition(tmp_path).head("lobby")
    assert everything(tmp_path) == before
    assert reader.memberships("ann", ANN, "", 9) == before["ann"]


def test_a_salvaged_file_has_it(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    partition._rules = RoomRules(anyone_creates=True)
    append(partition, change(0, events.Created(Kind.PUBLIC, True, ANN)))
    append(partition, change(1, events.RoleSet("bob", BOB, Role.MEMBER)))
    assert partition.append([change(1, events.Closed(True))], NOW_MS)  # of a state that has gone
    partition.close()
    new = tmp_path / "new.sqlite"
    salvaged(tmp_path / "00.sqlite", new)
    rows = "SELECT * FROM member ORDER BY handle"
    made = [apsw.Connection(str(path)) for path in (tmp_path / "00.sqlite", new)]
    before, after = (connection.execute(rows).fetchall() for connection in made)
    assert len(before) == 2
    assert before == after
    for connection in made:
        connection.close()
