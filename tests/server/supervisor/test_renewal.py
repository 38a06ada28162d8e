"""What processes were started with is recreated: they are replaced by new processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import pytest

from relay.server.supervisor.renewal import LOOK_S, Renewal
from relay.server.supervisor.roles import Role
from relay.server.supervisor.spare import SpareKeeper
from relay.server.supervisor.state import SPARE_AFTER_S, Child, State
from tests.server.supervisor.test_plan import never


class Watched:
    """A server with a real control process, and what it was started with."""

    def __init__(self) -> None:
        self.gone = self.listener_gone = False
        self.looks = 0
        control = Role("control", "control", never, 5.0, 1, renewed=self._renewed)
        worker = Role(
            "worker", "worker {index}", never, 30.0, 3, owns_partitions=True,
            renewed=self._listener_renewed, load_ahead=lambda: None,
        )  # fmt: skip
        self.state = State((control, worker), heartbeat_timeout_s=5.0)
        self.control, self.worker = self.state.children
        self.process = subprocess.Popen(["/bin/sleep", "600"])
        self.start(self.control, self.process.pid)
        self.start(self.worker, 2)
        for child in self.state.children:
            self.state.became_ready(child, 0.0)
        self.spares = SpareKeeper(self.state, self.state.roles, lambda *_: 0, lambda: None)
        self.renewal = Renewal(self.state.roles, self.state, self.spares)

    def start(self, child: Child, pid: int) -> None:
        self.state.started(child, pid, 1, 0.0)

    def _renewed(self) -> bool:
        """Report that it was missing and was created again."""
        self.looks += 1
        gone, self.gone = self.gone, False
        return gone

    def _listener_renewed(self) -> bool:
        gone, self.listener_gone = self.listener_gone, False
        return gone


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.process.kill()
    watched.process.wait()


def test_one_that_serves_is_ended_at_once(watched: Watched) -> None:
    watched.gone = True
    watched.renewal.look(0.0)
    assert watched.process.wait() == -signal.SIGTERM
    watched.renewal.look(LOOK_S)
    assert watched.control.sent == signal.SIGTERM


def test_one_that_is_starting_is_ended_once_it_serves(watched: Watched) -> None:
    """It was forked before, with the old one; ending it earlier would be a failed start."""
    watched.start(watched.control, watched.process.pid)
    watched.gone = True
    watched.renewal.look(0.0)
    assert not watched.control.sent
    watched.state.became_ready(watched.control, 1.0)
    assert watched.renewal.wake_at_s <= LOOK_S
    watched.renewal.look(LOOK_S)
    assert watched.process.wait() == -signal.SIGTERM
    # The next one has the new one.
    watched.state.exited(watched.control, LOOK_S, 0.0)
    watched.start(watched.control, watched.process.pid)
    watched.state.became_ready(watched.control, 2 * LOOK_S)
    watched.renewal.look(2 * LOOK_S)
    assert not watched.control.sent


def test_so_after_a_reload(watched: Watched) -> None:
    changed = True
    control = replace(watched.control.role, renewed=None, outdated=lambda: changed)
    watched.state.roles = (control, watched.worker.role)
    renewal = Renewal(watched.state.roles, watched.state, cast("SpareKeeper", None))
    watched.start(watched.control, watched.process.pid)
    renewal.reloaded(0.0)
    changed = False
    assert not watched.control.sent
    assert renewal.wake_at_s <= LOOK_S
    watched.state.became_ready(watched.control, 1.0)
    renewal.look(LOOK_S)
    assert watched.process.wait() == -signal.SIGTERM


def test_none_is_ended_that_is_not_there(watched: Watched) -> None:
    watched.state.exited(watched.control, 0.0, 0.0)
    watched.gone = True
    watched.renewal.look(0.0)
    assert not watched.control.replace
    assert not watched.control.sent


def test_workers_take_turns_and_the_spare_one_is_of_no_use(watched: Watched) -> None:
    """It was forked with the old sockets."""
    watched.spares.start(0.0)
    spare = watched.state.spare_pid
    assert spare
    watched.listener_gone = True
    watched.renewal.look(10.0)
    assert os.waitstatus_to_exitcode(os.waitpid(spare, 0)[1]) == -signal.SIGKILL
    assert watched.state.spare_pid == 0
    assert watched.state.spare_at_s == 10.0 + SPARE_AFTER_S
    assert (watched.worker.replace, watched.worker.sent) == (True, 0), "when its turn comes"
    assert not watched.control.sent


def test_it_is_looked_from_time_to_time(watched: Watched) -> None:
    for now in (0.0, LOOK_S / 2, LOOK_S, 1.5 * LOOK_S, 2 * LOOK_S):
        watched.renewal.look(now)
    assert watched.looks == 3
    assert watched.renewal.wake_at_s == 3 * LOOK_S


@pytest.mark.parametrize(
    "change",
    [{"serving": False}, {"stopping": signal.SIGTERM}, {"lent": True}],
    ids=["starts", "stops", "has lent its workers"],
)
def test_not_while_it(watched: Watched, change: dict[str, int]) -> None:
    watched.gone = True
    for name, value in change.items():
        setattr(watched.state, name, value)
    watched.renewal.look(0.0)
    assert not watched.looks
    assert not watched.control.sent


def test_not_while_it_leads_the_workers_of_the_one_before(watched: Watched) -> None:
    watched.state.lead([(0, 3, 1)], 0.0)
    watched.renewal.look(0.0)
    assert not watched.looks
