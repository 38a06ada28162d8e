"""Which entries of a file are control entries: what a check compares, and what older
formats lack.
"""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from relay.chat.rooms import events
from relay.chat.rooms.events import Kind, Role
from relay.server.worker.home.rooms.rules import RoomRules
from relay.store.file.integrity import check_file
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from relay.wire.packing import unpack_entry
from tests.store.test_direct import control
from tests.store.test_members import ANN, BOB, change
from tests.support.logs import append, message, open_partition, unnoticed

FALSE_CONTROL = b"\x03\xaarelay/room"
"""The content of a control entry, as the body of a message."""


@pytest.fixture
def partition(tmp_path: Path) -> SqlitePartition:
    """A room with three control entries and two messages, an account with two, a direct message."""
    made = open_partition(tmp_path)
    made._rules = RoomRules(anyone_creates=True)
    append(made, change(0, events.Created(Kind.PUBLIC, True, ANN)))
    append(made, change(1, events.RoleSet("bob", BOB, Role.MEMBER)))
    append(made, message(1, FALSE_CONTROL))
    append(made, change(2, events.TopicSet("tea")))
    append(made, message(2), control(1), control(2))
    return made


@pytest.mark.parametrize(
    ("count", "upto", "after"), [(1, 5, 4), (1, 4, 2), (2, 5, 2), (3, 5, 0), (1, 2, 0)]
)
def test_the_last_messages_are_counted_without_controls(
    partition: SqlitePartition, count: int, upto: int, after: int
) -> None:
    """A request for the last one returns a message, not a change of the topic."""
    reader = SqliteReader(partition.path)
    assert reader.floor_of_last("lobby", count, upto) == after
    reader.close()


def look(path: Path) -> str | None:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return check_file(connection, unpack=unpack_entry, partition=None, limit_s=None).damage
    finally:
        connection.close()


def changed(partition: SqlitePartition, *statements: str) -> Path:
    """Close it, and change its file in a way that no version does."""
    partition.close()
    connection = apsw.Connection(str(partition.path))
    for statement in statements:
        connection.execute(statement)
    connection.close()
    unnoticed(partition)
    return partition.path


def test_a_file_that_is_whole(partition: SqlitePartition) -> None:
    partition.remove("lobby", 3, 0)
    assert look(partition.path) is None
    partition.remove("lobby", 4, 2)
    partition.close()
    assert look(partition.path) is None


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        (
            "DELETE FROM control WHERE seq=2 AND log_id=(SELECT id FROM log WHERE name='lobby')",
            "2 of log lobby",
        ),
        (
            "DELETE FROM control WHERE seq=1 AND log_id=(SELECT id FROM log WHERE name='@alice')",
            "1 of log @alice",
        ),
        ("INSERT INTO control SELECT id, 3 FROM log WHERE name='lobby'", "3 of log lobby"),
        ("INSERT INTO control SELECT id, 9 FROM log WHERE name='lobby'", "9 of log lobby"),
    ],
)
def test_rows_of_another_moment(partition: SqlitePartition, statement: str, finding: str) -> None:
    """They list an entry that is no control entry, or lack one."""
    found = look(changed(partition, statement))
    assert found is not None
    assert finding in found


@pytest.mark.parametrize(
    ("table", "version"), [("direct", 3), ("state", 2), ("member", 4), ("unflushed", 5)]
)
def test_a_table_that_is_missing(partition: SqlitePartition, table: str, version: int) -> None:
    """A table of the format that the file claims to have, not of a later one."""
    path = changed(partition, f"DROP TABLE {table}", f"PRAGMA user_version={version}")
    assert look(path) == f"the table {table} is missing"


def test_an_index_that_is_missing(partition: SqlitePartition) -> None:
    path = changed(partition, "DROP INDEX direct_origin")
    assert look(path) == "the index direct_origin is missing"


def test_a_file_of_format_2_is_brought_up_to_date(
    partition: SqlitePartition, tmp_path: Path
) -> None:
    """The control entries of its rooms are found, and no messages that only look like one."""
    older = [f"DROP TABLE {name}" for name in ("control", "direct", "pending", "edit", "mark")]
    path = changed(
        partition, *older, *(f"DROP TABLE {name}" for name in ("member", "fold", "unflushed")),
        "PRAGMA user_version=2",
    )  # fmt: skip
    open_partition(tmp_path).close()
    reader = SqliteReader(path)
    assert [unpack_entry(one).seq for one in reader.controls("lobby")] == [1, 2, 4]
    assert len(reader.controls("@alice")) == 2
    reader.close()
    assert look(path) is None


def test_a_reader_knows_the_format_that_its_file_has_now(
    partition: SqlitePartition, tmp_path: Path
) -> None:
    """Upgraded while it is open, and replaced by one of the older format."""
    older = [f"DROP TABLE {name}" for name in ("control", "direct", "pending", "edit", "mark")]
    path = changed(
        partition, *older, *(f"DROP TABLE {name}" for name in ("member", "fold", "unflushed")),
        "PRAGMA user_version=2",
    )  # fmt: skip
    before = path.read_bytes()

    def seqs() -> list[int]:
        return [unpack_entry(one).seq for one in reader.controls("lobby")]

    reader = SqliteReader(path)
    assert (seqs(), reader.fold("lobby")) == ([1, 2, 3, 4, 5], (0, b""))
    open_partition(tmp_path).close()
    for _ in range(2):  # the second time it is known
        assert (seqs(), reader.fold("lobby")) == ([1, 2, 4], (0, b""))
    again = path.with_suffix(".again")
    again.write_bytes(before)
    again.rename(path)
    assert (seqs(), reader.fold("lobby")) == ([1, 2, 3, 4, 5], (0, b""))
    reader.close()


def begun_again(partition: SqlitePartition, *statements: str) -> Path:
    """Delete the lobby, create it again, and close and change its file."""
    append(partition, change(4, events.Deleted("over")))
    append(partition, change(6, events.Created(Kind.PUBLIC, True, ANN)))
    append(partition, message(3))
    return changed(partition, *statements)


UNKNOWN_AS_IT_WAS = (
    "DELETE FROM control WHERE seq=7 AND log_id=(SELECT id FROM log WHERE name='lobby')",
    "DELETE FROM meta WHERE key='creations_noted'",
)


def test_a_room_that_begins_again(partition: SqlitePartition) -> None:
    """Its create entry is a control entry: for a check, and for counts."""
    path = begun_again(partition)
    assert look(path) is None
    reader = SqliteReader(path)
    assert [unpack_entry(one).seq for one in reader.controls("lobby")] == [1, 2, 4, 6, 7]
    reader.close()


def test_a_room_that_began_again_in_an_older_relay(
    partition: SqlitePartition, tmp_path: Path
) -> None:
    """That version did not list the entry: the file is valid, and what it lacks is added."""
    path = begun_again(partition, *UNKNOWN_AS_IT_WAS)
    assert look(path) is None
    open_partition(tmp_path).close()
    reader = SqliteReader(path)
    assert [unpack_entry(one).seq for one in reader.controls("lobby")] == [1, 2, 4, 6, 7]
    reader.close()


def test_a_message_at_the_beginning_of_an_epoch_is_no_room(
    partition: SqlitePartition, tmp_path: Path
) -> None:
    """Whatever its body is; an unreadable entry does not prevent opening the file."""
    partition.close()
    (tmp_path / "00.lock").unlink()  # the next append begins an epoch
    again = open_partition(tmp_path)
    again._rules = RoomRules(anyone_creates=True)
    append(again, message(3, FALSE_CONTROL))
    path = changed(again, UNKNOWN_AS_IT_WAS[1])
    open_partition(tmp_path).close()
    assert look(path) is None
    broken = "UPDATE entry SET packed=x'c1' || CAST('relay/room' AS BLOB) WHERE id & 0xFFFF=6"
    connection = apsw.Connection(str(path))
    connection.execute(broken)
    connection.execute(UNKNOWN_AS_IT_WAS[1])
    connection.close()
    unnoticed(again)
    open_partition(tmp_path).close()
