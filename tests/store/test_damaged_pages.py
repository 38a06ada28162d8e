"""A damaged page of a partition's file, as a running relay finds it: it costs those who need it.

The bytes of real files are overwritten. What is not on that page goes on, whatever is read for it
in a commit, once a second, once a minute, or when the file is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw
import pytest

from relay.chat.entries import Kind
from relay.store.errors import StoreUnavailable
from relay.store.file.schema import rows
from relay.store.log import LogUnreadable, Outcome, Repeated, Stored
from relay.store.producers import PASS_MS
from relay.store.sqlite import SqlitePartition
from tests.store.conftest import Hooks
from tests.store.test_direct import offer
from tests.store.test_sqlite import FailingOnce
from tests.support.logs import (
    BOB,
    NOW_MS,
    append,
    die,
    message,
    messages,
    open_partition,
    unnoticed,
)

PAGE: Final = 4096
MANY: Final = 400


def first_leaf(path: Path, table: str) -> int:
    """Return the page with the first rows of a table."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        leaves = "SELECT pageno FROM dbstat WHERE name=? AND pagetype='leaf' ORDER BY path LIMIT 1"
        [(page,)] = rows(connection, leaves, (table,))
    finally:
        connection.close(True)
    assert isinstance(page, int)
    return page - 1


def overwrite(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(b"\xff" * PAGE)


def damaged(partition: SqlitePartition, table: str) -> SqlitePartition:
    """Close a partition, damage the first page of a table, and open it again as it is."""
    partition.close()
    overwrite(partition.path, first_leaf(partition.path, table))
    unnoticed(partition)
    return open_partition(partition.path.parent)


def kinds(outcomes: list[Outcome]) -> list[type[Outcome]]:
    return [type(outcome) for outcome in outcomes]


def test_edits_that_cannot_be_read_concern_those_who_edit_or_erase(
    partition: SqlitePartition,
) -> None:
    """What cannot be known to be erased completely is not erased."""
    [original] = append(partition, offer(1, Kind.MESSAGE, b"hello"))
    again = offer(2, Kind.EDIT, b"hallo", original)
    append(partition, again, message(1, log="other"))
    partition = damaged(partition, "edit")
    batch = [
        offer(3, Kind.EDIT, b"hullo", original),
        message(2, log="other"),
        again,
        offer(3, Kind.REDACTION, b"", original),
        offer(3, Kind.MESSAGE, b"what?", original),
        message(1, producer=BOB),
    ]
    expected = [LogUnreadable, Stored, Repeated, LogUnreadable, Stored, Stored]
    assert kinds(partition.append(batch, NOW_MS)) == expected
    assert kinds(partition.append([message(2, producer=BOB)], NOW_MS)) == [Stored]


def test_a_repeat_whose_epoch_cannot_be_read(
    tmp_path: Path, partition: SqlitePartition, connection_hooks: Hooks
) -> None:
    """Anybody may send again what was stored in a former epoch."""
    append(partition, message(1))
    die(partition)
    fault = FailingOnce(connection_hooks, "SELECT epoch FROM epoch", apsw.CorruptError)
    partition = open_partition(tmp_path, boot_id="boot 2")
    append(partition, message(2))
    fault.armed = True
    outcomes = partition.append([message(1), message(3), message(1, log="other")], NOW_MS)
    assert not fault.armed
    assert kinds(outcomes) == [LogUnreadable, Stored, Stored]
    partition.close()


@pytest.mark.parametrize("error", [apsw.IOError, apsw.BusyError])
def test_a_message_that_cannot_be_read_now_is_no_missing_one(
    partition: SqlitePartition, connection_hooks: Hooks, error: type[apsw.Error]
) -> None:
    """Otherwise an edit would be refused for ever for what passes."""
    [original] = append(partition, offer(1, Kind.MESSAGE, b"hello"))
    partition.close()
    fault = FailingOnce(connection_hooks, "SELECT CAST(packed", error)
    partition = open_partition(partition.path.parent)
    edit = offer(2, Kind.EDIT, b"hallo", original)
    fault.armed = True
    with pytest.raises(StoreUnavailable):
        partition.append([edit], NOW_MS)
    assert kinds(partition.append([edit], NOW_MS)) == [Stored]
    partition.close()


def test_records_of_senders_that_cannot_be_read(tmp_path: Path, partition: SqlitePartition) -> None:
    """All of them are looked through in the background, a few each minute."""
    append(partition, message(1), message(1, log="other"))
    partition.flush()
    append(partition, message(2))
    opened = partition._opened
    assert opened is not None
    opened.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    die(partition)
    overwrite(partition.path, first_leaf(partition.path, "producer"))
    unnoticed(partition, "open")
    partition = open_partition(tmp_path)
    for counter in (3, 4):
        now_ms = NOW_MS + counter * PASS_MS
        outcomes = partition.append([message(counter), message(2, log="other")], now_ms)
        assert kinds(outcomes) == [Stored, LogUnreadable]
    die(partition)


def many_logs(partition: SqlitePartition) -> tuple[str, str]:
    """Fill a partition with logs; return two whose names are on different pages."""
    append(partition, *[message(1, log=f"room{number:04}") for number in range(MANY)])
    return "room0000", f"room{MANY - 1:04}"


def with_damaged_name(
    partition: SqlitePartition, statement: str, *bindings: int
) -> SqlitePartition:
    """Close a partition of many logs, damage the page with the first one's name, and open it."""
    partition.close()
    connection = apsw.Connection(str(partition.path))
    connection.execute(statement, bindings)
    connection.close()
    overwrite(partition.path, first_leaf(partition.path, "log"))
    unnoticed(partition)
    return open_partition(partition.path.parent)


def test_a_name_that_cannot_be_read_keeps_no_other_ban_from_ending(
    partition: SqlitePartition,
) -> None:
    _, other = many_logs(partition)
    due = "INSERT INTO state SELECT id, 1, 0, ?, x'' FROM log WHERE id IN (1, ?)"
    partition = with_damaged_name(partition, due, NOW_MS, MANY)
    for _ in range(2):
        assert partition.due(NOW_MS) == [other]
    assert kinds(partition.append([message(2), message(2, log=other)], NOW_MS))[1] is Stored
    partition.close()


def test_a_name_that_cannot_be_read_keeps_no_other_message_from_delivery(
    partition: SqlitePartition,
) -> None:
    _, other = many_logs(partition)
    pending = "INSERT INTO pending VALUES (1, 1), (?, 1)"
    partition = with_damaged_name(partition, pending, MANY)
    assert partition.pending() == [(other, 1, "")]
    partition.close()


def test_recipients_that_cannot_be_read_are_taken_from_the_messages(
    partition: SqlitePartition,
) -> None:
    """Their table is only faster."""
    append(partition, offer(1, Kind.MESSAGE, b"hi", log="@alice", to="bob"))
    assert partition.pending() == [("@alice", 1, "bob")]
    partition = damaged(partition, "direct")
    assert partition.pending() == [("@alice", 1, "")]
    assert kinds(partition.append(messages(1, 2), NOW_MS)) == [Stored, Stored]
    partition.close()
