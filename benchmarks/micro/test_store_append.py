"""What a group commit costs, by its size and the number of its producers.

    pytest benchmarks/micro/test_store_append.py

The figure is the whole of ``SqlitePartition.append`` (decide, pack, insert, commit) into a file in
the temporary directory (``--basetemp`` moves it), with the WAL kept short by checkpoints between
rounds.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from relay.chat.entries import Kind, Submission
from relay.store.checkpoint import WAL_PAGES_MAX, finish
from relay.store.generation import Host
from relay.store.sqlite import SqlitePartition
from relay.wire.envelopes import pack_entry, unpack_content

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
        unpack_content=unpack_content,
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
