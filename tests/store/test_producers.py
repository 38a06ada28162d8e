"""Producers are forgotten after 30 days of use, and not by a jump of a clock."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import apsw

from relay.store.log import Outcome, Repeated, UnknownOutcome
from relay.store.producers import DAY_MS, PASS_MS, PRODUCER_DAYS
from relay.store.sqlite import SqlitePartition
from tests.support.logs import ALICE, BOB, NOW_MS, append, message, open_partition


def live(partition: SqlitePartition, days: range, first_counter: int) -> None:
    """Let Bob write once a day."""
    for number, day in enumerate(days):
        append(
            partition, message(first_counter + number, producer=BOB), now_ms=NOW_MS + day * DAY_MS
        )


def test_an_id_older_than_30_days_has_an_unknown_outcome(partition: SqlitePartition) -> None:
    append(partition, message(1), message(2))
    live(partition, range(PRODUCER_DAYS + 1), 1)
    later = NOW_MS + PRODUCER_DAYS * DAY_MS + 1
    [again] = partition.append([message(2)], later)
    assert isinstance(again, Repeated)
    live(partition, range(PRODUCER_DAYS + 1, PRODUCER_DAYS + 4), PRODUCER_DAYS + 2)
    assert partition.append([message(2), message(3)], later + 3 * DAY_MS) == [UnknownOutcome()] * 2


def test_a_jump_of_the_clock_expires_nothing(partition: SqlitePartition) -> None:
    append(partition, message(1), message(2))
    year = 366 * DAY_MS
    for number, jump in enumerate((year, -year, 2 * year, 0), 1):
        append(partition, message(number, producer=BOB), now_ms=NOW_MS + jump)
    [again] = partition.append([message(2)], NOW_MS + 3 * year)
    assert isinstance(again, Repeated)


def test_the_count_of_days_survives_a_restart(partition: SqlitePartition) -> None:
    append(partition, message(1), message(2))
    directory = partition.path.parent
    for day in range(PRODUCER_DAYS + 3):
        partition.close()
        partition = open_partition(directory)
        append(partition, message(day + 1, producer=BOB), now_ms=NOW_MS + day * DAY_MS)
    assert partition.append([message(2)], NOW_MS + (PRODUCER_DAYS + 3) * DAY_MS) == [
        UnknownOutcome()
    ]
    partition.close()


def test_a_pass_looks_at_a_few_and_goes_round(partition: SqlitePartition) -> None:
    many = [number.to_bytes(8, "big") for number in range(2500)]
    append(partition, message(1, producer=BOB), *[message(1, producer=one) for one in many])
    connection = apsw.Connection(str(partition.path))

    def left() -> int:
        [[count]] = connection.execute("SELECT count(*) FROM producer").fetchall()
        assert isinstance(count, int)
        return count

    live(partition, range(1, PRODUCER_DAYS + 2), 2)
    counts = [left()]
    now_ms = NOW_MS + (PRODUCER_DAYS + 2) * DAY_MS
    for number in range(4):
        now_ms += 2 * PASS_MS
        append(partition, message(PRODUCER_DAYS + 3 + number, producer=BOB), now_ms=now_ms)
        counts.append(left())
    assert counts[0] > 1500
    assert all(0 <= before - after <= 1000 for before, after in pairwise(counts))
    assert counts[-1] == 1
    assert partition.append([message(2, producer=many[7])], now_ms) == [UnknownOutcome()]
    connection.close()


def test_no_commit_for_producers_is_in_the_loop_if_commits_wait_for_the_disk(
    tmp_path: Path,
) -> None:
    """Not those of the end of a day, nor those that drop producers, whatever the batch stores."""
    partition = open_partition(tmp_path, durability="power")
    assert partition._opened is not None
    committed_by: list[threading.Thread] = []

    def note(_cursor: object, statement: str, _bindings: object) -> bool:
        if statement.startswith("COMMIT"):
            committed_by.append(threading.current_thread())
        return True

    partition._opened.connection.exec_trace = note
    partition._opened.cursor.exec_trace = note
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(1) as thread:
        for day in range(PRODUCER_DAYS + 4):
            batch = [message(1)] if day == 0 else [message(2)] if day == PRODUCER_DAYS + 3 else []
            if day % 2:
                batch.append(message(day // 2 + 1, producer=BOB))
            begun = partition.begin(batch, NOW_MS + day * DAY_MS)
            outcomes = thread.submit(begun).result() if callable(begun) else begun
    assert outcomes[0] == UnknownOutcome(), "the first producer was dropped"
    assert committed_by
    assert threading.current_thread() not in committed_by
    partition.close()


def test_a_new_producer_begins_with_one(partition: SqlitePartition) -> None:
    assert partition.append([message(7, producer=ALICE)], NOW_MS) == [UnknownOutcome()]
    append(partition, message(1, producer=ALICE))
