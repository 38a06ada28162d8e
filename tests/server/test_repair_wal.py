"""A repair and the write-ahead log: it contains what was acknowledged, removed and erased last."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest

from relay.chat.entries import Kind
from relay.chat.partition import partition_of
from relay.server import repair as repairing
from relay.server.repair import Repaired
from relay.server.worker.home.room_rules import RoomRules
from relay.store.checkpoint import copy_pages
from relay.store.companions import wal_bytes, wal_path
from relay.store.directory import DataDirectory
from relay.store.generation import Host
from relay.store.sqlite import SqlitePartition
from relay.store.state import SEQ_BITS, SEQ_MASK
from relay.store.stub import LOST
from relay.wire.packing import pack_entry, unpack_entry
from tests.support.logs import NOW_MS, append, die, message

INDEX = partition_of("lobby")
OLD, NEW = [name for n in range(1000) if partition_of(name := f"room-{n}") == INDEX][:2]
REPLACE = "UPDATE entry SET packed=? WHERE id=(SELECT id FROM log WHERE name=?) << 40 | ?"
PACKED = "SELECT packed FROM entry WHERE id=(SELECT id FROM log WHERE name=?) << 40 | ?"
UNREADABLE = b"\xc1\xc1"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return DataDirectory(tmp_path / "data").path


def opened(data: Path) -> SqlitePartition:
    directory = DataDirectory(data)
    return SqlitePartition(
        directory.partition_path(INDEX),
        directory.lock_path(INDEX),
        host=Host("boot 1", secrets.token_bytes),
        durability="process",
        pack=pack_entry,
        unpack_entry=unpack_entry,
        rules=RoomRules(anyone_creates=True),
    )


def run(partition: SqlitePartition, statement: str, *values: str | int | bytes) -> list[Any]:
    """Alter a file through the connection of its writer, as pages that a disk has altered."""
    inner = partition._opened
    assert inner is not None
    return inner.connection.execute(statement, values).fetchall()


def repaired(data: Path, *, refused: bool) -> Repaired:
    """Repair the partition; return what was done about it."""
    with repairing.stopped(data) as directory:
        (found,) = repairing.check(directory)
        assert (found.refused is not None) is refused, found
        assert found.to_repair is not None
        made = repairing.repair(directory, found, line)
        (again,) = repairing.check(directory)
        assert again.refused is None
    return made


def line(packed: bytes) -> str:
    entry = unpack_entry(packed)
    return json.dumps([entry.log, entry.seq])


def rescued(made: Repaired) -> list[list[Any]]:
    path = made.kept_in / repairing.RESCUED
    return [json.loads(one) for one in path.read_text().splitlines()] if path.exists() else []


def contents(data: Path) -> dict[str, tuple[int, list[int]]]:
    """Return, for each log, its floor and what can be read above it."""
    connection = apsw.Connection(str(DataDirectory(data).partition_path(INDEX)))
    found: dict[str, tuple[int, list[int]]] = {}
    logs: list[Any] = connection.execute("SELECT id, name, floor FROM log").fetchall()
    for log_id, name, floor in logs:
        rows: list[Any] = connection.execute(
            "SELECT id FROM entry WHERE packed!=? ORDER BY id", (LOST,)
        ).fetchall()
        seqs = [row & SEQ_MASK for (row,) in rows if row >> SEQ_BITS == log_id]
        found[name] = floor, [seq for seq in seqs if seq > floor]
    connection.close()
    return found


@pytest.mark.parametrize("refused", [False, True], ids=["served", "refused"])
def test_nothing_goes_back_to_the_last_checkpoint(data: Path, refused: bool) -> None:
    """More was removed since then than was written, so the file alone has more entries."""
    partition = opened(data)
    partition.append([message(1)], NOW_MS)
    append(partition, *(message(number) for number in range(2, 201)))
    partition.append([message(1, log=OLD)], NOW_MS)
    partition.flush()
    copy_pages(partition.path)
    while partition.remove("lobby", 150, 0).entries:
        pass
    append(partition, *(message(number, log=OLD) for number in range(2, 21)))
    partition.append([message(1, log=NEW)], NOW_MS)
    append(partition, message(2, log=NEW))
    run(partition, REPLACE, UNREADABLE, NEW, 3)
    if refused:
        run(partition, "DELETE FROM epoch WHERE log_id=(SELECT id FROM log WHERE name=?)", NEW)
    die(partition)
    assert wal_bytes(DataDirectory(data).partition_path(INDEX))
    made = repaired(data, refused=refused)
    assert {log.name: log.lost for log in made.logs} == {"lobby": 0, OLD: 0, NEW: 1}
    assert contents(data) == {
        "lobby": (150, list(range(151, 202))),
        OLD: (0, list(range(1, 22))),
        NEW: (0, [1, 2]),
    }
    assert not rescued(made), "removed entries are not rescued"


def test_a_wal_that_is_older_than_its_file_is_ignored(data: Path) -> None:
    """The file alone has all, and goes back in nothing."""
    partition = opened(data)
    partition.append([message(1)], NOW_MS)
    append(partition, *(message(number) for number in range(2, 101)))
    path = partition.path
    old = wal_path(path).with_name("old")
    shutil.copy(wal_path(path), old)
    append(partition, *(message(number) for number in range(101, 301)))
    partition.close()
    shutil.copy(old, wal_path(path))
    made = repaired(data, refused=True)
    assert [(log.name, log.kept, log.lost) for log in made.logs] == [("lobby", 301, 0)]


def test_what_was_erased_stays_erased(data: Path) -> None:
    """The end of the log is the same with the WAL and without it."""
    partition = opened(data)
    partition.append([message(1)], NOW_MS)
    append(partition, *(message(number) for number in range(2, 51)))
    partition.flush()
    copy_pages(partition.path)
    [(packed,)] = run(partition, PACKED, "lobby", 10)
    erased = unpack_entry(packed)._replace(kind=int(Kind.ERASED), content_type="", body=b"")
    run(partition, REPLACE, pack_entry(erased), "lobby", 10)
    run(partition, REPLACE, UNREADABLE, "lobby", 20)
    run(partition, "DELETE FROM epoch")
    die(partition)
    made = repaired(data, refused=True)
    assert [(log.kept, log.lost, log.aside) for log in made.logs] == [(50, 1, 1)]
    assert rescued(made) == [["lobby", 20]], "it can be read in the file without its WAL"
    connection = apsw.Connection(str(DataDirectory(data).partition_path(INDEX)))
    [[kept]] = connection.execute(PACKED, ("lobby", 10)).fetchall()
    assert isinstance(kept, bytes)
    assert unpack_entry(kept).kind == Kind.ERASED
    connection.close()


def test_another_message_in_the_same_place_is_rescued(data: Path) -> None:
    """As when an older file was put beside a write-ahead log: both messages were acknowledged."""
    partition = opened(data)
    partition.append([message(1)], NOW_MS)
    append(partition, *(message(number) for number in range(2, 51)))
    partition.flush()
    copy_pages(partition.path)
    [(packed,)] = run(partition, PACKED, "lobby", 10)
    run(partition, REPLACE, pack_entry(unpack_entry(packed)._replace(body=b"other")), "lobby", 10)
    run(partition, "DELETE FROM epoch")
    die(partition)
    made = repaired(data, refused=True)
    assert [(log.kept, log.lost, log.aside) for log in made.logs] == [(51, 0, 1)]
    assert rescued(made) == [["lobby", 10]]
