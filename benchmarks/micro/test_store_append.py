"""The cost of a group commit, by its size and the number of its producers; and the cost of repeats.

    pytest benchmarks/micro/test_store_append.py

The figure is the whole of ``SqlitePartition.append`` (decide, pack, insert, commit) into a file in
the temporary directory (``--basetemp`` moves it), with the WAL kept short by checkpoints between
rounds.
"""

from __future__ import annotations

import random
import secrets
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from relay.chat.entries import Kind, Submission
from relay.store.file.checkpoint import WAL_PAGES_MAX, finish
from relay.store.file.generation import Host
from relay.store.log import Repeated
from relay.store.read_budget import ReadBudget
from relay.store.sqlite import SqlitePartition
from relay.store.unflushed import TAILS_MAX
from relay.wire.packing import pack_entry, unpack_entry

BODY = secrets.token_bytes(200)
ROUNDS = 300
LONE_ROUNDS = 10_000
"""Through some checkpoints."""
NOW_MS = 1_790_000_000_000


def _open(directory: Path) -> SqlitePartition:
    return SqlitePartition(
        directory / "00.sqlite",
        directory / "00.lock",
        host=Host("benchmark", secrets.token_bytes),
        durability="process",
        pack=pack_entry,
        unpack_entry=unpack_entry,
    )


@pytest.mark.parametrize("producers", [1, 100])
@pytest.mark.parametrize("messages", [1, 10, 100, 500])
def test_append(benchmark: BenchmarkFixture, tmp_path: Path, messages: int, producers: int) -> None:
    partition = _open(tmp_path)
    ids = [secrets.token_bytes(8) for _ in range(producers)]
    sent = 0

    def next_batch() -> tuple[tuple[list[Submission], int], dict[str, object]]:
        nonlocal sent
        if partition.wal_pages > WAL_PAGES_MAX:
            finish(partition.path)
        numbers = range(sent, sent + messages)
        sent += messages
        batch = [
            Submission(
                "lobby", "alice", b"", ids[n % producers], n // producers + 1, Kind.MESSAGE,
                "text/plain", BODY,
            )
            for n in numbers
        ]  # fmt: skip
        return (batch, NOW_MS), {}

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        partition.append, setup=next_batch, rounds=ROUNDS, warmup_rounds=10
    )
    assert partition.head("lobby").seq == sent  # everything was stored
    if benchmark.stats is not None:  # None with --benchmark-disable
        median_s = benchmark.stats.stats.median
        benchmark.extra_info["us_per_message"] = median_s / messages * 1e6
        benchmark.extra_info["messages_per_second"] = messages / median_s
    partition.close()


@pytest.mark.parametrize("tails", [0, TAILS_MAX], ids=["no tails", "tails"])
@pytest.mark.parametrize("rooms", [1, 13, 200])
def test_lone(benchmark: BenchmarkFixture, tmp_path: Path, rooms: int, tails: int) -> None:
    """One message a commit, in rooms of one partition in turn; each has ten producers.

    Without tails (``store/unflushed``) the row of the producer is written in each commit.
    """
    benchmark.group = f"one message a commit, {rooms} rooms"
    partition = _open(tmp_path)
    assert partition.head("room0").seq == 0  # it is open now
    assert partition._opened is not None
    partition._opened.unflushed.tails_max = tails
    ids = [secrets.token_bytes(16) for _ in range(10)]
    sent = pages = 0

    def next_batch() -> tuple[tuple[list[Submission], int], dict[str, object]]:
        nonlocal sent, pages
        if partition.wal_pages > WAL_PAGES_MAX:
            pages += partition.wal_pages
            partition.flush()  # as the worker's checkpointer does
            finish(partition.path)
            partition.wal_pages = 0
        counter, room = divmod(sent, rooms)
        sent += 1
        sender = ids[counter % len(ids)]
        message = Submission(
            f"room{room}", "alice", b"", sender, counter // len(ids) + 1, Kind.MESSAGE,
            "text/plain", BODY,
        )  # fmt: skip
        return ([message], NOW_MS), {}

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        partition.append, setup=next_batch, rounds=LONE_ROUNDS, warmup_rounds=20 * rooms
    )
    benchmark.extra_info["pages_per_commit"] = round((pages + partition.wal_pages) / sent, 2)
    partition.close()


REPEATS: dict[str, list[int]] = {
    "the last one": [60_000],
    "a window of 1000, in order": list(range(59_001, 60_001)),
    "100 anywhere": random.Random(1).sample(range(1, 60_000), 100),
    "one anywhere": [12_345],
}


@pytest.mark.parametrize("which", REPEATS)
def test_repeat(benchmark: BenchmarkFixture, tmp_path: Path, which: str) -> None:
    benchmark.group = "a batch of repeats, of 60,000 messages of one producer"
    partition = _open(tmp_path)

    def submission(counter: int) -> Submission:
        return Submission(
            "lobby", "alice", b"", b"producer", counter, Kind.MESSAGE, "text/plain", BODY
        )

    for start in range(1, 60_001, 500):
        partition.append([submission(n) for n in range(start, start + 500)], NOW_MS)
    batch = [submission(counter) for counter in REPEATS[which]]
    outcomes = benchmark(partition.append, batch, NOW_MS)
    assert {type(outcome) for outcome in outcomes} == {Repeated}
    budget = ReadBudget(10**9)
    partition.append(batch, NOW_MS, budget)
    benchmark.extra_info["reads_per_repeat"] = sum(budget.spent) / len(batch)
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["us_per_repeat"] = benchmark.stats.stats.median / len(batch) * 1e6
    partition.close()
