"""A single message takes a shorter way into the store, with the same result."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest

from relay.chat.entries import Extra, Kind, Submission
from relay.store import apply
from relay.store.errors import StoreFull
from relay.store.file.generation import Host
from relay.store.opened import Opened
from relay.store.sqlite import SqlitePartition
from relay.store.state import Changes, LogEnd
from relay.store.unflushed import TAIL_MAX
from relay.wire.packing import pack_entry
from tests.support.logs import ALICE, BOB, NOW_MS, append, append_as_home, message, open_partition


def _opened(partition: SqlitePartition) -> Opened:
    assert partition._opened is not None
    return partition._opened


def _fixed(partition: SqlitePartition) -> SqlitePartition:
    """Make the epochs of all partitions the same."""
    partition._host = Host("boot 1", lambda count: b"e" * count)
    return partition


def _state(partition: SqlitePartition) -> list[object]:
    """Return the whole state of a partition, in its file and in memory, including the LRU order."""
    opened = _opened(partition)
    names = opened.connection.execute(
        "SELECT name FROM sqlite_master WHERE type='table'"
    ).fetchall()
    tables = {
        name: opened.connection.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608
        for (name,) in names
        if name != "meta"  # which opening it is, and of what
    }
    committed, unflushed = opened.committed, opened.unflushed
    logs = [(name, _fields(end)) for name, end in committed.logs.items()]
    tails = {
        log: (tail.first_seq, tail.entries, tail.ends) for log, tail in unflushed._tails.items()
    }
    return [tables, logs, list(committed.producers.items()), tails, unflushed.entries]


def _fields(end: LogEnd) -> list[object]:
    return [
        end.id, end.epoch, end.first_seq, end.seq, end.time_ms, end.generation, end.guarded,
        end.packed_state,
    ]  # fmt: skip


def _some(count: int, seed: int) -> list[tuple[Submission, int]]:
    """Single submissions, mostly the next message of a producer: (submission, when)."""
    chance = random.Random(seed)
    counters: dict[tuple[str, bytes], int] = {}
    now_ms = NOW_MS
    made: list[tuple[Submission, int]] = []
    while len(made) < count:
        log = chance.choice(["lobby", "lobby", "lobby", "other", f"room{chance.randrange(40)}"])
        producer = chance.choice([ALICE, BOB])
        key = log, producer
        counter = counters.get(key, 0) + 1
        now_ms += chance.choice([0, 1, 1000, -500])
        which = chance.randrange(20)
        if which == 0 and counter > 1:
            one = message(chance.randrange(1, counter), producer=producer, log=log)
        elif which == 1:
            one = message(counter + 1, producer=producer, log=log)
        elif which == 2 and counter > 1:
            one = message(counter - 1, b"another", producer=producer, log=log)
        elif which == 3:
            extra = Extra(about_epoch=b"e" * 8, about_seq=1)
            one = message(counter, producer=producer, log=log)._replace(extra=extra)
            counters[key] = counter
        else:
            one = message(counter, producer=producer, log=log)
            counters[key] = counter
        made.append((one, now_ms))
    return made


@pytest.mark.parametrize("seed", range(3))
def test_it_leaves_what_deciding_leaves(tmp_path: Path, seed: int) -> None:
    """In the file, in memory, and in the sender's answer."""
    decided = 0

    def write(connection: apsw.Connection | apsw.Cursor, changes: Changes, day: int) -> None:
        nonlocal decided
        decided += 1
        apply.write(connection, changes, day)

    for name in ("short", "long"):
        (tmp_path / name).mkdir()
    short = _fixed(open_partition(tmp_path / "short"))
    long = _fixed(open_partition(tmp_path / "long", write=write))
    for submission, now_ms in _some(500, seed):
        sent = [submission], now_ms
        assert append_as_home(short, *sent) == append_as_home(long, *sent)
    assert decided > 300, "each that is stored"
    assert _state(short) == _state(long)
    short.close()
    long.close()


def test_what_goes_that_way(tmp_path: Path) -> None:
    """The next message of a cached producer, as long as its log's tail has room."""
    partition = open_partition(tmp_path)
    append(partition, message(1), message(2))
    opened = _opened(partition)

    def alone(submission: Submission, *, ruled: bool = True) -> bool:
        return opened.append_lone(submission, NOW_MS, pack_entry, None, ruled=ruled) is not None

    end = opened.committed.remembered_log("lobby")
    assert end is not None
    end.guarded = False
    assert alone(message(3))
    append(partition, message(4), message(5))
    assert alone(message(6))
    next_ = message(7)
    end = opened.committed.remembered_log("lobby")
    assert end is not None
    assert not alone(message(6)), "a repeat"
    assert not alone(message(9)), "one is missing"
    assert not alone(message(1, producer=BOB)), "it is not known whether there were others"
    assert not alone(message(1, log="new"))
    assert not alone(next_._replace(kind=Kind.EDIT))
    assert not alone(next_._replace(extra=Extra(about_seq=1)))
    end.guarded = True
    assert not alone(next_), "another home has to be asked"
    assert alone(next_, ruled=False)
    next_ = message(8)
    end.guarded = False
    end.generation -= 1
    assert not alone(next_), "an epoch begins"
    end.generation += 1
    assert alone(next_)
    for counter in range(9, TAIL_MAX):
        assert alone(message(counter))
    assert not alone(message(TAIL_MAX)), "the tail ends"
    append(partition, message(TAIL_MAX))
    partition.close()


def test_it_changes_nothing_when_it_cannot_be_written(tmp_path: Path) -> None:
    """Its sender gets the error, and sends it again when there is space."""
    partition = open_partition(tmp_path)
    append(partition, message(1), message(2))
    before = _state(partition)
    connection = _opened(partition).connection
    pages = connection.pragma("page_count")
    usual = connection.pragma("max_page_count")
    connection.pragma("max_page_count", pages)
    large = message(3, bytes(32_768))
    with pytest.raises(StoreFull):
        partition.append_lone(large, NOW_MS)
    assert _state(partition) == before
    connection.pragma("max_page_count", usual)
    append(partition, large)
    assert partition.head("lobby").seq == 3
    partition.close()
