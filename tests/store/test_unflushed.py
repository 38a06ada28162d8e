"""Last counters of producers that are in the entries only: as good as those in the table.

The table is written occasionally: invariant "Once, in order". ``test_dedup_machine`` mixes
everything, and ``test_kill`` kills the writer at each statement; here is one case at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import apsw
import pytest

from relay.chat.entries import Kind
from relay.store.file.checkpoint import Checkpointer, finish
from relay.store.file.integrity import check_file
from relay.store.file.schema import rows
from relay.store.log import Expected, LogUnreadable, Repeated, Stored, UnknownOutcome
from relay.store.producers import DAY_MS
from relay.store.sqlite import SqlitePartition
from relay.store.unflushed import ENTRIES_MAX, TAIL_MAX, TAILS_MAX, Unflushed
from relay.wire.packing import unpack_entry
from tests.store.test_direct import copy, offer
from tests.support.logs import (
    ALICE,
    BOB,
    NOW_MS,
    append,
    die,
    message,
    messages,
    open_partition,
    unnoticed,
)

T = TypeVar("T")


def look(partition: SqlitePartition, select: str) -> list[Any]:
    """Read the partition's file as it is."""
    connection = apsw.Connection(str(partition.path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return rows(connection, f"{select} JOIN log ON log.id=log_id")
    finally:
        connection.close()


def flushed(partition: SqlitePartition) -> dict[tuple[str, bytes], int]:
    """Return the last counters in the table of producers."""
    found = look(partition, "SELECT name, producer, counter FROM producer")
    return {(log, producer): counter for log, producer, counter in found}


def tails(partition: SqlitePartition) -> dict[str, int]:
    """Return where the tails of logs begin, from the file."""
    return dict(look(partition, "SELECT name, from_seq FROM unflushed"))


def unflushed(partition: SqlitePartition) -> Unflushed:
    assert partition._opened is not None
    return partition._opened.unflushed


def rewritten(partition: SqlitePartition, statement: str) -> SqlitePartition:
    """Close it, change its file unnoticed, and open it again."""
    partition.close()
    connection = apsw.Connection(str(partition.path))
    connection.execute(statement)
    connection.close()
    unnoticed(partition)
    return open_partition(partition.path.parent)


def alone(partition: SqlitePartition, first: int, last: int, producer: bytes = ALICE) -> None:
    """Append messages, each in a commit of its own."""
    for one in messages(first, last, producer=producer):
        append(partition, one)


def test_a_lone_message_writes_no_producer(partition: SqlitePartition) -> None:
    alone(partition, 1, 3)
    alone(partition, 1, 2, BOB)
    assert (flushed(partition), tails(partition)) == ({}, {"lobby": 1})


def test_what_is_in_entries_alone_is_known_to_the_next_writer(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    alone(partition, 1, 9)
    alone(partition, 1, 2, BOB)
    for _ in range(2):
        die(partition)
        partition = open_partition(tmp_path)
        assert partition.append([message(11), message(9), message(2)], NOW_MS) == [
            Expected(10),
            Repeated(partition.head("lobby").epoch, 9),
            Repeated(partition.head("lobby").epoch, 2),
        ]
    append(partition, message(10), message(3, producer=BOB))
    assert (flushed(partition), tails(partition)) == ({}, {"lobby": 1})


def test_a_tail_that_would_be_too_long_is_flushed(partition: SqlitePartition) -> None:
    alone(partition, 1, 2, BOB)
    alone(partition, 1, TAIL_MAX - 3)
    assert flushed(partition) == {}
    alone(partition, TAIL_MAX - 2, TAIL_MAX - 2)
    assert flushed(partition) == {("lobby", ALICE): TAIL_MAX - 2, ("lobby", BOB): 2}
    assert tails(partition) == {}
    alone(partition, TAIL_MAX - 1, TAIL_MAX)
    assert tails(partition) == {"lobby": TAIL_MAX + 1}
    assert unflushed(partition).entries == 2


def test_a_large_group_is_written_at_once(partition: SqlitePartition) -> None:
    append(partition, *messages(1, TAIL_MAX))
    assert (flushed(partition), tails(partition)) == ({("lobby", ALICE): TAIL_MAX}, {})


def test_many_logs_have_no_more_in_their_tails_than_one_may_read(
    partition: SqlitePartition,
) -> None:
    """So no more logs have a tail than the bound allows."""
    for number in range(2 * TAILS_MAX):
        append(partition, message(1, log=f"log{number}"))
    assert len(tails(partition)) == unflushed(partition).entries == TAILS_MAX
    assert len(flushed(partition)) == TAILS_MAX
    for counter in range(2, 50):
        for number in range(TAILS_MAX):
            append(partition, message(counter, log=f"log{number}"))
            assert unflushed(partition).entries <= ENTRIES_MAX


def test_the_last_by_place_counts_and_not_the_greatest(tmp_path: Path) -> None:
    """A producer whose record was dropped begins with 1 again."""
    partition = open_partition(tmp_path)
    append(partition, *messages(1, 5))
    partition = rewritten(partition, "DELETE FROM producer")
    assert partition.append([message(6)], NOW_MS) == [UnknownOutcome()]
    append(partition, message(1, b"anew"))
    die(partition)
    connection = apsw.Connection(str(partition.path))
    connection.execute("UPDATE unflushed SET from_seq=1")  # both are in one tail
    connection.close()
    partition = open_partition(tmp_path)
    append(partition, message(2, b"anew"))
    partition.close()
    assert flushed(partition) == {("lobby", ALICE): 2}


def test_copies_of_direct_messages_are_of_no_producer(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    append(partition, message(1, log="@bob"), copy(3))
    die(partition)
    partition = open_partition(tmp_path)
    append(partition, copy(4, after=3), message(2, log="@bob"))
    partition.close()
    assert flushed(partition) == {("@bob", ALICE): 2}


def test_copies_alone_begin_no_tail(partition: SqlitePartition) -> None:
    append(partition, copy(3))
    assert tails(partition) == {}


def test_what_was_erased_still_tells_who_sent_it(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    [first] = append(partition, offer(1, Kind.MESSAGE, b"secret"))
    append(partition, offer(1, Kind.MESSAGE, sender="bob"))
    append(partition, offer(2, Kind.REDACTION, about=first))
    die(partition)
    partition = open_partition(tmp_path)
    [again] = partition.append([offer(1, Kind.MESSAGE, b"secret")], NOW_MS)
    assert type(again) is Repeated
    append(partition, offer(3, Kind.MESSAGE), offer(2, Kind.MESSAGE, sender="bob"))


def test_entries_are_removed_when_their_producers_are_written(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    alone(partition, 1, 4)
    alone(partition, 1, 1, BOB)
    assert partition.remove("lobby", 3, 0).floor == 3
    assert (flushed(partition), tails(partition)) == (
        {("lobby", ALICE): 4, ("lobby", BOB): 1},
        {},
    )
    alone(partition, 5, 6)
    assert tails(partition) == {"lobby": 6}
    assert partition.remove("lobby", 5, 0).floor == 5
    assert tails(partition) == {"lobby": 6}, "it was not in the way"
    die(partition)
    partition = open_partition(tmp_path)
    outcomes = partition.append([*messages(3, 7), *messages(1, 2, producer=BOB)], NOW_MS)
    assert [type(outcome) for outcome in outcomes] == [
        *[Repeated] * 4, Stored, Repeated, Stored,
    ]  # fmt: skip


def test_a_new_day_is_noted_with_the_end_of_the_last(tmp_path: Path) -> None:
    """So a record is as old as its last use."""
    partition = open_partition(tmp_path)
    alone(partition, 1, 2)
    append(partition, message(1, producer=BOB), now_ms=NOW_MS + DAY_MS)
    assert flushed(partition) == {("lobby", ALICE): 2}
    assert tails(partition) == {"lobby": 3}


def test_an_old_record_is_dropped_and_what_is_newer_stays(tmp_path: Path) -> None:
    """A day ends, and in the same commit the row of the last flush is to be dropped."""
    partition = open_partition(tmp_path)
    append(partition, *messages(1, TAIL_MAX))
    partition = rewritten(partition, "UPDATE producer SET used_day=used_day-99")
    assert partition._opened is not None
    partition._opened.expiry.apply(
        partition._opened.expiry.decide(partition._opened.connection, NOW_MS), NOW_MS
    )
    alone(partition, TAIL_MAX + 1, TAIL_MAX + 1)
    append(partition, message(1, producer=BOB), now_ms=NOW_MS + DAY_MS)
    assert flushed(partition) == {("lobby", ALICE): TAIL_MAX + 1}
    alone(partition, TAIL_MAX + 2, TAIL_MAX + 2)


def test_it_is_not_forgotten_with_others(partition: SqlitePartition) -> None:
    alone(partition, 1, 2)
    assert partition._opened is not None
    partition._opened.committed.forget_producers()
    alone(partition, 3, 3)


def test_a_close_leaves_none(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    alone(partition, 1, 2)
    append(partition, message(1, log="other"))
    partition.close()
    assert flushed(partition) == {("lobby", ALICE): 2, ("other", ALICE): 1}
    assert tails(partition) == {}
    partition = open_partition(tmp_path)
    alone(partition, 3, 3)


async def test_a_checkpoint_flushes_while_commits_are_held(partition: SqlitePartition) -> None:
    alone(partition, 1, 2)
    held: list[tuple[bool, int]] = []

    def watched(work: Callable[[], T], /) -> Awaitable[T]:
        held.append((partition.commits_blocked, len(tails(partition))))
        return asyncio.to_thread(work)

    await Checkpointer(partition, watched).run()
    assert held[:2] == [(True, 1), (False, 0)]
    assert flushed(partition) == {("lobby", ALICE): 2}
    alone(partition, 3, 3)


@pytest.mark.parametrize("how", ["page", "entry"])
def test_a_damaged_tail_is_the_loss_of_its_log_alone(tmp_path: Path, how: str) -> None:
    """The producers of its entries are not known: no message is accepted, so none twice."""
    partition = open_partition(tmp_path)
    append(partition, *[message(n, b"x" * 3000) for n in range(1, 6)])
    append(partition, message(1, log="other"))
    finish(partition.path)
    assert partition._opened is not None
    if how == "entry":
        partition._opened.connection.execute(
            "UPDATE entry SET packed=x'ff' WHERE id=(SELECT min(id) FROM entry)"
        )
    die(partition)
    if how == "page":
        data = partition.path.read_bytes()
        at = data.index(b"x" * 3000) // 4096
        with partition.path.open("r+b") as file:
            file.seek(at * 4096)
            file.write(b"\xff" * 4096)
    unnoticed(partition, "open")
    for _ in range(2):
        partition = open_partition(tmp_path)
        refused, known = partition.append([message(6), message(1, log="other")], NOW_MS)
        assert type(refused) is LogUnreadable
        assert type(known) is Repeated
        if how == "entry":
            assert partition.remove("lobby", 5, 0).entries == 0
        partition.close()
    assert flushed(partition) == {("other", ALICE): 1}
    assert tails(partition) == {"lobby": 1}


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE unflushed SET from_seq=5", "older than its entries"),
        ("DELETE FROM unflushed", "older than its entries"),
        ("INSERT INTO unflushed VALUES (9, 1)", "not recorded does not match the rest of the file"),
        ("INSERT INTO unflushed VALUES (2, 2)", "not recorded does not match the rest of the file"),
        ("INSERT INTO unflushed VALUES (2, 1)", None),
        ("UPDATE unflushed SET from_seq=4", None),
    ],
)
def test_a_check_compares_tails_with_entries(
    tmp_path: Path, statement: str, said: str | None
) -> None:
    partition = open_partition(tmp_path)
    alone(partition, 1, 3)
    append(partition, message(1, log="other"))
    partition.flush()
    alone(partition, 4, 5)
    die(partition)
    connection = apsw.Connection(str(partition.path))
    connection.execute(statement)
    found = check_file(connection, unpack=unpack_entry, partition=None, limit_s=None).damage
    connection.close()
    assert found is None if said is None else said in str(found)
