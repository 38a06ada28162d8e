"""Direct messages and entries about others in the store: copies, edits, erasing, read marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from relay.chat.entries import Entry, Extra, Kind, Submission
from relay.chat.ids import copy_producer
from relay.store.file.schema import ADDED_BY_2, CONTROLS_BEFORE_3, TABLES_OF_3, TABLES_OF_4
from relay.store.log import Expected, Forbidden, Outcome, Repeated, Stored
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from relay.wire.packing import unpack_entry
from tests.support.logs import (
    ALICE,
    BOB,
    NOW_MS,
    PAGE_BYTES,
    append,
    die,
    message,
    open_partition,
    salvaged,
    stored,
    unnoticed,
)

EPOCH = b"epoch..A"
ROOM = "lobby"


def offer(
    counter: int,
    kind: Kind,
    body: bytes = b"",
    about: Stored | None = None,
    *,
    log: str = ROOM,
    sender: str = "alice",
    to: str = "",
) -> Submission:
    """Submit an entry about another one, or to a user."""
    place = (b"", 0) if about is None else (about.epoch, about.seq)
    extra = Extra(about_epoch=place[0], about_seq=place[1], verdict=0)
    producer = ALICE if sender == "alice" else BOB
    return Submission(
        log, sender, b"key of " + sender.encode(), producer, counter, int(kind), "text/plain", body,
        extra=extra._replace(to=to),
    )  # fmt: skip


def copy(
    origin: int, after: int = 0, *, epoch: bytes = EPOCH, about: Extra | None = None
) -> Submission:
    """Return the copy for bob of a message of alice."""
    extra = (about or Extra())._replace(
        to="bob", verdict=0, origin_epoch=epoch, origin_seq=origin, origin_after=after
    )
    text = f"from {origin}".encode()
    return Submission(
        "@bob",
        "alice",
        b"key",
        copy_producer("@alice", epoch),
        origin,
        0,
        "text/plain",
        text,
        extra=extra,
    )


def read(tmp_path: Path, log: str) -> list[Entry]:
    """Return all of a log, as a reader gets it."""
    reader = SqliteReader(tmp_path / "00.sqlite")
    try:
        return [unpack_entry(packed) for _, packed in reader.read(log, 0, 10**6, 10**9).rows]
    finally:
        reader.close()


def one(partition: SqlitePartition, submission: Submission) -> Outcome:
    """Append one."""
    (outcome,) = partition.append([submission], NOW_MS)
    return outcome


# --- copies ---------------------------------------------------------------------------------------
def test_a_copy_is_taken_once_and_in_order(tmp_path: Path) -> None:
    """By its position in the sender's inbox, which has gaps; in one commit or in several."""
    partition = open_partition(tmp_path)
    batch = [copy(3), copy(9, after=8), copy(8, after=3), copy(3), copy(9, after=8)]
    kinds = [type(outcome) for outcome in partition.append(batch, NOW_MS)]
    assert kinds == [Stored, Expected, Stored, Repeated, Stored]
    die(partition)
    partition = open_partition(tmp_path)
    assert one(partition, copy(8)) == Repeated(EPOCH, 0)
    assert one(partition, copy(20, after=15)) == Expected(0)
    stored(one(partition, copy(20)))
    assert [(e.body, e.counter, e.to) for e in read(tmp_path, "@bob")] == [
        (b"from 3", 1, "bob"), (b"from 8", 2, "bob"), (b"from 9", 3, "bob"), (b"from 20", 4, "bob"),
    ]  # fmt: skip


def test_a_copy_about_another_copy_waits_until_that_has_a_place(tmp_path: Path) -> None:
    """Both come in one batch when the recipient's home was away: an entry about a message in the
    same batch is not dropped, or an erased message would stay.
    """
    partition = open_partition(tmp_path)
    about_first = Extra(about_epoch=EPOCH, about_seq=3, about_in="alice", verdict=0)
    redaction = copy(4, after=3, about=about_first)._replace(kind=int(Kind.REDACTION))
    batch = [copy(3), redaction, copy(5, after=4)]
    assert [type(outcome) for outcome in partition.append(batch, NOW_MS)] == [Stored]
    append(partition, *batch[1:])
    first, second, third = read(tmp_path, "@bob")
    assert (second.about_epoch, second.about_seq) == (first.epoch, first.seq)
    assert first.kind == Kind.ERASED
    assert first.body == b""
    assert third.body == b"from 5"


def test_another_epoch_of_the_senders_inbox_is_another_inbox(tmp_path: Path) -> None:
    """It may have lost its end: the same numbers are other messages."""
    partition = open_partition(tmp_path)
    append(partition, copy(100), copy(50, epoch=b"epoch..B"))
    assert one(partition, copy(50, epoch=b"epoch..B")) == Repeated(b"epoch..B", 0)
    assert len(read(tmp_path, "@bob")) == 2


def test_what_was_accepted_is_pending_until_it_is_confirmed(tmp_path: Path) -> None:
    """Also after the death of the writer; a note to oneself never is."""
    partition = open_partition(tmp_path)
    append(
        partition,
        offer(1, Kind.MESSAGE, b"to bob", log="@alice", to="bob"),
        offer(2, Kind.MESSAGE, b"a note", log="@alice", to="alice"),
        offer(3, Kind.MESSAGE, b"to carol", log="@alice", to="carol"),
    )
    assert partition.pending() == [("@alice", 1, "bob"), ("@alice", 3, "carol")]
    die(partition)
    partition = open_partition(tmp_path)
    assert partition.pending() == [("@alice", 1, "bob"), ("@alice", 3, "carol")]
    partition.confirm([("@alice", 1)])
    assert partition.append([], NOW_MS) == []
    die(partition)
    partition = open_partition(tmp_path)
    assert partition.pending() == [("@alice", 3, "carol")]
    reader = SqliteReader(tmp_path / "00.sqlite")
    assert reader.has_written("@alice", "bob")
    assert not reader.has_written("@alice", "dora")
    page = reader.read_direct("@alice", "carol", 10, 5, PAGE_BYTES)
    assert [unpack_entry(packed).body for _, packed in page.rows] == [b"to carol"]


def test_the_verdict_refuses_what_is_new_alone(tmp_path: Path) -> None:
    """A repeat is acknowledged, whatever was decided since."""
    partition = open_partition(tmp_path)
    first = offer(1, Kind.MESSAGE, b"hi", log="@alice", to="bob")
    [was] = append(partition, first)
    assert first.extra is not None
    again = first._replace(extra=first.extra._replace(verdict=30))
    assert one(partition, again) == Repeated(was.epoch, was.seq)
    assert one(partition, again._replace(counter=2)) == Forbidden(30)
    other = first._replace(extra=first.extra._replace(to="carol"))
    assert type(one(partition, other)).__name__ == "IdConflict"


def test_what_a_copy_is_about_is_a_place_of_its_own_log(tmp_path: Path) -> None:
    """In the sender's inbox it was another one; a target that is not stored any more is dropped."""
    partition = open_partition(tmp_path)
    append(partition, message(1, log="@bob"), copy(7))
    about = Extra(about_epoch=EPOCH, about_seq=7, about_in="alice")
    gone = Extra(about_epoch=EPOCH, about_seq=6, about_in="alice")
    append(partition, copy(8, about=about), copy(9, about=gone))
    places = [(entry.about_epoch, entry.about_seq) for entry in read(tmp_path, "@bob")]
    epoch = read(tmp_path, "@bob")[0].epoch
    assert places == [(b"", 0), (b"", 0), (epoch, 2), (b"", 0)]
    reader = SqliteReader(tmp_path / "00.sqlite")
    assert reader.place_at("@bob", "alice", 2) == (EPOCH, 7)
    assert reader.place_at("@bob", "alice", 1) is None


# --- about others ---------------------------------------------------------------------------------
def test_one_edits_and_redacts_what_is_ones_own(tmp_path: Path) -> None:
    """Answers and reactions may be about any message; moderation is decided by the permissions."""
    partition = open_partition(tmp_path)
    [original] = append(partition, offer(1, Kind.MESSAGE, b"hello"))
    for kind in (Kind.EDIT, Kind.REDACTION):
        assert one(partition, offer(1, kind, b"x", original, sender="bob")) == Forbidden(21)
    nowhere = original._replace(seq=99)
    another = original._replace(epoch=bytes(8))
    for place in (nowhere, another):
        assert one(partition, offer(1, Kind.MESSAGE, b"x", place, sender="bob")) == Forbidden(31)
    [answer, reaction] = append(
        partition,
        offer(1, Kind.MESSAGE, b"yes", original, sender="bob"),
        offer(2, Kind.REACTION, b"+1", original, sender="bob"),
    )
    assert one(partition, offer(2, Kind.EDIT, b"x", reaction)) == Forbidden(31)
    append(partition, offer(3, Kind.REDACTION, b"", answer, sender="bob"))
    append(partition, offer(2, Kind.REDACTION, b"", original))
    assert one(partition, offer(3, Kind.EDIT, b"late", original)) == Forbidden(31)
    kinds = [entry.kind for entry in read(tmp_path, ROOM)]
    assert kinds == [Kind.ERASED, Kind.ERASED, Kind.REACTION, Kind.REDACTION, Kind.REDACTION]


@pytest.mark.parametrize("together", [True, False])
def test_a_redaction_erases_a_message_and_its_edits(tmp_path: Path, together: bool) -> None:
    """Also from the file, after the checkpoint; a resend is still a repeat."""
    partition = open_partition(tmp_path)
    secret, other = b"the launch code is 0000", b"the launch code was 1111"
    [original] = append(partition, offer(1, Kind.MESSAGE, secret))
    append(partition, offer(1, Kind.MESSAGE, b"what?", sender="bob"))
    batch = [offer(2, Kind.EDIT, other, original), offer(3, Kind.REDACTION, b"oops", original)]
    if together:
        append(partition, *batch)
    else:
        for submission in batch:
            append(partition, submission)
    first, second, edit, redaction = read(tmp_path, ROOM)
    assert (first.kind, first.body, first.about_seq) == (Kind.ERASED, b"", 4)
    assert (edit.kind, edit.body, edit.about_seq) == (Kind.ERASED, b"", 4)
    assert second.body == b"what?"
    assert (redaction.body, redaction.about_seq) == (b"oops", 1)
    assert one(partition, offer(1, Kind.MESSAGE, secret)) == Repeated(original.epoch, 1)
    partition.close()
    for file in tmp_path.iterdir():
        data = file.read_bytes()
        assert secret not in data
        assert other not in data


def test_read_marks_go_forward(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    for counter, (seq, epoch) in enumerate(
        [(5, EPOCH), (3, EPOCH), (7, b"epoch..B"), (6, EPOCH)], 1
    ):
        extra = Extra(to="alice", about_epoch=epoch, about_seq=seq, verdict=0)
        mark = Submission(
            "@alice", "alice", b"key", ALICE, counter, int(Kind.MARK), "", b"lobby", extra=extra
        )
        append(partition, mark)
        reader = SqliteReader(tmp_path / "00.sqlite")
        expected = (EPOCH, 5) if counter < 3 else (b"epoch..B", 7)
        assert reader.marks("@alice", "", 9) == [("lobby", *expected)]


def copy_for_alice(origin: int, after: int = 0) -> Submission:
    """Return a copy of a message of bob."""
    found = copy(origin, after)
    assert found.extra is not None
    return found._replace(
        log="@alice",
        sender="bob",
        producer=copy_producer("@bob", EPOCH),
        extra=found.extra._replace(to="alice"),
    )


def test_a_file_is_made_anew_of_its_entries(tmp_path: Path) -> None:
    """With the origins of copies; pending copies are sent again, and recognised."""
    partition = open_partition(tmp_path)
    [original] = append(partition, offer(1, Kind.MESSAGE, b"hi", log="@alice", to="bob"))
    append(
        partition,
        offer(2, Kind.EDIT, b"hello", original, log="@alice", to="bob"),
        copy_for_alice(7),
        copy_for_alice(9, after=7),
        message(3, log="@alice")._replace(kind=int(Kind.SYSTEM)),
    )
    queries = (
        "SELECT * FROM control",
        "SELECT * FROM direct",
        "SELECT * FROM pending",
        "SELECT * FROM edit",
        "SELECT * FROM mark",
    )
    partition.close()
    path, new = tmp_path / "00.sqlite", tmp_path / "new.sqlite"

    def rows_of(file: Path) -> list[list[Any]]:
        connection = apsw.Connection(str(file))
        return [connection.execute(query).fetchall() for query in queries]

    salvaged(path, new, "@alice")
    found = rows_of(path)
    assert rows_of(new) == found
    assert [len(one) for one in found] == [1, 4, 2, 1, 0]


# --- formats --------------------------------------------------------------------------------------
def control(counter: int) -> Submission:
    """Submit a control entry, as only the server writes."""
    return message(counter, log="@alice")._replace(kind=int(Kind.SYSTEM))


def test_controls_are_found_by_their_kind(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    append(partition, control(1), message(2, log="@alice"), control(3))
    found = [
        unpack_entry(one).seq for one in SqliteReader(tmp_path / "00.sqlite").controls("@alice")
    ]
    assert found == [1, 3]


def test_a_file_of_format_1_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its inboxes have only control entries. A reader may open it before the writer."""
    partition = open_partition(tmp_path)
    append(partition, control(1), control(2), message(1), message(2))
    partition.close()
    connection = apsw.Connection(str(tmp_path / "00.sqlite"))
    for table in ("control", "direct", "pending", "edit", "mark"):
        assert f"CREATE TABLE {table} " in TABLES_OF_3
        connection.execute(f"DROP TABLE {table}")
    assert "CREATE TABLE state " in ADDED_BY_2
    connection.execute("DROP TABLE state")
    for table in ("member", "fold"):
        assert f"CREATE TABLE {table} " in TABLES_OF_4
        connection.execute(f"DROP TABLE {table}")
    connection.execute("DROP TABLE unflushed")
    connection.execute("PRAGMA user_version=1")
    connection.close()
    unnoticed(partition)
    reader = SqliteReader(tmp_path / "00.sqlite")
    assert len(reader.controls("@alice")) == 2
    partition = open_partition(tmp_path)
    assert len(reader.controls("@alice")) == 2
    assert CONTROLS_BEFORE_3
    append(partition, control(3), message(3))
    assert len(reader.controls("@alice")) == 3
