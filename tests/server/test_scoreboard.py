"""Shared memory: between processes, in whole numbers, within its bounds."""

from __future__ import annotations

import os

import pytest

from relay.server.scoreboard import FIELDS, GAUGES, PARTITIONS_MAX, Owner, Scoreboard


def in_child(action: object) -> None:
    """Run something in a forked child and wait for it."""
    assert callable(action)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_child_writes_and_the_parent_reads() -> None:
    board = Scoreboard(4)

    def child() -> None:
        board.row(2).set("heartbeat_ns", 2**63)
        board.row(2).add("accepted", 5)
        board.row(2).add("accepted")

    in_child(child)
    assert board.row(2).get("heartbeat_ns") == 2**63
    assert board.row(2).get("accepted") == 6
    assert [board.row(n).get("accepted") for n in (0, 1, 3)] == [0, 0, 0]


def test_the_parent_assigns_and_a_child_reads() -> None:
    board = Scoreboard(256)
    for partition in range(PARTITIONS_MAX):
        board.assign(partition, partition % 256, 2**48 - 1 - partition)

    def child() -> None:
        for partition in range(PARTITIONS_MAX):
            assert board.owner(partition) == Owner(partition % 256, 2**48 - 1 - partition)
        assert board.table_version == PARTITIONS_MAX

    in_child(child)


def test_cells_do_not_overlap() -> None:
    board = Scoreboard(3)
    number = 0
    for index in range(3):
        for name in FIELDS:
            number += 1
            board.row(index).set(name, number)
    board.assign(PARTITIONS_MAX - 1, 2, 77)
    values = [board.row(index).get(name) for index in range(3) for name in FIELDS]
    assert values == list(range(1, number + 1))
    assert (board.workers, board.table_version) == (3, 1)


def test_a_dead_workers_gauges_go_and_its_counters_stay() -> None:
    row = Scoreboard(1).row(0)
    for name in FIELDS:
        row.set(name, 9)
    row.clear_gauges()
    kept = {name for name in FIELDS if row.get(name)}
    assert kept == set(FIELDS) - set(GAUGES)
    assert {"accepted", "deliveries", "too_slow", "restarts"} <= kept


def test_unassigned() -> None:
    board = Scoreboard(1)
    assert board.owner(3) == Owner(0, 0)
    assert board.table_version == 0


def test_bounds() -> None:
    board = Scoreboard(2)
    for index in (-1, 2):
        with pytest.raises(IndexError):
            board.row(index)
    for partition in (-1, PARTITIONS_MAX):
        with pytest.raises(IndexError):
            board.assign(partition, 0, 1)
    for worker, generation in ((2, 1), (-1, 1), (0, 0), (0, 2**48)):
        with pytest.raises(ValueError, match="no such worker"):
            board.assign(0, worker, generation)
    with pytest.raises(ValueError, match="number of workers"):
        board.workers = 3
    with pytest.raises(KeyError):
        board.row(0).get("nonsense")
