"""A repair and the write-ahead log: it contains what was acknowledged, removed and erased last."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from relay.chat.entries import Extra, Kind
from relay.chat.partition import partition_of
from relay.chat.rooms import events
from relay.chat.rooms import state as rooms
from relay.chat.rooms.events import Kind as RoomKind
from relay.server.offline import repair as repairing
from relay.server.offline.repair import Repaired
from relay.server.worker.home.rooms.entries import entry_of as room_entry
from relay.server.worker.home.rooms.rules import RoomRules
from relay.store.file.checkpoint import copy_pages
from relay.store.file.companions import wal_bytes, wal_path
from relay.store.file.directory import DataDirectory
from relay.store.file.generation import Host
from relay.store.log import IdConflict, Repeated
from relay.store.sqlite import SqlitePartition
from relay.store.state import SEQ_BITS, SEQ_MASK
from relay.store.stub import LOST
from relay.wire.packing import pack_entry, unpack_entry
from tests.support.logs import NOW_MS, append, die, message

INDEX = partition_of("lobby")
OLD, NEW = [name for n in range(1000) if partition_of(name := f"room-{n}") == INDEX][:2]
REPLACE = "UPDATE entry SET packed=? WHERE id=(SELECT id FROM log WHERE name=?) << 40 | ?"
PACKED = "SELECT packed FROM entry WHERE id=(SELECT id FROM log WHERE name=?) << 40 | ?"
ANN = b"\xaa" * 32
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


def packed_of(data: Path, log: str, seq: int) -> bytes:
    connection = apsw.Connection(str(DataDirectory(data).partition_path(INDEX)))
    [[kept]] = connection.execute(PACKED, (log, seq)).fetchall()
    connection.close()
    assert isinstance(kept, bytes)
    return kept


def fill(partition: SqlitePartition) -> None:
    partition.append([message(1)], NOW_MS)
    append(partition, *(message(number) for number in range(2, 51)))


def erase(partition: SqlitePartition, counter: int, seq: int) -> None:
    """Redact a message, as its author."""
    epoch = unpack_entry(run(partition, PACKED, "lobby", seq)[0][0]).epoch
    extra = Extra(about_epoch=epoch, about_seq=seq, verdict=0)
    append(partition, message(counter, b"why")._replace(kind=int(Kind.REDACTION), extra=extra))


@pytest.mark.parametrize("lost", ["nothing", "the redaction"])
def test_what_was_erased_stays_erased(data: Path, lost: str) -> None:
    """Message 20 can be read in the file alone; it may have been erased since.

    So it is only in its place again if everything behind it can be read.
    """
    partition = opened(data)
    fill(partition)
    partition.flush()
    copy_pages(partition.path)
    erase(partition, 51, 10)
    append(partition, message(52))
    run(partition, REPLACE, UNREADABLE, "lobby", 20)
    if lost == "the redaction":
        run(partition, REPLACE, UNREADABLE, "lobby", 52)
    run(partition, "DELETE FROM epoch")
    die(partition)
    made = repaired(data, refused=True)
    counts = [(log.kept, log.lost, log.aside) for log in made.logs]
    assert counts == ([(53, 0, 0)] if lost == "nothing" else [(51, 2, 1)])
    assert rescued(made) == ([] if lost == "nothing" else [["lobby", 20]])
    assert unpack_entry(packed_of(data, "lobby", 10)).kind == Kind.ERASED


def older_wal(partition: SqlitePartition, change: Callable[[], object]) -> None:
    """Make the file newer than its WAL in one log, and the WAL newer in another (``OLD``).

    As when the two were copied at different times, or a WAL is damaged at its beginning.
    """
    path = partition.path
    other = path.parent.parent.with_name("other")
    shutil.copytree(path.parent.parent, other)
    change()
    copy_pages(path)
    die(partition)
    wal_path(path).unlink()
    newer = opened(other)
    newer.append([message(1, log=OLD)], NOW_MS)
    run(newer, "DELETE FROM epoch")
    die(newer)
    shutil.copy(wal_path(newer.path), wal_path(path))


@pytest.mark.parametrize("redaction", ["read", "lost"])
def test_what_only_the_file_has_erased_stays_erased(data: Path, redaction: str) -> None:
    """The repair goes by the write-ahead log, which has the row from before."""
    partition = opened(data)
    fill(partition)

    def change() -> None:
        erase(partition, 51, 10)
        if redaction == "lost":
            run(partition, REPLACE, UNREADABLE, "lobby", 52)

    older_wal(partition, change)
    made = repaired(data, refused=True)
    assert {log.name: log.kept + log.lost for log in made.logs} == {"lobby": 52, OLD: 2}
    assert unpack_entry(packed_of(data, "lobby", 10)).kind == Kind.ERASED
    assert not any(b"message 9" in one.read_bytes() for one in made.kept_in.glob("*.jsonl"))


def test_a_redaction_erases_a_row_from_before(data: Path) -> None:
    """The page with the erased row is lost; another one still has it with its text."""
    partition = opened(data)
    fill(partition)
    epoch = unpack_entry(run(partition, PACKED, "lobby", 10)[0][0]).epoch
    edit = Extra(about_epoch=epoch, about_seq=10, verdict=0)
    append(partition, message(51, b"edited")._replace(kind=int(Kind.EDIT), extra=edit))
    before = {seq: run(partition, PACKED, "lobby", seq)[0][0] for seq in (10, 52)}
    erase(partition, 52, 10)
    for seq, packed in before.items():
        assert run(partition, PACKED, "lobby", seq)[0][0] != packed
        run(partition, REPLACE, packed, "lobby", seq)
    run(partition, "DELETE FROM epoch")
    die(partition)
    repaired(data, refused=True)
    assert [unpack_entry(packed_of(data, "lobby", seq)).kind for seq in before] == [Kind.ERASED] * 2


def test_what_only_the_file_has_removed_stays_removed(data: Path) -> None:
    partition = opened(data)
    fill(partition)

    def change() -> None:
        while partition.remove("lobby", 30, 0).entries:
            pass

    older_wal(partition, change)
    repaired(data, refused=True)
    assert contents(data)["lobby"] == (30, list(range(31, 52)))
    path = DataDirectory(data).partition_path(INDEX)
    assert b"message 12" not in path.read_bytes()
    partition = opened(data)
    [again, other] = partition.append([message(12), message(13, b"else")], NOW_MS)
    assert type(again) is Repeated, "its resend is recognised"
    assert other == IdConflict(14)
    partition.close()


def test_a_ban_that_only_the_file_has_stays(data: Path) -> None:
    """Its log ends earlier with the write-ahead log, another log ends earlier without it."""
    partition = opened(data)
    created = room_entry("lobby", 0, events.Created(RoomKind.PUBLIC, True, ANN), "ann", b"")
    append(partition, created)
    banned = events.Banned("eve", b"\xee" * 32, 0, "")
    older_wal(partition, lambda: append(partition, room_entry("lobby", 1, banned, "ann", b"")))
    made = repaired(data, refused=True)
    counts = [(log.name, log.kept, log.lost, log.doubtful) for log in made.logs]
    assert counts == [("lobby", 2, 0, False), (OLD, 2, 0, False)]
    connection = apsw.Connection(str(DataDirectory(data).partition_path(INDEX)))
    [[packed]] = connection.execute(
        "SELECT packed FROM state JOIN log ON log.id=log_id WHERE name=?", ("lobby",)
    ).fetchall()
    connection.close()
    assert isinstance(packed, bytes)
    assert rooms.unpack(packed).people["eve"].banned


def test_control_entries_below_the_floor_are_compared(data: Path) -> None:
    """The WAL has one that cannot be read; nothing else tells the rights since the removal."""
    partition = opened(data)
    append(
        partition, room_entry("lobby", 0, events.Created(RoomKind.PUBLIC, True, ANN), "ann", b"")
    )
    append(partition, *(message(number) for number in range(1, 21)))
    while partition.remove("lobby", 15, 0).entries:
        pass
    partition.flush()
    copy_pages(partition.path)
    run(partition, REPLACE, UNREADABLE, "lobby", 1)
    run(partition, "UPDATE state SET packed=x'c2'")
    die(partition)
    made = repaired(data, refused=False)
    assert [(log.lost, log.doubtful) for log in made.logs] == [(0, False)]
    assert unpack_entry(packed_of(data, "lobby", 1)).kind == Kind.SYSTEM


def test_rows_that_outlive_their_entries_are_kept(data: Path) -> None:
    """Read marks, and by which a copy of a direct message is recognised when it comes again."""
    inbox = next(name for n in range(1000) if partition_of(name := f"@user-{n}") == INDEX)
    partition = opened(data)
    copy = Extra(
        to=inbox[1:], verdict=0, origin_epoch=b"epoch..B", origin_seq=7
    )  # of a message of bob
    epoch = append(partition, message(1)._replace(log=inbox, sender="bob", counter=7, extra=copy))
    mark = message(1, b"lobby", log=inbox)._replace(
        kind=int(Kind.MARK), content_type="",
        extra=Extra(about_epoch=epoch[0].epoch, about_seq=33, verdict=0),
    )  # fmt: skip
    append(partition, mark, message(2, log=inbox), message(3, log=inbox))
    while partition.remove(inbox, 2, 0).entries:
        pass
    tables = ["SELECT peer, seq, epoch, origin FROM direct", "SELECT about, epoch, seq FROM mark"]
    before = [run(partition, table) for table in tables]
    assert all(before)
    run(partition, "DELETE FROM epoch")
    die(partition)
    repaired(data, refused=True)
    partition = opened(data)
    assert [run(partition, table) for table in tables] == before
    partition.close()


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
