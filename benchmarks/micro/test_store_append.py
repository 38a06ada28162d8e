"""What a group commit costs, by its size and the number of its producers; and what repeats cost.

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
from relay.store.checkpoint import WAL_PAGES_MAX, finish
from relay.store.generation import Host
from relay.store.log import ReadBudget, Repeated
from relay.store.sqlite import SqlitePartition
from relay.wire.packing import pack_entry, unpack_entry

BODY = secrets.token_bytes(200)
ROUNDS = 300
NOW_MS = 1_790_000_000_000


@pytest.mark.parametrize("producers", [1, 100])
@pytest.mark.parametrize("messages", [1, 10, 100, 500])
def test_append(benchmark: BenchmarkFixture, tmp_path: Path, messages: int, producers: int) -> None:
    partition = SqlitePartition(
        tmp_path / "00.sqlite",
        tmp_path / "00.lock",
        host=Host("benchmark", secrets.token_bytes),
        durability="process",
        pack=pack_entry,
        unpack_entry=unpack_entry,
    )
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


REPEATS: dict[str, list[int]] = {
    "the last one": [60_000],
    "a window of 1000, in order": list(range(59_001, 60_001)),
    "100 anywhere": random.Random(1).sample(range(1, 60_000), 100),
    "one anywhere": [12_345],
}


@pytest.mark.parametrize("which", REPEATS)
def test_repeat(benchmark: BenchmarkFixture, tmp_path: Path, which: str) -> None:
    benchmark.group = "a batch of repeats, of 60,000 messages of one producer"
    partition = SqlitePartition(
        tmp_path / "00.sqlite",
        tmp_path / "00.lock",
        host=Host("benchmark", secrets.token_bytes),
        durability="process",
        pack=pack_entry,
        unpack_entry=unpack_entry,
    )

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
