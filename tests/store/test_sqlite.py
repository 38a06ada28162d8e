"""The writer when operations fail: invariants "Accepted means committed" and "Disk errors"."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from relay.chat.entries import NO_EPOCH, Kind
from relay.store import apply
from relay.store.committed import END_BYTES
from relay.store.errors import (
    NotTheWriter,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreOfAnotherVersion,
    StoreUnavailable,
)
from relay.store.file.schema import check_sqlite, pragma, translated
from relay.store.log import LogRefused, LogUnreadable, Repeated, Stored, UnknownOutcome
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from relay.store.state import LOGS_MAX, SEQ_MASK, Changes, More
from tests.store.conftest import Hooks
from tests.support.logs import (
    BOB,
    NOW_MS,
    PAGE_BYTES,
    append,
    die,
    message,
    messages,
    open_partition,
    stored,
    unnoticed,
)


# --- a full disk ----------------------------------------------------------------------------------
def test_a_full_disk_stores_nothing_of_the_group_and_recovers(
    tmp_path: Path, connection_hooks: Hooks
) -> None:
    connections: list[apsw.Connection] = []
    connection_hooks.append(connections.append)
    partition = open_partition(tmp_path)
    writer = connections[0]
    opened = list(connections)
    epoch = append(partition, message(1))[0].epoch
    pragma(writer, "max_page_count=20")
    big = b"x" * 30_000
    with pytest.raises(StoreFull, match=r"no space left for .*00\.sqlite"):
        partition.append([message(2), message(3, big), message(4, big), message(5, big)], NOW_MS)
    assert partition.head("lobby") == (epoch, 1)
    # A group that fits is stored; one that does not still fails; then there is space again.
    assert append(partition, message(2))[0][:2] == (epoch, 2)
    with pytest.raises(StoreFull):
        partition.append([message(n, big) for n in range(3, 7)], NOW_MS)
    pragma(writer, "max_page_count=1000000")
    assert [s.seq for s in append(partition, *[message(n, big) for n in range(3, 7)])] == [
        3, 4, 5, 6,
    ]  # fmt: skip
    assert connections == opened  # a full disk is no reason to open the file again
    partition.close()


def test_a_commit_of_nothing_proves_that_it_can_be_written(
    tmp_path: Path, connection_hooks: Hooks
) -> None:
    connections: list[apsw.Connection] = []
    connection_hooks.append(connections.append)
    partition = open_partition(tmp_path)
    append(partition, message(1))
    pages = partition.wal_pages
    partition.append([], NOW_MS)
    assert partition.wal_pages == pages  # usually it writes nothing
    for _ in range(2):
        partition.prove()
        partition.append([], NOW_MS)
        assert partition.wal_pages > pages
        pages = partition.wal_pages
    pragma(connections[0], "query_only=1")
    partition.prove()
    with pytest.raises(StoreUnavailable):
        partition.append([], NOW_MS)
    partition.append([], NOW_MS)
    partition.close()


def test_what_is_noted_again_and_again_while_commits_fail_is_written_once(tmp_path: Path) -> None:
    """The last value of each. Callers note it each second until it is written."""
    fails, written = [True], []

    def write(connection: apsw.Connection | apsw.Cursor, changes: Changes, day: int) -> None:
        if fails[0]:
            raise apsw.FullError("no space")
        written.append(changes.more)
        apply.write(connection, changes, day)

    partition = open_partition(tmp_path, write=write)
    for n in range(50):
        partition.confirm([("@ann", 1), ("@ann", 2)])
        partition.note_seen([("@ann", n), ("@bob", n)])
        partition.note_folds([("@ann", n, b"%d" % n)])
        partition.prove()
        with pytest.raises(StoreFull):
            partition.append([], NOW_MS)
    fails[0] = False
    partition.append([], NOW_MS)
    partition.append([], NOW_MS)
    assert len(written) == 1, "what was written is not written again"
    more = written[0]
    assert isinstance(more, More)
    assert more.confirmed == [("@ann", 1), ("@ann", 2)]
    assert more.seen == [(49, "@ann"), (49, "@bob")]
    assert more.folds == [(49, b"49", "@ann")]
    partition.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    partition = open_partition(small_disk)
    reader = SqliteReader(partition.path)
    counter = 0
    try:
        while counter < 1000:
            append(partition, message(counter + 1, b"x" * 20_000))
            counter += 1
    except StoreFull:
        pass
    assert 5 < counter < 1000
    epoch, seq = partition.head("lobby")
    assert seq == counter
    assert reader.read_back("lobby", seq + 1, 1, PAGE_BYTES).rows[0][0] == seq
    with pytest.raises(StoreFull):
        partition.append([message(counter + 1, b"x" * 20_000)], NOW_MS)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert append(partition, message(counter + 1, b"x" * 20_000))[0][:2] == (epoch, counter + 1)
    reader.close()
    partition.close()


def test_a_limit_for_files_is_a_full_disk(tmp_path: Path) -> None:
    """As with a quota: nothing of a refused group is stored, and nothing else is in doubt."""
    partition = open_partition(tmp_path)
    epoch = append(partition, message(1))[0].epoch
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    counter = 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with contextlib.suppress(StoreFull):
            while counter < 1000:
                append(partition, message(counter + 1, b"x" * 20_000))
                counter += 1
        with pytest.raises(StoreFull):
            append(partition, message(counter + 1, b"x" * 20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 5 < counter < 1000
    assert append(partition, message(counter + 1, b"x"))[0][:2] == (epoch, counter + 1)
    partition.close()


def test_no_room_for_the_index_of_a_log_is_a_full_disk(small_disk: Path) -> None:
    """After a killed relay it has to be rebuilt."""
    partition = open_partition(small_disk)
    append(partition, message(1))
    die(partition)
    (small_disk / "00.sqlite-shm").unlink()
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(StoreFull):
        open_partition(small_disk)
    filler.unlink()
    partition = open_partition(small_disk)
    assert partition.head("lobby").seq == 1
    partition.close()


def test_a_file_that_is_removed_takes_nothing_more(tmp_path: Path) -> None:
    """It would be lost. Put back, the partition continues in the same epoch."""
    partition = open_partition(tmp_path)
    epoch = append(partition, message(1))[0].epoch
    aside = tmp_path / "aside"
    partition.path.rename(aside)
    for later_ms in (1000, 1001, 5000):
        with pytest.raises(StoreUnavailable, match="put that very file back"):
            append(partition, message(2), now_ms=NOW_MS + later_ms)
    partition.path.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="put that very file back"):
        append(partition, message(2), now_ms=NOW_MS + 6000)
    aside.rename(partition.path)
    assert append(partition, message(2), now_ms=NOW_MS + 7000)[0][:2] == (epoch, 2)
    partition.close()


# --- the file and its directory -------------------------------------------------------------------
@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A directory that even root cannot write to."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(path)]
    if os.geteuid() != 0:
        path.chmod(0o500)
        yield path
        path.chmod(0o700)
        return
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a read-only file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_read_only_directory(read_only: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"00\.lock: .*must be writable"):
        open_partition(read_only)


def test_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"00\.lock: No such file"):
        open_partition(tmp_path / "none")


@pytest.mark.parametrize(
    "garbage", [b"not a database, but long enough to be read as a header " * 20]
)
def test_a_file_that_is_no_database(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "00.sqlite").write_bytes(garbage)
    with pytest.raises(StoreCorrupt, match=r"00\.sqlite is damaged .*backup"):
        open_partition(tmp_path)
    with pytest.raises(StoreCorrupt):
        SqliteReader(tmp_path / "00.sqlite").read("lobby", 0, 1, PAGE_BYTES)
    (tmp_path / "00.sqlite").unlink()
    open_partition(tmp_path).close()  # the lock was released


def test_a_database_of_another_program(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "00.sqlite"))
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    with pytest.raises(StoreCorrupt, match="of another program"):
        open_partition(tmp_path)


def test_a_file_of_a_later_format(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    append(partition, message(1))
    partition.close()
    connection = apsw.Connection(str(tmp_path / "00.sqlite"))
    connection.execute("PRAGMA user_version=6")
    connection.close()
    with pytest.raises(
        StoreOfAnotherVersion, match="has format 6; this Relay reads formats 1 to 5"
    ):
        open_partition(tmp_path)
    with pytest.raises(StoreOfAnotherVersion, match="has format 6"):
        SqliteReader(tmp_path / "00.sqlite").read("lobby", 0, 1, PAGE_BYTES)


def test_a_damaged_page_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    append(partition, *messages(1, 500))
    append(partition, message(1, log="other"))
    partition.close()
    with (tmp_path / "00.sqlite").open("r+b") as file:
        pages = file.seek(0, os.SEEK_END) // 4096
        for page in range(pages // 2, pages // 2 + 4):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    reader = SqliteReader(tmp_path / "00.sqlite")
    with pytest.raises(StoreCorrupt, match="damaged"):
        reader.read("lobby", 0, 500, 10**9)
    reader.close()


# --- invariant "Disk errors" ----------------------------------------------------------------------
class FailingOnce:
    """Makes one statement fail, once, on every connection that it is installed on."""

    def __init__(self, hooks: Hooks, statement: str, error: type[apsw.Error]) -> None:
        self._statement = statement
        self._error = error
        self.armed = False
        hooks.append(self._put_into)

    def _put_into(self, connection: apsw.Connection) -> None:
        connection.exec_trace = self._trace

    def _trace(self, _cursor: object, statement: str, _bindings: object) -> bool:
        if self.armed and statement.startswith(self._statement):
            self.armed = False
            raise self._error(f"fault put into {self._statement}")
        return True


@pytest.mark.parametrize(
    "statement", ["BEGIN", "INSERT INTO log", "INSERT INTO epoch", "INSERT INTO entry", "COMMIT"]
)
@pytest.mark.parametrize("error", [apsw.IOError, apsw.BusyError, apsw.CorruptError, apsw.FullError])
def test_nothing_is_remembered_of_a_group_that_failed(
    tmp_path: Path, connection_hooks: Hooks, statement: str, error: type[apsw.Error]
) -> None:
    fault = FailingOnce(connection_hooks, statement, error)
    partition = open_partition(tmp_path)
    [first] = append(partition, message(1))
    fault.armed = True
    batch = [message(2), message(1, log="other")]
    with pytest.raises(StoreError):
        partition.append(batch, NOW_MS)
    assert not fault.armed
    assert partition.head("lobby") == (first.epoch, 1)
    assert partition.head("other").seq == 0
    assert partition.append([message(1)], NOW_MS) == [Repeated(first.epoch, 1)]
    outcomes = partition.append(batch, NOW_MS)
    assert [stored(outcome).seq for outcome in outcomes] == [2, 1]
    # Writes that the disk lost may show later only: nothing continues the old epoch.
    assert (stored(outcomes[0]).epoch == first.epoch) is (error is not apsw.IOError)
    partition.close()


@pytest.mark.parametrize("error", [apsw.IOError, apsw.BusyError, apsw.CorruptError, apsw.FullError])
def test_nothing_is_remembered_of_a_lone_message_that_failed(
    tmp_path: Path, connection_hooks: Hooks, error: type[apsw.Error]
) -> None:
    """It is a single statement, without a transaction around it."""
    statements: list[str] = []
    fault = FailingOnce(connection_hooks, "INSERT INTO entry", error)
    partition = open_partition(tmp_path)
    [first] = append(partition, message(1))
    assert partition._opened is not None

    def noting(_cursor: object, statement: str, _bindings: object) -> bool:
        statements.append(statement)
        return True

    partition._opened.connection.exec_trace = noting
    append(partition, message(2))
    assert [text.split()[0] for text in statements] == ["INSERT"]
    fault._put_into(partition._opened.connection)
    fault.armed = True
    with pytest.raises(StoreError):
        partition.append([message(3)], NOW_MS)
    assert not fault.armed
    assert partition.head("lobby") == (first.epoch, 2)
    [again] = append(partition, message(3))
    assert again.seq == 3
    assert (again.epoch == first.epoch) is (error is not apsw.IOError)
    partition.close()


def test_a_commit_that_happened_after_all_is_found(tmp_path: Path, connection_hooks: Hooks) -> None:
    """The error comes after COMMIT: the sender got "unavailable", and sends again."""
    armed = False

    def fail_after_commit(connection: apsw.Connection) -> None:
        def hook(*_: object) -> int:
            if armed:
                raise apsw.BusyError("fault put in after the commit")
            return apsw.SQLITE_OK

        # The partition sets its own hook later: keep this one instead.
        connection.set_wal_hook(hook)

    partition = open_partition(tmp_path)
    opened = partition._opened
    assert opened is not None
    fail_after_commit(opened.connection)
    epoch = append(partition, message(1))[0].epoch
    armed = True
    with pytest.raises(StoreUnavailable):
        partition.append([message(2)], NOW_MS)
    assert partition.append([message(2)], NOW_MS) == [Repeated(epoch, 2)]
    partition.close()


def test_a_bug_in_packing_stores_nothing(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    append(partition, message(1))

    def broken(_: object) -> bytes:
        raise ZeroDivisionError

    pack, partition._pack = partition._pack, broken
    with pytest.raises(ZeroDivisionError):
        partition.append([message(2)], NOW_MS)
    partition._pack = pack
    assert append(partition, message(2))[0].seq == 2
    partition.close()


# --- one submission's failure is its own ----------------------------------------------------------
def altered(
    partition: SqlitePartition, *statements: tuple[str, tuple[int, ...]]
) -> SqlitePartition:
    """Close a partition, alter its file, and open it again."""
    partition.close()
    connection = apsw.Connection(str(partition.path))
    for statement, bindings in statements:
        connection.execute(statement, bindings)
    connection.close()
    unnoticed(partition)
    return open_partition(partition.path.parent)


def test_a_partition_without_ids_for_new_logs_goes_on_with_the_old_ones(
    partition: SqlitePartition, tmp_path: Path
) -> None:
    append(partition, message(1))
    partition = altered(partition, ("INSERT INTO log VALUES (?, 'filler', 0, 0)", (LOGS_MAX - 1,)))
    batch = [
        message(1, log="last"), message(1, log="new"), message(2), message(2, log="new"),
        message(1, log="newer"), message(1, log="new", producer=BOB), message(3),
    ]  # fmt: skip
    for _ in range(2):
        outcomes = partition.append(batch, NOW_MS)
        refused = [outcome for outcome in outcomes if isinstance(outcome, LogRefused)]
        assert len(refused) == 3
        assert "takes no new one" in refused[0].reason
        assert outcomes[1] == refused[0]
        assert outcomes[3] == UnknownOutcome()  # nothing of "new" exists
        assert [type(outcomes[at]) for at in (4, 5)] == [LogRefused] * 2
    assert partition.head("last").seq == 1
    assert partition.head("new") == (NO_EPOCH, 0)
    assert partition.head("lobby").seq == 3
    partition.close()


def test_a_log_without_numbers_refuses_and_others_go_on(partition: SqlitePartition) -> None:
    append(partition, message(1), message(1, log="other"))
    partition = altered(
        partition,
        ("UPDATE log SET floor = ? WHERE name = 'lobby'", (SEQ_MASK,)),
        ("DELETE FROM entry WHERE id < ?", (2 << 40,)),
    )
    outcomes = partition.append([message(2), message(2, log="other")], NOW_MS)
    assert [type(outcome) for outcome in outcomes] == [LogRefused, Stored]
    partition.close()


def test_what_cannot_be_packed_is_refused_alone(partition: SqlitePartition) -> None:
    """The codecs let none of these in; if one does, other submissions are not affected."""
    odd = [
        message(1)._replace(log="odd", sender="\ud800"),
        message(1)._replace(log="odder", kind=2**64),
    ]
    outcomes = partition.append([message(1), *odd, message(2)], NOW_MS)
    assert [type(outcome) for outcome in outcomes] == [Stored, LogRefused, LogRefused, Stored]
    assert partition.head("odd") == partition.head("odder") == (NO_EPOCH, 0)


def test_a_damaged_entry_concerns_only_who_asks_for_it(partition: SqlitePartition) -> None:
    append(partition, *messages(1, 3))
    partition = altered(partition, ("UPDATE entry SET packed = x'c1' WHERE id & 0xffff = ?", (2,)))
    outcomes = partition.append([message(1), message(2), message(3), message(4)], NOW_MS)
    assert [type(outcome) for outcome in outcomes] == [Repeated, LogUnreadable, Repeated, Stored]
    partition.close()


def test_damaged_pages_concern_only_who_asks_for_them(partition: SqlitePartition) -> None:
    append(partition, *messages(1, 2000))
    partition.close()
    with partition.path.open("r+b") as file:
        pages = file.seek(0, os.SEEK_END) // 4096
        for page in range(pages // 2, pages // 2 + 4):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    unnoticed(partition)
    partition = open_partition(partition.path.parent)
    batch = [*messages(1, 2000), message(2001)]
    outcomes = partition.append(batch, NOW_MS)
    kinds = {type(outcome) for outcome in outcomes[:-1]}
    assert kinds == {Repeated, LogUnreadable}
    assert stored(outcomes[-1]).seq == 2001
    partition.close()


def test_a_log_whose_end_is_damaged_is_refused_and_others_go_on(
    partition: SqlitePartition,
) -> None:
    append(partition, *messages(1, 500), message(501, b"the very last"))
    append(partition, *messages(1, 500, log="other"))
    partition.close()
    content = bytearray(partition.path.read_bytes())
    page = content.index(b"the very last") // 4096 * 4096
    content[page : page + 4096] = b"\xff" * 4096
    partition.path.write_bytes(content)
    unnoticed(partition)
    partition = open_partition(partition.path.parent)
    batch = [message(502), message(501, log="other"), message(1, producer=BOB), message(1)]
    for seq in (501, 501):
        outcomes = partition.append(batch, NOW_MS)
        assert [type(outcomes[at]) for at in (0, 2, 3)] == [LogUnreadable] * 3
        other = outcomes[1]
        assert isinstance(other, Stored | Repeated)
        assert other.seq == seq
    partition.close()


# --- invariant "One writer per partition" and the rest --------------------------------------------
def test_a_foreign_lock_is_waited_for_a_second_at_most(partition: SqlitePartition) -> None:
    append(partition, message(1))
    shell = apsw.Connection(str(partition.path))
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked by another program"):
        partition.append([message(2)], NOW_MS)
    shell.execute("ROLLBACK")
    assert append(partition, message(2))[0].seq == 2
    shell.close()


def test_a_deleted_lock_file_does_not_let_two_writers_in(
    partition: SqlitePartition, tmp_path: Path
) -> None:
    """The last guard is the primary key of the table: the second writer's numbers are taken."""
    append(partition, message(1))
    (tmp_path / "00.lock").unlink()
    other = open_partition(tmp_path)
    append(other, message(2))
    with pytest.raises(StoreUnavailable, match="UNIQUE"):
        partition.append([message(2)], NOW_MS)
    # It has dropped what it had cached, and reads it again.
    assert partition.head("lobby").seq == 2
    other.close()


def test_the_lock_is_free_after_a_close_and_held_before(
    partition: SqlitePartition, tmp_path: Path
) -> None:
    with pytest.raises(NotTheWriter):
        open_partition(tmp_path)
    partition.close()
    open_partition(tmp_path).close()


def test_a_clean_close_leaves_everything_in_the_one_file(
    partition: SqlitePartition, tmp_path: Path
) -> None:
    append(partition, *messages(1, 50))
    partition.close()
    assert (tmp_path / "00.sqlite-wal").stat().st_size == 0
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / "00.sqlite"
    copy.write_bytes((tmp_path / "00.sqlite").read_bytes())
    assert len(SqliteReader(copy).read("lobby", 0, 50, PAGE_BYTES).rows) == 50


def test_more_logs_and_producers_than_are_remembered(partition: SqlitePartition) -> None:
    opened = partition._opened
    assert opened is not None
    opened.committed.logs_bytes_max, opened.committed.producers_max = 3 * END_BYTES, 3
    for counter in range(1, 20):
        batch = [message(counter, log=f"room-{n}") for n in range(10)]
        assert [s.seq for s in append(partition, *batch)] == [counter] * 10
    [again] = partition.append([message(7, log="room-1")], NOW_MS)
    assert isinstance(again, Repeated)
    assert again.seq == 7


def test_what_retention_removed_is_answered_without_a_seq(partition: SqlitePartition) -> None:
    """Retention comes later; the floor is part of the format already."""
    [first, *_] = append(partition, *messages(1, 20))
    partition.close()
    connection = apsw.Connection(str(partition.path))
    connection.execute("DELETE FROM entry WHERE id & 0xffffffffff <= 12")
    connection.execute("UPDATE log SET floor = 12")
    connection.close()
    partition = open_partition(partition.path.parent)
    outcomes = partition.append(messages(11, 14), NOW_MS)
    assert [o.seq for o in outcomes if isinstance(o, Repeated)] == [0, 0, 13, 14]
    [again] = append(partition, message(21), now_ms=NOW_MS - 1)
    assert (again.seq, again.prev) == (21, 20)
    assert again.epoch != first.epoch  # another program altered the file
    partition.close()


# --- what is remembered ---------------------------------------------------------------------------
def test_the_next_end_of_a_state_is_remembered(tmp_path: Path) -> None:
    """It is checked once a second: usually nothing has ended, and nothing is read for that."""
    partition = open_partition(tmp_path)
    append(partition, message(1))
    opened = partition._opened
    assert opened is not None
    assert partition.due(10) == []
    reads = opened.committed.reads
    assert partition.due(1000) == []
    changes = Changes({}, {})
    changes.states[1] = 1, 1, 1, 2000, b""
    opened.connection.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?)", changes.states[1])
    opened.committed.apply(changes)
    assert partition.due(1999) == []
    assert opened.committed.reads == reads
    assert partition.due(2000) == ["lobby"]
    assert partition.due(2001) == ["lobby"], "until something is done about it"
    opened.connection.execute("UPDATE state SET due_ms=3000")
    assert partition.due(2999) == []
    assert partition.due(3000) == ["lobby"]
    partition.close()


# --- what an operator reads -----------------------------------------------------------------------
def test_the_sqlite_in_use_is_new_enough() -> None:
    check_sqlite()


def test_an_old_sqlite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.40.1")
    with pytest.raises(StoreUnavailable, match=r"SQLite 3\.40\.1 is too old: 3\.51\.3 is needed"):
        check_sqlite()


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (apsw.FullError, StoreFull, "no space left"),
        (apsw.CorruptError, StoreCorrupt, "from one backup"),
        (apsw.NotADBError, StoreCorrupt, "damaged"),
        (apsw.ReadOnlyError, StoreUnavailable, "writable for the user that runs Relay"),
        (apsw.CantOpenError, StoreUnavailable, "writable for the user that runs Relay"),
        (apsw.BusyError, StoreUnavailable, "end that program"),
        (apsw.IOError, StoreUnavailable, "the words of SQLite"),
    ],
)
def test_errors_say_what_and_where(
    error: type[apsw.Error], kind: type[StoreError], reason: str
) -> None:
    made = translated(error("the words of SQLite"), Path("/data/logs/00.sqlite"))
    assert type(made) is kind
    assert reason in str(made)
    assert "/data/logs/00.sqlite" in str(made)


def test_a_directory_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a StoreError, nothing stays open, and the next opening syncs it."""
    synced: list[Path] = []

    def failing(path: Path) -> None:
        synced.append(path)
        if len(synced) == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("relay.store.partition_file.sync_directory", failing)
    with pytest.raises(StoreUnavailable, match=r"00\.sqlite: Input/output error"):
        open_partition(tmp_path)
    partition = open_partition(tmp_path)
    append(partition, message(1))
    partition.close()
    assert synced == [tmp_path, tmp_path]


def test_an_entry_of_an_account_is_forced_to_disk_alone(tmp_path: Path) -> None:
    """Also when the disk is full just then: what follows is committed without an fsync."""
    levels: list[object] = []

    def writing(cursor: apsw.Connection | apsw.Cursor, changes: Changes, day: int) -> None:
        assert partition._opened is not None
        levels.append(pragma(partition._opened.connection, "synchronous"))
        if len(levels) == 2:
            raise apsw.FullError("the disk is full, just now")
        apply.write(cursor, changes, day)

    partition = open_partition(tmp_path, write=writing)
    account = message(1, log="@alice")._replace(kind=Kind.SYSTEM)
    append(partition, message(1))
    with pytest.raises(StoreFull):
        partition.append([account], NOW_MS)
    append(partition, message(2))
    append(partition, account)
    append(partition, message(3))
    normal, full = 1, 2
    assert levels == [normal, full, normal, full, normal]
    partition.close()
