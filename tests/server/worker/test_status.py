"""What a worker reads in the rows of the others."""

from __future__ import annotations

import time

from relay.server.scoreboard import Scoreboard
from relay.server.worker.process.reporting.status import WorkerStatus


def test_the_connections_of_the_others() -> None:
    """Of those that run and accept; logged in or not, as new connections go to who has fewest."""
    board = Scoreboard(4)
    board.workers = 4
    own = WorkerStatus(board, 0, 1)
    assert own.connections_of_others() == []
    long_ns = 10**11  # longer than this test takes
    runs_ns, hangs_ns = time.monotonic_ns() + long_ns, time.monotonic_ns() - long_ns
    for number, ready, heartbeat_ns in ((1, 1, runs_ns), (2, 0, runs_ns), (3, 1, hangs_ns)):
        row = board.row(number)
        row.set("ready", ready)
        row.set("heartbeat_ns", heartbeat_ns)
        row.set("connections", 10 * number)
        row.set("connections_logged_in", number)
    assert own.connections_of_others() == [10]
    assert own.least_loaded() == 10
    board.row(1).set("not_accepting", 1)
    assert own.least_loaded() is None


def test_which_worker_is_starting() -> None:
    """The newest one that runs and does not serve yet; neither this one nor one that has ended."""
    board = Scoreboard(4)
    board.workers = 4
    own = WorkerStatus(board, 0, 1)
    other, third, last = map(board.row, (1, 2, 3))
    assert own.starting() == 0
    other.set("generation", 2)
    assert own.starting() == 0, "it has not begun"
    other.set("pid", 1000)
    assert own.starting() == 2
    third.set("generation", 3)
    third.set("pid", 1001)
    assert own.starting() == 3
    third.set("retired", 1)
    assert own.starting() == 2
    other.set("ready", 1)
    assert own.starting() == 0
    last.set("generation", 4)
    last.set("pid", 1002)
    assert own.starting() == 4
    last.clear_gauges()
    assert own.starting() == 0
