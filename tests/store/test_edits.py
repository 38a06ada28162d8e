"""A message that is edited many times: the cost, and the bound."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from relay import limits
from relay.chat.entries import Extra, Kind, Submission
from relay.store.log import Forbidden, LogRefused, Stored
from relay.store.read_budget import ReadBudget
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from relay.wire.packing import unpack_entry
from tests.store.test_direct import EPOCH, ROOM, copy, offer, one, read
from tests.support.logs import NOW_MS, append, open_partition, stored


@pytest.fixture
def partition(tmp_path: Path) -> SqlitePartition:
    return open_partition(tmp_path)


def said(partition: SqlitePartition) -> Stored:
    [original] = append(partition, offer(1, Kind.MESSAGE, b"hello"))
    return original


def edits(original: Stored, first: int, last: int) -> list[Submission]:
    return [offer(n, Kind.EDIT, b"edit %d" % n, original) for n in range(first, last + 1)]


@pytest.mark.parametrize("together", [True, False])
def test_a_message_has_so_many_edits_at_most(
    tmp_path: Path, partition: SqlitePartition, together: bool
) -> None:
    """In one commit or in several. A redaction still erases all of them."""
    original = said(partition)
    last = 1 + limits.EDITS_MAX
    batch = edits(original, 2, last + 1)
    if together:
        *outcomes, refused = partition.append(batch, NOW_MS)
    else:
        outcomes = [one(partition, submission) for submission in batch]
        refused = outcomes.pop()
    assert [type(outcome) for outcome in outcomes] == [Stored] * limits.EDITS_MAX
    assert isinstance(refused, LogRefused)
    assert refused.limit == limits.EDITS_MAX
    append(partition, offer(last + 1, Kind.MESSAGE, b"another"))
    append(partition, offer(last + 2, Kind.REDACTION, b"", original))
    left = [entry.body for entry in read(tmp_path, ROOM) if entry.kind != Kind.REDACTION]
    assert left == [b""] * (1 + limits.EDITS_MAX) + [b"another"]


def test_what_is_erased_is_edited_no_more_in_the_same_commit(
    tmp_path: Path, partition: SqlitePartition
) -> None:
    """Otherwise its text would be shown again, after it was erased."""
    original = said(partition)
    batch = [offer(2, Kind.REDACTION, b"", original), *edits(original, 3, 3)]
    erased, edited = partition.append(batch, NOW_MS)
    stored(erased)
    assert isinstance(edited, Forbidden)
    assert [entry.kind for entry in read(tmp_path, ROOM)] == [Kind.ERASED, Kind.REDACTION]


def test_one_more_edit_does_not_read_those_before(partition: SqlitePartition) -> None:
    original = said(partition)
    append(partition, *edits(original, 2, 100))
    budget = ReadBudget(1000)
    partition.append(edits(original, 101, 101), NOW_MS, budget)
    assert budget.spent[0] < 5
    budget = ReadBudget(1000)
    partition.append([offer(102, Kind.REDACTION, b"", original)], NOW_MS, budget)
    assert budget.spent[0] > 100, "it erases all of them"


def test_a_copy_is_taken_however_often_a_message_was_edited(partition: SqlitePartition) -> None:
    """The sender's inbox has accepted it: the copy is not refused any more."""
    append(partition, copy(3))
    partition.flush()
    writer = apsw.Connection(str(partition.path))
    writer.executemany("INSERT INTO edit VALUES (1, 1, ?)", [(n,) for n in range(1000, 1500)])
    writer.close()
    about = Extra(about_epoch=EPOCH, about_seq=3, about_in="alice", verdict=0)
    edit = copy(4, after=3, about=about)._replace(kind=int(Kind.EDIT))
    stored(one(partition, edit))


# --- as it is now -------------------------------------------------------------------------------
def now(tmp_path: Path, upto: int) -> list[bytes]:
    """Return the bodies that a reader gets for the first message."""
    looked_at.clear()
    reader = SqliteReader(tmp_path / "00.sqlite")
    try:
        found = reader.read_edited(ROOM, 1, upto, is_edit)
    finally:
        reader.close()
    return [unpack_entry(packed).body for packed in found]


looked_at: list[int] = []


def is_edit(packed: bytes) -> bool:
    entry = unpack_entry(packed)
    looked_at.append(entry.seq)
    return entry.kind == Kind.EDIT


def test_the_last_edit_alone_is_read(tmp_path: Path, partition: SqlitePartition) -> None:
    """Of the edits up to the position that the reader has reached."""
    original = said(partition)
    assert now(tmp_path, 9) == [b"hello"]
    append(partition, *edits(original, 2, 90))
    assert now(tmp_path, 1000) == [b"hello", b"edit 90"]
    assert looked_at == [90]
    assert now(tmp_path, 40) == [b"hello", b"edit 40"]
    assert now(tmp_path, 1) == [b"hello"]


def test_what_was_erased_is_looked_over_so_far(tmp_path: Path, partition: SqlitePartition) -> None:
    original = said(partition)
    first = 1 + limits.EDITS_SHOWN_MAX
    made = append(partition, *edits(original, 2, first + 1))
    counter = first + 1
    for edit in made[1:-1]:
        append(partition, offer(counter := counter + 1, Kind.REDACTION, b"", edit))
    assert now(tmp_path, 1000) == [b"hello", b"edit %d" % (first + 1)]
    append(partition, offer(counter := counter + 1, Kind.REDACTION, b"", made[-1]))
    assert now(tmp_path, 1000) == [b"hello"], "its other edit is too far back"
    assert len(looked_at) == limits.EDITS_SHOWN_MAX
    append(partition, *edits(original, counter + 1, counter + 1))
    assert now(tmp_path, 1000)[1] == b"edit %d" % (counter + 1)
