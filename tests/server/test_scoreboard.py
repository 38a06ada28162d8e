"""Shared memory between processes: whole numbers, within its bounds."""

from __future__ import annotations

import os

import pytest

from relay.server.metrics import ABOVE, SUM, WORKER, Kind, Metric
from relay.server.scoreboard import PARTITIONS_MAX, Layout, Owner, Scoreboard

FIELDS = [
    (metric.name, label)
    for metric in WORKER
    if metric.kind is not Kind.HISTOGRAM
    for label, _ in metric.cells()
]
MANY = (
    Metric("open", Kind.GAUGE, "Open."),
    Metric("closed", Kind.COUNTER, "Closed, by reason.", labels=("quit", "slow"), label="reason"),
    Metric("turn_us", Kind.HISTOGRAM, "Length of a turn.", "us", buckets=(10, 100, 1000)),
    Metric(
        "wait_us", Kind.HISTOGRAM, "Waits.", "us", labels=("a", "b"), label="for", buckets=(10,)
    ),
)


def in_child(action: object) -> None:
    """Run a function in a forked child and wait for it."""
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
        board.row(2).add("messages_accepted", 5)
        board.row(2).add("messages_accepted")

    in_child(child)
    assert board.row(2).get("heartbeat_ns") == 2**63
    assert board.row(2).get("messages_accepted") == 6
    assert [board.row(n).get("messages_accepted") for n in (0, 1, 3)] == [0, 0, 0]


def test_the_parent_assigns_and_a_child_reads() -> None:
    board = Scoreboard(256)
    for partition in range(PARTITIONS_MAX):
        board.assign(partition, partition % 256, 2**48 - 1 - partition)

    def child() -> None:
        for partition in range(PARTITIONS_MAX):
            worker, generation = board.owner(partition)
            assert (worker, generation) == (partition % 256, 2**48 - 1 - partition)
            assert board.owned_by(worker, generation)(partition)
            assert not board.owned_by(worker, generation - 1)(partition)
            assert not board.owned_by(worker ^ 1, generation)(partition)
        assert board.table_version == PARTITIONS_MAX

    in_child(child)


def test_cells_do_not_overlap() -> None:
    board = Scoreboard(3)
    number = 0
    for index in range(3):
        for name, label in FIELDS:
            number += 1
            board.row(index).set(name, number, label)
    board.assign(PARTITIONS_MAX - 1, 2, 77)
    values = [board.row(index).get(*cell) for index in range(3) for cell in FIELDS]
    assert values == list(range(1, number + 1))
    assert (board.workers, board.table_version) == (3, 1)


def test_a_dead_workers_gauges_go_and_its_counters_stay() -> None:
    row = Scoreboard(1).row(0)
    for name, label in FIELDS:
        row.set(name, 9, label)
    row.clear_gauges()
    kept = {name for name, label in FIELDS if row.get(name, label)}
    assert kept == {name for name, _ in FIELDS} - {
        metric.name for metric in WORKER if metric.kind is Kind.GAUGE
    }
    assert {"messages_accepted", "deliveries", "readers_too_slow", "restarts", "generation"} <= kept
    assert kept.isdisjoint({"pid", "ready", "connections", "not_accepting"})


def test_labels_and_buckets_have_cells_of_their_own() -> None:
    """Every cell of two rows gets a number of its own and keeps it."""
    board = Scoreboard(2, MANY)
    written = {}
    for index in range(2):
        row = board.row(index)
        for number, (name, label, bucket) in enumerate(Layout(MANY).offsets):
            if not bucket:
                row.set(name, 100 * index + number, label)
                written[index, name, label] = 100 * index + number
    assert {key: board.row(key[0]).get(*key[1:]) for key in written} == written
    row = board.row(1)
    row.add("closed", label="slow")
    assert row.get("closed", "slow") == written[1, "closed", "slow"] + 1
    assert row.get("closed", "quit") == written[1, "closed", "quit"]
    for value in (0, 10, 11, 1000, 1001, 5000):
        row.observer("turn_us")(value)
    row.observer("wait_us", "b")(7)
    buckets = ["10", "100", "1000", ABOVE, SUM]
    assert [row.get("turn_us", bucket=b) for b in buckets] == [2, 1, 1, 2, 7022]
    assert [row.get("wait_us", "b", b) for b in ("10", ABOVE, SUM)] == [1, 0, 7]
    assert [row.get("wait_us", "a", b) for b in ("10", ABOVE, SUM)] == [0, 0, 0]
    row.clear_gauges()
    assert row.get("open") == 0
    assert row.get("turn_us", bucket=SUM) == 7022
    for wrong in (("closed",), ("closed", "other"), ("open", "quit"), ("turn_us", "", "11")):
        with pytest.raises(KeyError):
            row.get(*wrong)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_no_two_rows_share_a_cache_line(count: int) -> None:
    layout = Layout([Metric(f"m{n}", Kind.COUNTER, "One.") for n in range(count)])
    assert layout.row_cells % 8 == 0
    assert count <= layout.row_cells < count + 8


def test_unassigned() -> None:
    board = Scoreboard(1)
    assert board.owner(3) == Owner(0, 0)
    assert board.table_version == 0


def test_erasures_are_counted_for_each_partition_and_end_with_its_owner() -> None:
    """The next home may acknowledge what its predecessor has committed and not counted."""
    board = Scoreboard(2)
    seen = [board.erasures(0)]
    other = board.erasures(1)
    for change in (board.erased, board.erased, lambda number: board.assign(number, 1, 2)):
        change(0)
        seen.append(board.erasures(0))
    assert len(set(seen)) == len(seen)
    assert board.erasures(1) == other
    board.erased(PARTITIONS_MAX - 1)
    assert not any(board.row(0).get(name) for name in board._layout.single)


def test_bounds() -> None:
    board = Scoreboard(2)
    for index in (-1, 2):
        with pytest.raises(IndexError):
            board.row(index)
    for partition in (-1, PARTITIONS_MAX):
        with pytest.raises(IndexError):
            board.assign(partition, 0, 1)
        with pytest.raises(IndexError):
            board.erased(partition)
        with pytest.raises(IndexError):
            board.erasures(partition)
    for worker, generation in ((2, 1), (-1, 1), (0, 0), (0, 2**48)):
        with pytest.raises(ValueError, match="no such worker"):
            board.assign(0, worker, generation)
    with pytest.raises(ValueError, match="number of workers"):
        board.workers = 3
    with pytest.raises(KeyError):
        board.row(0).get("nonsense")


def test_another_supervisor_maps_the_same_board() -> None:
    """By its descriptor, with its content; the mapping outlives the descriptor."""
    fd = os.memfd_create("board")
    os.ftruncate(fd, Scoreboard.bytes_of(3, MANY))
    first = Scoreboard(3, MANY, fd)
    assert first.workers == 3
    first.workers = 2
    first.assign(5, 1, 7)
    first.row(1).add("closed", 4, "slow")
    second = Scoreboard(3, MANY, fd)
    with pytest.raises(ValueError, match="mmap"):
        Scoreboard(300, MANY, fd)
    os.close(fd)
    assert (second.workers, second.owner(5)) == (2, Owner(1, 7))
    second.row(1).add("closed", 1, "slow")
    assert first.row(1).get("closed", "slow") == 5


def test_boards_that_differ_in_anything_have_other_formats() -> None:
    formats = {
        Scoreboard.format_of(3, MANY),
        Scoreboard.format_of(4, MANY),
        Scoreboard.format_of(3, MANY[:-1]),
        Scoreboard.format_of(3, MANY[::-1]),
        Scoreboard.format_of(3, (*MANY[:-1], Metric("wait_us", Kind.GAUGE, "Waits."))),
    }
    assert len(formats) == 5
    assert Scoreboard.format_of(3, tuple(MANY)) in formats
