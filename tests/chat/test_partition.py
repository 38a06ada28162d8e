"""The partition of a log is part of the data directory's format."""

from __future__ import annotations

from collections import Counter

import pytest

from relay.chat.partition import PARTITIONS, partition_of


@pytest.mark.parametrize(
    ("log", "partition"),
    [("lobby", 6), ("a0", 8), ("general", 13), ("@alice", 1), ("@bob", 4), ("x" * 32, 1)],
)
def test_is_fixed_for_ever(log: str, partition: int) -> None:
    assert partition_of(log) == partition


def test_there_are_sixteen() -> None:
    assert PARTITIONS == 16


def test_logs_spread_over_all() -> None:
    counts = Counter(partition_of(f"room-{n}") for n in range(1600))
    assert sorted(counts) == list(range(PARTITIONS))
    assert max(counts.values()) < 2 * min(counts.values())
