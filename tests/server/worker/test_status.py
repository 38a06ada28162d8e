"""What a worker reads in the rows of the others."""

from __future__ import annotations

from relay.server.scoreboard import Scoreboard
from relay.server.worker.process.status import WorkerStatus


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
