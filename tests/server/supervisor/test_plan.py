"""The plan, without a fork: time and random numbers are arguments."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from relay.server.supervisor.plan import Finish, Leave, Send, Start, plan, wake_at
from relay.server.supervisor.roles import Launch, Role
from relay.server.supervisor.state import CRASHES_FAST, Child, Phase, State, backoff_s

WORKER_BOOT_S = 30.0


def never(launch: Launch) -> int:
    raise AssertionError("the plan runs nothing")


class Server(State):
    """A server with the roles of a relay."""

    @property
    def agent(self) -> Child:
        return self.of("agent")[0]

    @property
    def workers(self) -> list[Child]:
        return self.of("worker")


def state_of(workers: int = 2, *, ready: bool = False) -> Server:
    agent = Role("agent", "key agent", never, 120.0, 1)
    worker = Role(
        "worker", "worker {index}", never, WORKER_BOOT_S, 3, count=workers, needs=("agent",)
    )
    state = Server((agent, worker), heartbeat_timeout_s=5.0)
    if ready:
        for number, child in enumerate(state.children):
            state.started(child, 100 + number, 1 + number, 0.0)
            state.became_ready(child, 0.0)
    return state


def test_a_third_role_is_one_entry() -> None:
    """It starts after its dependencies, the start waits for it, and it stops in its turn."""
    agent, worker = state_of().roles
    control = Role("control", "control", never, 5.0, 1, needs=("agent", "worker"))
    state = State((agent, worker, control), heartbeat_timeout_s=5.0)
    begun = []
    while not state.serving:
        for action in plan(state, 0.0):
            assert isinstance(action, Start)
            begun.append(action.child.name)
            state.started(action.child, 100 + len(begun), len(begun), 0.0)
        for child in state.children:
            if child.phase is Phase.STARTING:
                state.became_ready(child, 0.0)
    assert begun == ["key agent", "worker 0", "worker 1", "control"]
    state.stop(1.0, 30.0)
    ended = []
    while plan(state, 1.0) != [Finish()]:
        for action in plan(state, 1.0):
            assert isinstance(action, Send)
            ended.append(action.child.name)
            state.exited(action.child, 1.0, 0.0)
    assert ended == ["control", "worker 0", "worker 1", "key agent"]


def test_agent_first_then_the_workers() -> None:
    state = state_of()
    assert plan(state, 0.0) == [Start(state.agent)]
    state.started(state.agent, 100, 1, 0.0)
    assert plan(state, 0.0) == []
    assert not state.became_ready(state.agent, 0.5)
    assert plan(state, 0.5) == [Start(state.workers[0]), Start(state.workers[1])]


def test_the_start_is_over_when_the_last_worker_is_ready() -> None:
    state = state_of()
    for number, child in enumerate(state.children):
        state.started(child, 100 + number, 1 + number, 0.0)
    assert [state.became_ready(child, 1.0) for child in state.children] == [False, False, True]
    assert state.serving
    # A restart does not start the server again.
    state.exited(state.workers[0], 2.0, 0.0)
    state.started(state.workers[0], 103, 4, 2.0)
    assert not state.became_ready(state.workers[0], 2.1)


def test_plan_is_idempotent() -> None:
    state = state_of(ready=True)
    state.workers[0].heartbeat_s = 1.0
    state.workers[1].heartbeat_s = 100.0
    state.agent.heartbeat_s = 100.0
    expected = [Send(state.workers[0], signal.SIGKILL, "hung")]
    assert plan(state, 100.0) == expected
    assert plan(state, 100.0) == expected
    state.workers[0].sent = signal.SIGKILL
    assert plan(state, 100.0) == []


def test_silence_is_noticed_at_its_deadline_and_not_before() -> None:
    state = state_of(1, ready=True)
    state.agent.heartbeat_s = state.workers[0].heartbeat_s = 7.0
    assert wake_at(state, 7.0) == 12.0
    assert plan(state, 11.99) == []
    assert len(plan(state, 12.0)) == 2


def test_a_booting_worker_gets_longer() -> None:
    state = state_of(1, ready=True)
    worker = state.workers[0]
    state.exited(worker, 10.0, 0.0)
    state.started(worker, 200, 9, 10.0)
    state.agent.heartbeat_s = 1000.0
    assert plan(state, 10.0 + WORKER_BOOT_S - 0.01) == []
    assert plan(state, 10.0 + WORKER_BOOT_S) == [Send(worker, signal.SIGKILL, "not ready in time")]


def test_silence_while_the_supervisor_slept_proves_nothing() -> None:
    state = state_of(1, ready=True)
    state.interrupted(1000.0, 993.0)
    assert plan(state, 1000.1) == []
    assert len(plan(state, 1005.0)) == 2


def test_those_that_leave_get_the_time_in_which_the_supervisor_slept() -> None:
    """They may have been stopped as well, and their clients with them."""
    state = state_of(2, ready=True)
    leaving = state.workers[1]
    leaving.surplus = True
    state.leaves(leaving, 0.0, 9.0)
    state.interrupted(1000.0, 995.0)
    for child in state.children:
        child.heartbeat_s = 1004.9
    assert plan(state, 1004.9) == []
    assert plan(state, 1005.0) == [Send(leaving, signal.SIGKILL, "not left in time")]
    state.stop(1005.0, 9.0)
    state.interrupted(3000.0, 1990.0)
    workers = state.workers
    assert plan(state, 3004.9) == [Send(child, signal.SIGTERM, "stop") for child in workers]
    assert plan(state, 3005.0) == [
        Send(child, signal.SIGKILL, "not stopped in time") for child in workers
    ]


def test_workers_wait_for_the_agent() -> None:
    state = state_of(1, ready=True)
    state.exited(state.agent, 1.0, 0.0)
    state.exited(state.workers[0], 1.0, 0.0)
    assert plan(state, 1.0) == [Start(state.agent)]
    # No deadline because of the worker: otherwise the loop would spin.
    state.started(state.agent, 300, 9, 1.0)
    assert wake_at(state, 1.0) > 1.5


@pytest.mark.parametrize("chance", [0.0, 0.999])
def test_backoff(chance: float) -> None:
    waits = [backoff_s(crashes, 0, chance) for crashes in range(1, 12)]
    assert waits[:3] == [0.0, 0.0, waits[2]]
    assert waits[2] >= 0.05, "a third death within the window is a series"
    assert waits == sorted(waits)
    assert waits[CRASHES_FAST - 1] <= 0.2
    assert waits[CRASHES_FAST] >= 0.5
    assert waits[-1] <= 2.0
    boots = [backoff_s(1, failed, chance) for failed in range(1, 2000)]
    assert boots[0] > 0
    assert 15.0 <= boots[-1] <= 30.0


@pytest.mark.parametrize("boots", [True, False])
def test_never_a_fork_bomb(boots: bool) -> None:
    """A worker that exits at once, for ten minutes: the number of forks stays small."""
    state = state_of(1, ready=True)
    worker = state.workers[0]
    now, forks = 0.0, 0
    state.exited(worker, now, 0.0)
    while now < 600.0:
        state.agent.heartbeat_s = now
        for action in plan(state, now):
            assert action == Start(worker)
            forks += 1
            state.started(worker, 1000 + forks, 10 + forks, now)
            if boots:
                state.became_ready(worker, now)
            state.exited(worker, now, 0.0)
        now = max(now, min(wake_at(state, now), worker.start_at_s))
    assert forks < (620 if boots else 60)
    # After the window without a failure it restarts immediately again.
    state.started(worker, 1, 1, now)
    state.became_ready(worker, now)
    state.exited(worker, now + 60.0, 0.5)
    assert worker.start_at_s == now + 60.0


def test_stop_workers_then_agent_then_finish() -> None:
    state = state_of(2, ready=True)
    state.stop(10.0, 30.0)
    sends = plan(state, 10.0)
    assert sends == [Send(child, signal.SIGTERM, "stop") for child in state.workers]
    for child in state.workers:
        child.sent = signal.SIGTERM
    assert plan(state, 10.1) == []
    assert wake_at(state, 38.0) == 41.0
    for child in state.workers:
        state.exited(child, 12.0, 0.0)
    assert plan(state, 12.0) == [Send(state.agent, signal.SIGTERM, "stop")]
    state.agent.sent = signal.SIGTERM
    state.exited(state.agent, 12.1, 0.0)
    assert plan(state, 12.1) == [Finish()]


def test_stop_twice_and_then_by_force() -> None:
    state = state_of(1, ready=True)
    state.stop(10.0, 30.0)
    worker = state.workers[0]
    worker.sent = signal.SIGTERM
    state.stop(11.0, 30.0)
    assert plan(state, 11.0) == [Send(worker, signal.SIGQUIT, "stop")]
    worker.sent = signal.SIGQUIT
    assert plan(state, 12.9) == []
    assert plan(state, 13.0) == [Send(worker, signal.SIGKILL, "not stopped in time")]


def test_nothing_is_started_while_stopping() -> None:
    state = state_of(2, ready=True)
    state.stop(1.0, 30.0)
    state.exited(state.workers[0], 1.0, 0.0)
    assert all(isinstance(action, Send) for action in plan(state, 50.0))


def test_workers_of_the_server_before_leave_when_all_of_this_one_serve() -> None:
    agent, worker = state_of().roles
    worker = replace(worker, owns_partitions=True)
    state = State((agent, worker), heartbeat_timeout_s=5.0)
    state.wait_to_lead()
    (start,) = plan(state, 0.0)
    assert isinstance(start, Start)
    state.started(start.child, 1, 1001, 0.0)
    state.became_ready(start.child, 0.0)
    assert plan(state, 0.0) == []
    state.lead([(0, 70, 7), (2, 72, 8)], 0.0)
    own = [action.child for action in plan(state, 0.0) if isinstance(action, Start)]
    assert [child.index for child in own] == [1, 3], "the free places"
    state.started(own[0], 80, 1002, 0.0)
    state.started(own[1], 81, 1003, 0.0)
    state.became_ready(own[0], 0.0)
    for child in state.before:
        child.yielded = True
    assert plan(state, 0.0) == [], "one does not serve yet"
    state.became_ready(own[1], 0.0)
    first, second = state.before
    second.yielded = False
    assert plan(state, 0.0) == [], "one still accepts"
    second.yielded = True
    assert plan(state, 0.0) == [Leave(first)]
    state.leaves(first, 0.0, 1.0)
    assert plan(state, 0.0) == [], "one after the other"
    state.children.remove(first)
    assert plan(state, 0.0) == [Leave(second)]
    assert state.staying == [1, 3]


def test_workers_that_are_lent_are_left_alone() -> None:
    state = state_of(ready=True)
    agent, worker = state.roles
    state = Server((agent, replace(worker, owns_partitions=True)), heartbeat_timeout_s=5.0)
    for number, child in enumerate(state.children):
        state.started(child, 100 + number, 1 + number, 0.0)
        state.became_ready(child, 0.0)
    state.lent = True
    state.exited(state.workers[0], 1.0, 0.5)
    state.exited(state.agent, 1.0, 0.5)
    assert plan(state, 100.0) == [Start(state.agent)]
    state.lent = False
    assert Send(state.workers[1], signal.SIGKILL, "hung") in plan(state, 100.0)


def test_phase_of_a_dead_child() -> None:
    state = state_of(1, ready=True)
    state.exited(state.workers[0], 1.0, 0.0)
    assert (state.workers[0].phase, state.workers[0].pid) == (Phase.DOWN, 0)
