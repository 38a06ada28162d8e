"""The reader of a file that others write, replace and checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw
import pytest

from relay.chat.entries import NO_EPOCH, Cursor, GapInfo, GapReason, Head
from relay.store.errors import StoreError, StoreUnavailable
from relay.store.reading.reader import SqliteReader
from relay.store.reading.resume import LogView, Segment, resume_point
from relay.store.sqlite import SqlitePartition
from tests.support.logs import (
    PAGE_BYTES,
    append,
    die,
    entries,
    message,
    messages,
    open_partition,
)

A, B, C, X = (letter * 8 for letter in (b"a", b"b", b"c", b"x"))


def wal_can_start_over(path: Path) -> bool:
    """True if no reader holds a snapshot: a checkpoint of the whole WAL succeeds at once."""
    connection = apsw.Connection(str(path))
    connection.execute("SELECT count(*) FROM meta").fetchall()
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    except apsw.BusyError:
        return False
    finally:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.close()
    return True


def test_no_call_leaves_a_snapshot_open(partition: SqlitePartition, reader: SqliteReader) -> None:
    counter = 0
    head = Head(NO_EPOCH, 100)
    for call in (
        lambda: reader.read("lobby", 0, 100, 10),
        lambda: reader.read("lobby", 0, 100, PAGE_BYTES, 1),
        lambda: reader.read("lobby", 0, 100, PAGE_BYTES),
        lambda: reader.read_back("lobby", 100, 1, PAGE_BYTES),
        lambda: reader.read("nowhere", 0, 100, PAGE_BYTES),
        lambda: reader.floor_of_last("lobby", 2, 3),
        lambda: reader.epoch_at("lobby", 1),
        lambda: reader.resume("lobby", Cursor(NO_EPOCH, 1), head),
    ):
        append(partition, *messages(counter + 1, counter + 5))
        counter += 5
        call()
        append(partition, message(counter + 1))
        counter += 1
        assert wal_can_start_over(partition.path)


def test_cannot_write(partition: SqlitePartition, reader: SqliteReader) -> None:
    append(partition, message(1))
    reader.read("lobby", 0, 1, PAGE_BYTES)
    assert reader._connection is not None
    with pytest.raises(apsw.ReadOnlyError):
        reader._connection.execute("DELETE FROM entry")


def test_a_file_that_is_only_being_made_is_empty(tmp_path: Path, reader: SqliteReader) -> None:
    (tmp_path / "00.sqlite").touch()
    assert reader.read("lobby", 0, 9, PAGE_BYTES) == ([], True)
    partition = open_partition(tmp_path)
    append(partition, message(1))
    assert len(reader.read("lobby", 0, 9, PAGE_BYTES).rows) == 1
    partition.close()


def test_reads_on_after_a_killed_writer_without_a_new_one(
    tmp_path: Path, reader: SqliteReader
) -> None:
    partition = open_partition(tmp_path)
    append(partition, *messages(1, 3))
    die(partition)
    assert len(reader.read("lobby", 0, 9, PAGE_BYTES).rows) == 3


def test_a_replaced_file_is_read_anew(tmp_path: Path, reader: SqliteReader) -> None:
    (tmp_path / "new").mkdir()
    other = open_partition(tmp_path / "new")
    append(other, message(1, log="filler"), *messages(1, 7))
    other.close()
    partition = open_partition(tmp_path)
    append(partition, *messages(1, 3))
    assert len(reader.read("lobby", 0, 9, PAGE_BYTES).rows) == 3
    partition.close()
    for name in ("00.sqlite-wal", "00.sqlite-shm"):
        (tmp_path / name).unlink()
    (tmp_path / "new" / "00.sqlite").rename(tmp_path / "00.sqlite")
    found = entries(reader.read("lobby", 0, 9, PAGE_BYTES))
    assert [entry.log for entry in found] == ["lobby"] * 7
    shutil.rmtree(tmp_path / "new")


@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_is_gone_is_no_empty_one(tmp_path: Path, *, known: bool) -> None:
    """Whether this reader has had it open, or only its writer."""
    partition = open_partition(tmp_path)
    append(partition, *messages(1, 3))
    reader = SqliteReader(partition.path)
    if known:
        assert len(reader.read("lobby", 0, 9, PAGE_BYTES).rows) == 3
        (tmp_path / "00.lock").rename(tmp_path / "elsewhere.lock")
    partition.path.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"is missing.*put that very file back"):
            reader.read("lobby", 0, 9, PAGE_BYTES)
    (tmp_path / "elsewhere").rename(partition.path)
    assert len(reader.read("lobby", 0, 9, PAGE_BYTES).rows) == 3
    partition.close()
    for name in ("00.sqlite", "00.sqlite-wal", "00.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    partition.path.touch()
    with pytest.raises(StoreUnavailable, match=r"is empty.*put that very file back"):
        reader.head("lobby")
    reader.close()


def test_an_unreadable_path_says_so(tmp_path: Path) -> None:
    (tmp_path / "00.sqlite").mkdir()
    with pytest.raises(StoreError, match=r"00\.sqlite"):
        SqliteReader(tmp_path / "00.sqlite").read("lobby", 0, 9, PAGE_BYTES)


def test_more_logs_than_are_remembered(
    partition: SqlitePartition, reader: SqliteReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.store.reading.reader_file.IDS_REMEMBERED_MAX", 3)
    append(partition, *[message(1, log=f"room-{n}") for n in range(10)])
    for _ in range(2):
        for n in range(10):
            [entry] = entries(reader.read(f"room-{n}", 0, 9, PAGE_BYTES))
            assert entry.log == f"room-{n}"


# Entries 1 to 10 in A, 11 to 20 in B, 21 to 30 in C; up to 5 removed.
VIEW = LogView(5, 30, [Segment(1, A), Segment(11, B), Segment(21, C)])
HEAD = Head(C, 28)


@pytest.mark.parametrize(
    ("cursor", "after", "end", "reason"),
    [
        (Cursor(C, 28), 28, None, None),
        # this worker has distributed less than the reader has seen
        (Cursor(C, 30), 30, None, None),
        (Cursor(C, 31), 28, Cursor(C, 28), GapReason.AHEAD),
        (Cursor(C, 20), 20, None, None),
        (Cursor(B, 20), 20, None, None),
        (Cursor(B, 21), 20, Cursor(B, 20), GapReason.EPOCH),
        (Cursor(A, 10), 10, None, None),
        (Cursor(A, 5), 5, None, None),
        (Cursor(A, 4), 5, Cursor(A, 5), GapReason.RETENTION),
        (Cursor(A, 25), 10, Cursor(A, 10), GapReason.EPOCH),
        (Cursor(X, 25), 20, Cursor(B, 20), GapReason.EPOCH),
        (Cursor(X, 0), 20, Cursor(B, 20), GapReason.EPOCH),
        (Cursor(NO_EPOCH, 0), 5, Cursor(A, 5), GapReason.RETENTION),
        (Cursor(NO_EPOCH, 5), 5, None, None),
        (Cursor(NO_EPOCH, 15), 15, None, None),
        (Cursor(NO_EPOCH, 31), 28, Cursor(C, 28), GapReason.AHEAD),
    ],
)
def test_where_a_reader_goes_on(
    cursor: Cursor, after: int, end: Cursor | None, reason: GapReason | None
) -> None:
    gap = None
    if end is not None and reason is not None:
        gap = GapInfo(cursor, end, reason)
    assert resume_point(VIEW, cursor, HEAD) == (after, gap)


def test_an_epoch_that_ended_below_the_floor_has_one_gap() -> None:
    view = LogView(15, 30, VIEW.segments)
    cursor = Cursor(A, 12)
    assert resume_point(view, cursor, HEAD) == (
        15,
        GapInfo(cursor, Cursor(B, 15), GapReason.EPOCH),
    )


def test_a_log_of_which_nothing_is_kept() -> None:
    view = LogView(10, 10, [Segment(1, A)])
    head = Head(A, 10)
    assert resume_point(view, Cursor(A, 10), head) == (10, None)
    cursor = Cursor(A, 3)
    assert resume_point(view, cursor, head) == (
        10,
        GapInfo(cursor, Cursor(A, 10), GapReason.RETENTION),
    )


# --- a room that has begun again and again --------------------------------------------------------
def beginning_again(partition: SqlitePartition, every: int, epochs: int) -> list[Segment]:
    """A log with a new epoch every so many entries."""
    append(partition, *messages(1, every * epochs))
    found = [Segment(1, partition.head("lobby").epoch)]
    found += [Segment(1 + every * n, b"epoch%3d" % n) for n in range(1, epochs)]
    connection = apsw.Connection(str(partition.path))
    connection.executemany("INSERT INTO epoch VALUES (1, ?, ?, 1)", found[1:])
    connection.close()
    return found


@pytest.mark.parametrize("floor", [0, 1, 5, 6, 14, 21])
def test_where_a_reader_goes_on_of_few_segments(
    partition: SqlitePartition, reader: SqliteReader, floor: int
) -> None:
    """Reading a part of the segments gives the same result as reading all, at any position."""
    segments = beginning_again(partition, 3, 7)
    if floor:
        partition.flush()
        assert partition.remove("lobby", floor, 0).floor == floor
    view = LogView(floor, 21, segments)
    for epoch in (NO_EPOCH, X, *(segment.epoch for segment in segments)):
        for seq in range(24):
            for head_seq in range(1, 22):
                cursor, head = Cursor(epoch, seq), Head(segments[-1].epoch, head_seq)
                wanted = resume_point(view, cursor, head)
                assert reader.resume("lobby", cursor, head) == wanted, (cursor, head)
    assert reader.head("lobby") == Head(segments[-1].epoch, 21)


def test_few_of_many_segments_are_read(partition: SqlitePartition, reader: SqliteReader) -> None:
    segments = beginning_again(partition, 1, 400)
    head = Head(segments[-1].epoch, 400)
    assert reader.head("lobby") == head
    read: list[tuple[object, ...]] = []
    connection = reader._opened()
    assert connection is not None
    connection.row_trace = lambda _, row: read.append(row) or row  # type: ignore[func-returns-value]
    for cursor in (Cursor(X, 200), Cursor(segments[9].epoch, 300), Cursor(NO_EPOCH, 0)):
        read.clear()
        reader.resume("lobby", cursor, head)
        assert 0 < len(read) < 10
    read.clear()
    assert reader.head("lobby") == head
    assert reader.floor("lobby") == 0
    assert 0 < len(read) < 10
