"""Whether the server is ready, by scoreboards of which nobody but the test writes a cell."""

from __future__ import annotations

from typing import Final

import pytest

from relay.server.control.board_view import FRESH_NS, SUPERVISOR, BoardView
from relay.server.control.health import UNNOTICED_NS, Answer, Readiness
from relay.server.metrics import AGENT, PROCESS, WORKER
from relay.server.metrics import SUPERVISOR as SUPERVISOR_METRICS
from relay.server.scoreboard import Scoreboard

STEP_NS: Final = 200_000_000
PARTITIONS: Final = 4
LASTING: Final = {
    "worker": "partitions without a running worker: 1, 3",
    "agent": "the key agent is not running: no new client can connect",
}
BRIEF: Final = {
    "worker": "partitions without a running worker, for less than 3 s: 1, 3",
    "agent": "the key agent is not running, for less than 3 s",
}


class Server:
    """A server of two workers, as the control process sees it."""

    def __init__(self) -> None:
        self.boards = {
            "control": Scoreboard(1, PROCESS),
            "agent": Scoreboard(1, AGENT),
            "worker": Scoreboard(2, WORKER),
            SUPERVISOR: Scoreboard(1, SUPERVISOR_METRICS),
        }
        self.now_ns = 10**12
        self.running = {"agent": ("agent", 0), "first": ("worker", 0), "worker": ("worker", 1)}
        for partition in range(PARTITIONS):
            self.boards["worker"].assign(partition, partition % 2, 1 + partition % 2)
        for role, index in self.running.values():
            self.boards[role].row(index).set("generation", 1 + index)
            self.boards[role].row(index).set("ready", 1)
        self.restart_control()

    def restart_control(self) -> None:
        """Another control process, which has seen nothing yet."""
        self.readiness = Readiness(BoardView(self.boards, PARTITIONS))

    def sleep(self, seconds_ns: int) -> None:
        """Let nothing run."""
        self.now_ns += seconds_ns

    def run(self, for_ns: int) -> set[bool]:
        """Let the control process look several times a second; return what it answered."""
        answers = set()
        end_ns = self.now_ns + for_ns
        while self.now_ns < end_ns:
            self.now_ns += STEP_NS
            for role, index in self.running.values():
                self.boards[role].row(index).set("heartbeat_ns", self.now_ns)
            answers.add(self.answer().ok)
        return answers

    def answer(self) -> Answer:
        return self.readiness.answer(self.now_ns)


@pytest.mark.parametrize("who", ["worker", "agent"])
@pytest.mark.parametrize("how", ["dead", "silent"])
def test_a_process_may_be_away_for_some_seconds(who: str, how: str) -> None:
    """Then the server is not ready, until the process runs again."""
    server = Server()
    assert server.run(STEP_NS) == {True}
    assert server.answer().document["warnings"] == []
    role, index = server.running[who]
    away = server.running.pop(who)
    if how == "dead":
        server.boards[role].row(index).clear_gauges()
    assert server.run(FRESH_NS + STEP_NS) == {True}
    assert server.answer().document["warnings"] == [BRIEF[who]]
    server.run(UNNOTICED_NS)
    assert server.answer().document == {"ready": False, "reasons": [LASTING[who]], "warnings": []}
    server.running[who] = away
    server.boards[role].row(index).set("ready", 1)
    server.boards[role].row(index).set("generation", 1 + index)
    assert server.run(STEP_NS) == {True}


def test_short_absences_do_not_add_up() -> None:
    """A busy machine: again and again a worker does not run for longer than a second."""
    server = Server()
    for _ in range(10):
        assert server.run(STEP_NS) == {True}
        away = server.running.pop("worker")
        assert server.run(FRESH_NS + STEP_NS) == {True}
        server.running["worker"] = away


def test_what_has_not_run_yet_is_not_waited_for() -> None:
    """At the start, the server is not ready before it serves."""
    server = Server()
    del server.running["worker"]
    assert server.run(STEP_NS) == {False}


def test_a_control_process_that_did_not_run_does_not_blame_the_others() -> None:
    """The machine was suspended, and the control process is the first to run again."""
    server = Server()
    server.run(STEP_NS)
    server.sleep(10 * UNNOTICED_NS)
    answer = server.answer()
    assert answer.ok
    everyone = BRIEF["worker"].replace("1, 3", "0, 1, 2, 3")
    assert answer.document["warnings"] == [everyone, BRIEF["agent"]]
    assert server.run(STEP_NS) == {True}
    del server.running["worker"]
    server.sleep(10 * UNNOTICED_NS)
    server.run(UNNOTICED_NS + FRESH_NS + STEP_NS)
    assert not server.answer().ok


def test_a_stop_shows_at_once() -> None:
    server = Server()
    server.run(STEP_NS)
    server.boards[SUPERVISOR].row(0).set("stopping", 1)
    assert server.answer().document["reasons"] == ["the server is stopping"]
