"""Copies of a partition: complete ones begin new epochs, inconsistent ones are refused
unchanged.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from relay.chat.partition import PARTITIONS
from relay.server.worker.stored import readable
from relay.store.errors import StoreCorrupt, StoreUnavailable
from relay.store.file.checkpoint import copy_pages, finish
from relay.store.file.created import note_created
from relay.store.file.directory import DataDirectory
from relay.store.file.integrity import CheckUnfinished, check_file
from relay.store.file.lock import PartitionLock, read_refusal
from relay.store.reading.reader import SqliteReader
from relay.store.recovery import recover
from relay.store.salvage.log import SalvagedLog
from relay.store.sqlite import SqlitePartition
from relay.wire.packing import pack_entry, unpack_entry
from tests.support.logs import (
    ALICE,
    BOB,
    append,
    die,
    message,
    messages,
    open_partition,
    salvaged,
    unnoticed,
)

BODY = b"x" * 3000
MAIN, WAL, LOCK = "00.sqlite", "00.sqlite-wal", "00.lock"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    path = tmp_path / "copy"
    path.mkdir()
    return path


def fill(partition: SqlitePartition, first: int, last: int) -> None:
    for number in range(first, last + 1):
        producer = BOB if number % 2 else ALICE
        append(partition, message((number + 1) // 2, BODY, producer=producer))


def checkpoint(partition: SqlitePartition) -> None:
    partition.checkpoint_begins()
    copy_pages(partition.path)
    assert finish(partition.path).complete
    partition.checkpoint_ended()


def take(names: list[str], data: Path, copy: Path) -> None:
    for name in names:
        shutil.copy2(data / name, copy / name)


def contents(path: Path) -> dict[str, bytes]:
    """Return all files that matter; SQLite may rebuild the index of the WAL."""
    return {p.name: p.read_bytes() for p in path.iterdir() if not p.name.endswith("-shm")}


def assert_refused(path: Path, match: str) -> None:
    before = contents(path)
    with pytest.raises(StoreCorrupt, match=rf"{match}.*restore all of .*/00\.\* from one backup"):
        open_partition(path, at_start=True)
    before.setdefault(LOCK, b"")
    assert contents(path) == before


def reopened(path: Path, boot_id: str = "boot 1") -> bool:
    """Open it, append to it and close it; return whether the epoch is the old one."""
    partition = open_partition(path, boot_id=boot_id)
    before = partition.head("lobby")
    after = append(partition, message(1, producer=os.urandom(8)))[0]
    assert after.seq == before.seq + 1
    partition.close()
    return after.epoch == before.epoch


# --- torn ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("lock", ["without", "first", "last"])
@pytest.mark.parametrize("first", [MAIN, WAL])
@pytest.mark.parametrize("checkpoints", [1, 2, 5])
def test_file_and_wal_of_different_moments(
    data: Path, copy: Path, first: str, lock: str, checkpoints: int
) -> None:
    partition = open_partition(data)
    fill(partition, 1, 10)
    checkpoint(partition)
    fill(partition, 11, 20)
    take([first, *([LOCK] if lock == "first" else [])], data, copy)
    for number in range(checkpoints):
        checkpoint(partition)
        fill(partition, 21 + 10 * number, 30 + 10 * number)
    if first == MAIN and checkpoints == 1:
        checkpoint(partition)
        fill(partition, 31, 40)
    take([WAL if first == MAIN else MAIN, *([LOCK] if lock == "last" else [])], data, copy)
    partition.close()
    assert_refused(copy, "of different moments")


def test_a_file_of_one_moment_without_a_checkpoint_between_is_whole(data: Path, copy: Path) -> None:
    """No consistent copy is refused: all that the file lacks is in the WAL."""
    partition = open_partition(data)
    fill(partition, 1, 10)
    checkpoint(partition)
    take([MAIN], data, copy)
    fill(partition, 11, 20)
    take([WAL], data, copy)
    partition.close()
    assert reopened(copy) is False


def test_an_older_file_under_the_wal_of_a_killed_server(data: Path, copy: Path) -> None:
    partition = open_partition(data)
    fill(partition, 1, 10)
    take([MAIN], data, copy)
    checkpoint(partition)
    fill(partition, 11, 20)
    checkpoint(partition)
    fill(partition, 21, 24)
    die(partition)
    (data / MAIN).write_bytes((copy / MAIN).read_bytes())
    assert_refused(data, "of different moments")


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_the_wal_of_another_partition(data: Path, copy: Path, end: str) -> None:
    for path in (data, copy):
        partition = open_partition(path)
        fill(partition, 1, 10)
        checkpoint(partition)
        fill(partition, 11, 20)
        if path == copy or end == "killed":
            die(partition)
        else:
            partition.close()
    (data / WAL).write_bytes((copy / WAL).read_bytes())
    assert_refused(data, "of different moments")


def test_a_wal_from_before_a_clean_stop(data: Path, copy: Path) -> None:
    partition = open_partition(data)
    fill(partition, 1, 10)
    take([WAL], data, copy)
    fill(partition, 11, 20)
    partition.close()
    (data / WAL).write_bytes((copy / WAL).read_bytes())
    assert_refused(data, "of different moments")


def test_a_wal_shorter_than_what_is_copied_to_the_file(data: Path) -> None:
    partition = open_partition(data)
    fill(partition, 1, 20)
    partition.checkpoint_begins()
    copy_pages(partition.path)
    die(partition)
    wal = data / WAL
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])
    assert_refused(data, "of different moments")


def test_a_wal_that_is_being_started_over_leaves_the_file_as_it_is(data: Path, copy: Path) -> None:
    """Its header is new, and the frames after it are old: a process may die just then."""
    partition = open_partition(data)
    fill(partition, 1, 10)
    checkpoint(partition)
    take([MAIN], data, copy)
    fill(partition, 11, 20)
    checkpoint(partition)
    fill(partition, 21, 30)
    wal = (data / WAL).read_bytes()
    (copy / WAL).write_bytes(wal)
    partition.close()
    assert_refused(copy, "of different moments")
    (copy / WAL).write_bytes(wal[:16] + os.urandom(8) + wal[24:])
    assert reopened(copy) is False
    with contextlib.closing(SqliteReader(copy / MAIN)) as reader:
        assert reader.head("lobby").seq == 10 + 1


# --- lost ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("what", [MAIN, "everything but its lock"])
def test_a_missing_file_is_not_made_anew(data: Path, what: str) -> None:
    partition = open_partition(data)
    fill(partition, 1, 4)
    die(partition)
    for path in data.iterdir():
        if path.name == what or (what != MAIN and path.name != LOCK):
            path.unlink()
    assert_refused(data, "is missing, though its ")


@pytest.mark.parametrize("lock", [True, False])
def test_an_empty_file_does_not_cost_its_wal(data: Path, lock: bool) -> None:
    """SQLite would delete it."""
    partition = open_partition(data)
    fill(partition, 1, 4)
    die(partition)
    (data / MAIN).write_bytes(b"")
    if not lock:
        (data / LOCK).unlink()
    assert_refused(data, "is empty, though its WAL is there")
    assert (data / WAL).stat().st_size


def test_an_empty_file_after_a_clean_stop(data: Path) -> None:
    partition = open_partition(data)
    fill(partition, 1, 4)
    partition.close()
    (data / MAIN).write_bytes(b"")
    assert_refused(data, "is empty, though its lock file has a record of it")


@pytest.mark.parametrize("taken", [(MAIN,), (MAIN, LOCK)], ids=["alone", "with its lock"])
def test_what_is_taken_away_while_a_relay_runs_is_waited_for(
    tmp_path: Path, taken: tuple[str, ...]
) -> None:
    """The next start does not create it anew: it can be put back."""
    directory = DataDirectory(tmp_path)
    logs = directory.partition_path(0).parent
    note_created(logs)
    partition = open_partition(logs)
    fill(partition, 1, 4)
    partition.close()
    for index in range(1, PARTITIONS):
        shutil.copy(logs / LOCK, directory.lock_path(index))
    note_created(logs)
    for name in taken:
        (logs / name).rename(tmp_path / name)
    reader = SqliteReader(logs / MAIN)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="is missing, though it was in use"):
            open_partition(logs)
        with pytest.raises(StoreUnavailable, match="is missing, though it was in use"):
            reader.head("lobby")
    for name in taken:
        (tmp_path / name).rename(logs / name)
    partition = open_partition(logs)
    assert partition.head("lobby").seq == reader.head("lobby").seq == 4
    partition.close()
    reader.close()


def test_what_was_taken_away_from_a_relay_that_was_stopped_begins_anew(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    logs = directory.partition_path(0).parent
    for index in range(PARTITIONS):
        directory.lock_path(index).touch()
    (logs / "made").touch()
    assert directory.begin_anew() == []
    (logs / LOCK).unlink()
    with pytest.raises(StoreUnavailable):
        open_partition(logs)
    (logs / LOCK).unlink()
    assert directory.begin_anew() == [0]
    assert directory.begin_anew() == []
    open_partition(logs).close()


def test_a_file_that_is_opened_again_is_not_made_anew(data: Path) -> None:
    partition = open_partition(data)
    fill(partition, 1, 4)
    partition._drop()  # as after an error
    for name in (MAIN, WAL):
        (data / name).rename(data / f"{name}.aside")
    with pytest.raises(StoreUnavailable, match="is missing, though it was in use"):
        append(partition, message(9))
    for name in (MAIN, WAL):
        (data / f"{name}.aside").rename(data / name)
    assert append(partition, message(3))[0].seq == 5
    partition.close()


def cut(wal: Path) -> None:
    wal.write_bytes(wal.read_bytes()[: 32 + 4 * (24 + 4096)])


def zeroed(wal: Path) -> None:
    size = wal.stat().st_size
    with wal.open("r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size - size // 2))


def emptied(wal: Path) -> None:
    wal.write_bytes(b"")


@pytest.mark.parametrize("lose", [cut, zeroed, emptied, Path.unlink])
@pytest.mark.parametrize("index", [True, False])
def test_a_wal_that_lost_its_end_begins_new_epochs(
    data: Path, lose: Callable[[Path], None], index: bool
) -> None:
    """Also when the mark of the last opening has been in the file for long."""
    partition = open_partition(data)
    fill(partition, 1, 10)
    checkpoint(partition)
    fill(partition, 11, 20)
    die(partition)
    lose(data / WAL)
    if not index:
        (data / "00.sqlite-shm").unlink()
    assert reopened(data) is False


@pytest.mark.parametrize("altered", [False, True])
def test_a_wal_that_is_damaged_before_its_end_is_refused(data: Path, altered: bool) -> None:
    """SQLite reads up to the damage, as if nothing followed.

    Also where the file is in doubt for another reason, such as a change of owner or mode.
    """
    partition = open_partition(data)
    fill(partition, 1, 40)
    die(partition)
    wal = bytearray((data / WAL).read_bytes())
    wal[len(wal) // 2] ^= 1
    (data / WAL).write_bytes(wal)
    if altered:
        (data / MAIN).chmod(0o640)
    with pytest.raises(StoreCorrupt) as refused:
        open_partition(data)
    with PartitionLock(data / LOCK) as lock:  # as a worker does, after it has rebuilt the index
        lock.refuse(str(refused.value))
    with pytest.raises(StoreCorrupt, match="its WAL is damaged behind frame "):
        open_partition(data, at_start=True)
    found = salvaged(data / MAIN, data / "new", with_wal=True)
    assert found == [SalvagedLog("lobby", 40, 0, 0)]


@pytest.mark.parametrize("back", ["the WAL", "the pair", "a pair of before", "an older note"])
def test_a_wal_that_was_damaged_and_is_put_back_is_looked_at_again(data: Path, back: str) -> None:
    """Also after its index was rebuilt: the refusal keeps what the old index showed."""
    before = data.parent / "before"
    partition = open_partition(data)
    fill(partition, 1, 10)
    if back == "a pair of before":
        shutil.copytree(data, before)
    fill(partition, 11, 40)
    die(partition)
    if back != "a pair of before":
        shutil.copytree(data, before)
    wal = bytearray((data / WAL).read_bytes())
    wal[len(wal) // 2] ^= 1
    (data / WAL).write_bytes(wal)
    with pytest.raises(StoreCorrupt) as refused:
        open_partition(data)
    reason = str(refused.value)
    if back == "an older note":
        reason = re.sub(r" \([0-9a-f]+\):", ":", reason)
    (data / "00.sqlite-shm").unlink()
    with PartitionLock(data / LOCK) as lock:
        lock.refuse(reason)
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match="its WAL is damaged behind frame "):
            open_partition(data, at_start=True)
    for name in (MAIN, WAL) if "pair" in back else (WAL,):
        shutil.copy(before / name, data / name)
    assert open_partition(data, at_start=True).head("lobby").seq == (
        10 if back == "a pair of before" else 40
    )


# --- whole --------------------------------------------------------------------------------------
@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_copy_of_a_stopped_directory_begins_new_epochs_and_a_moved_one_does_not(
    data: Path, tmp_path: Path, end: str
) -> None:
    partition = open_partition(data)
    fill(partition, 1, 10)
    checkpoint(partition)
    fill(partition, 11, 12)
    if end == "closed":
        partition.close()
    else:
        die(partition)
    shutil.copytree(data, tmp_path / "other machine")
    data.rename(tmp_path / "moved")
    assert reopened(tmp_path / "moved") is True
    assert reopened(tmp_path / "other machine") is False
    assert reopened(tmp_path / "other machine") is True


def test_a_hard_link_is_told_of(data: Path, copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    """``cp -l`` makes no copy."""
    partition = open_partition(data)
    fill(partition, 1, 3)
    partition.close()
    assert "partition_has_other_names" not in caplog.text
    os.link(data / MAIN, copy / MAIN)
    assert reopened(data) is False, "changes through the other name are not known"
    assert "partition_has_other_names" in caplog.text


@pytest.mark.parametrize("how", ["backup", "VACUUM INTO"])
def test_a_backup_by_sqlite_while_it_runs(data: Path, copy: Path, how: str) -> None:
    partition = open_partition(data)
    fill(partition, 1, 10)
    checkpoint(partition)
    fill(partition, 11, 12)
    source = apsw.Connection(str(data / MAIN), flags=apsw.SQLITE_OPEN_READONLY)
    if how == "backup":
        target = apsw.Connection(str(copy / MAIN))
        with target.backup("main", source, "main") as backup:
            backup.step()
        target.close()
    else:
        source.execute("VACUUM INTO ?", (str(copy / MAIN),))
    source.close()
    fill(partition, 13, 14)
    partition.close()
    assert reopened(copy) is False


def test_a_copy_taken_in_a_checkpoint_and_put_back_in_place(data: Path, copy: Path) -> None:
    """The file's change time is not known then; the lock file's is."""
    partition = open_partition(data)
    fill(partition, 1, 10)
    partition.checkpoint_begins()
    take([MAIN, WAL, LOCK], data, copy)
    finish(partition.path)
    partition.checkpoint_ended()
    fill(partition, 11, 20)
    die(partition)
    for name in (MAIN, WAL):
        (data / name).write_bytes((copy / name).read_bytes())
    fields = (copy / LOCK).read_text().split()
    fields[3] = str(int(fields[3]) - 3600 * 10**9)  # the backup is an hour old
    (data / LOCK).write_text(" ".join(fields))
    (data / "00.sqlite-shm").unlink()
    assert reopened(data) is False


def test_every_stop_and_start_of_one_server_keeps_the_epoch(data: Path) -> None:
    """Whatever the checkpoints did: the right file is never in doubt."""
    partition = open_partition(data)
    epoch = append(partition, message(1))[0].epoch
    count = 1
    for step in range(24):
        append(partition, *messages(count + 1, count + 3))
        count += 3
        if step % 2:
            partition.checkpoint_begins()
            copy_pages(partition.path)
        if step % 3 == 0:
            checkpoint(partition)
        if step % 4 == 1:
            partition.checkpoint_begins()
            finish(partition.path)
        if step == 10:
            checkpoint_with_a_reader(partition)
        if step % 5 == 0:
            append(partition, message(count + 1))
            count += 1
        if step % 6 == 0:
            partition.close()
        else:
            die(partition)
        partition = open_partition(data)
    assert partition.head("lobby") == (epoch, count)
    partition.close()


def checkpoint_with_a_reader(partition: SqlitePartition) -> None:
    """A checkpoint that cannot complete: the WAL continues."""
    other = apsw.Connection(str(partition.path), flags=apsw.SQLITE_OPEN_READONLY)
    other.execute("BEGIN").fetchall()
    other.execute("SELECT count(*) FROM entry").fetchall()
    partition.checkpoint_begins()
    assert not finish(partition.path).complete
    other.close(True)


def test_a_file_of_an_older_version_has_no_row_for_its_wal(data: Path) -> None:
    partition = open_partition(data)
    append(partition, message(1))
    partition.close()
    connection = apsw.Connection(str(data / MAIN))
    connection.execute("DELETE FROM meta WHERE key='wal'")
    connection.close()
    assert reopened(data) is False  # altered by another program, but consistent
    assert reopened(data) is True


# --- damaged ------------------------------------------------------------------------------------
def sql(statement: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        connection = apsw.Connection(str(file))
        connection.execute(statement)
        connection.close()

    return change


def overwrite(offset: int, data: bytes) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        with file.open("r+b") as opened:
            opened.seek(offset)
            opened.write(data)

    return change


def halve(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2 // 4096 * 4096])


ENTRY_1_AS_5 = (
    "UPDATE entry SET packed = (SELECT packed FROM entry WHERE (id & 1023) = 1) "
    "WHERE (id & 1023) = 5"
)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (halve, "damaged"),
        (overwrite(0, bytes(100)), "damaged|format|program"),
        (overwrite(8 * 4096, bytes(4096)), "damaged"),
        (overwrite(8 * 4096, b"\x0d" + struct.pack(">HHH", 0, 4, 0) + b"\x00\x99" * 20), "damaged"),
        (sql("DELETE FROM entry WHERE (id & 1023) = 5"), "entry 5 of log lobby is missing"),
        (sql("DELETE FROM entry"), "newer than its entries"),
        (sql("UPDATE producer SET counter = 2, seq = 4"), "older than its entries"),
        (sql("UPDATE entry SET chain = 30 WHERE (id & 1023) = 5"), "has a later one"),
        (sql("UPDATE entry SET packed = CAST(packed AS TEXT)"), "1 .* cannot be read"),
        (sql("UPDATE log SET name = CAST(x'ff' AS TEXT)"), "not UTF-8"),
        (sql("DELETE FROM epoch"), "the epoch of a log"),
        (sql("DELETE FROM log"), "an epoch does not match"),
        (sql("DROP TABLE producer"), "the table producer is missing"),
        (sql("DELETE FROM meta WHERE key = 'generation'"), "generation does not match"),
    ],
)
def test_what_the_check_of_the_whole_file_finds(
    data: Path, change: Callable[[Path], None], match: str
) -> None:
    partition = open_partition(data)
    fill(partition, 1, 20)
    partition.close()
    change(data / MAIN)
    with pytest.raises(StoreCorrupt, match=match):
        open_partition(data)


@pytest.mark.parametrize(
    "change",
    [
        sql("UPDATE entry SET packed = x'00' WHERE (id & 1023) = 5"),
        sql("UPDATE entry SET packed = x'00' WHERE (id & 1023) = 20"),
        sql(ENTRY_1_AS_5),
    ],
)
def test_an_entry_that_cannot_be_read_does_not_refuse_the_others(
    data: Path, change: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """As while a relay runs: its readers get a gap. The operator is told at the start."""
    partition = open_partition(data)
    fill(partition, 1, 20)
    partition.close()
    change(data / MAIN)
    partition = open_partition(data, at_start=True)
    rows = SqliteReader(data / MAIN).read("lobby", 0, 20, 1 << 20).rows
    found = readable("lobby", rows)
    assert len(found) == 19
    partition.close()
    [told] = [vars(r) for r in caplog.records if r.getMessage() == "logs_damaged"]
    [lost] = set(range(1, 21)) - set(found)
    assert (told["logs"], told["first"]) == (1, "lobby")
    assert told["reason"].startswith(f"entry {lost} cannot be read")


def set_fact(key: str, value: str) -> Callable[[Path], None]:
    return sql(f"INSERT OR REPLACE INTO meta VALUES ('{key}', '{value}')")  # noqa: S608


@pytest.mark.parametrize("key", ["generation", "opening", "day", "day_began_ms"])
@pytest.mark.parametrize("noticed", [True, False])
def test_a_fact_of_the_file_that_is_no_number(data: Path, key: str, noticed: bool) -> None:
    """Whether or not the whole file is checked before it is read."""
    partition = open_partition(data)
    fill(partition, 1, 3)
    partition.close()
    set_fact(key, "x")(data / MAIN)
    if not noticed:
        unnoticed(partition)
    before = (data / MAIN).read_bytes()
    with pytest.raises(StoreCorrupt, match=rf"its {key} is not a number.*restore all of"):
        open_partition(data)
    assert (data / MAIN).read_bytes() == before


@pytest.mark.parametrize("row", ["", "a", "a 1 b", "a 1 b 2 c", "a x", "a 1 b x"])
@pytest.mark.parametrize("noticed", [True, False])
def test_a_row_of_the_wal_that_cannot_be_read(data: Path, row: str, noticed: bool) -> None:
    """File and WAL together never show a part of a checkpoint."""
    partition = open_partition(data)
    fill(partition, 1, 3)
    partition.close()
    set_fact("wal", row)(data / MAIN)
    if not noticed:
        unnoticed(partition)
    before = (data / MAIN).read_bytes()
    with pytest.raises(StoreCorrupt, match=r"different moments.*restore all of"):
        open_partition(data)
    assert (data / MAIN).read_bytes() == before


def test_a_partition_under_the_number_of_another(tmp_path: Path) -> None:
    open_partition(tmp_path).close()
    partition = open_partition(tmp_path)
    append(partition, message(1))
    partition.close()
    connection = apsw.Connection(str(tmp_path / MAIN), flags=apsw.SQLITE_OPEN_READONLY)
    found = {
        number
        for number in range(16)
        if check_file(connection, unpack=unpack_entry, partition=number, limit_s=None).damage
        is None
    }
    assert len(found) == 1
    connection.close()


def test_the_check_ends_in_time(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    append(partition, *messages(1, 2000))
    partition.close()
    connection = apsw.Connection(str(tmp_path / MAIN), flags=apsw.SQLITE_OPEN_READONLY)
    with pytest.raises(CheckUnfinished):
        check_file(connection, unpack=unpack_entry, partition=None, limit_s=0)
    assert check_file(connection, unpack=unpack_entry, partition=None, limit_s=None).damage is None
    connection.close()


def test_only_what_was_not_closed_cleanly_is_looked_at_before_a_start(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    logs = directory.partition_path(0).parent
    assert directory.unclean_partitions() == []
    partition = open_partition(logs)
    assert directory.unclean_partitions() == [0]
    partition.close()
    assert directory.unclean_partitions() == []
    (logs / WAL).write_bytes(b"x")
    assert directory.unclean_partitions() == [0]
    emptied(logs / WAL)
    (logs / MAIN).unlink()
    assert directory.unclean_partitions() == [0]


def test_a_refused_partition_is_refused_again(tmp_path: Path) -> None:
    """Opening it rebuilds the WAL index: what the old one showed must not be lost."""
    directory = DataDirectory(tmp_path)
    logs = directory.partition_path(0).parent
    partition = open_partition(logs)
    fill(partition, 1, 20)
    partition.checkpoint_begins()
    copy_pages(partition.path)
    die(partition)
    wal = logs / WAL
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])
    before = {path.name: path.read_bytes() for path in logs.iterdir()}
    for _ in range(3):
        refused = recover(
            directory,
            boot_id="boot 1",
            durability="process",
            pack=pack_entry,
            unpack_entry=unpack_entry,
        )
        assert "of different moments" in refused[0]
        now = {path.name: path.read_bytes() for path in logs.iterdir()}
        assert now | {LOCK: b""} == before | {LOCK: b""}
        assert read_refusal(logs / LOCK) == refused[0]


def test_a_killed_server_is_not_in_doubt(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    partition = open_partition(directory.partition_path(0).parent)
    fill(partition, 1, 20)
    die(partition)
    refused = recover(
        directory,
        boot_id="boot 1",
        durability="process",
        pack=pack_entry,
        unpack_entry=unpack_entry,
    )
    assert refused == {}
    assert directory.unclean_partitions() == [0]  # left to its worker
