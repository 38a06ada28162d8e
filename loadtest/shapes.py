"""Runs whose number of users follows a plan: spike, and the ramp that finds the capacity."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from locust.runners import WorkerRunner

from loadtest import hooks
from loadtest.capacity import Finder, Step
from loadtest.mistakes import mistakes
from loadtest.parameters import Parameters, parameters_of
from loadtest.summary import FACTS
from loadtest.swarm import DELIVERED, SWARM

if TYPE_CHECKING:
    from locust.env import Environment

Tick = tuple[int, float] | None
QUIET: Final = 0.2
"""Of the users: those who are there between two spikes."""
SPIKE_S: Final = 30.0
SPAWN_PER_S: Final = 100.0
RAMP_SPAWN_PER_S: Final = 40.0
SETTLE_S: Final = 5.0
"""After a change: handshakes and joins are not what a step measures."""

BEHIND_MAX: Final = 0.01
"""Of a step's deliveries: with more of them late, a p99 of the others says nothing."""


def _run_time_s(environment: Environment) -> float:
    run_time = getattr(environment.parsed_options, "run_time", None)
    return float(run_time) if run_time else float("inf")


class Spike(hooks.Shape):
    """A fifth of the users, then all of them at once, and so on until the time is over."""

    use_common_options = True

    def __init__(self, environment: Environment) -> None:
        super().__init__()
        self.environment = environment

    def tick(self) -> Tick:
        """Return (users, spawn rate) of now; Locust calls it every second."""
        passed = self.passed_s
        if passed > _run_time_s(self.environment):
            return None
        users = getattr(self.environment.parsed_options, "num_users", None) or 1
        high = int(passed / SPIKE_S) % 2 == 1
        return (users if high else max(1, int(users * QUIET)), SPAWN_PER_S)


class Ramp(hooks.Shape):
    """Raises the users until the p99 objective breaks, reports the capacity, and ends by itself."""

    def __init__(self, environment: Environment, told: Parameters) -> None:
        super().__init__()
        self.environment = environment
        self.told = told
        self.reset_time()

    def reset_time(self) -> None:
        """Begin; Locust calls it at the start of a test."""
        super().reset_time()
        self.finder = Finder(self.told.first_users, self.told.p99_objective)
        self._since: float | None = None
        """When the running measurement began; None: users still come or settle."""
        self._steady_at: float | None = None
        """When the step had all its users; None: it has not."""

    def tick(self) -> Tick:
        """Return (users, spawn rate) of now; Locust calls it every second."""
        now = time.monotonic()
        if self.passed_s > _run_time_s(self.environment):
            self._report("the time was over")
            return None
        if self._steady_at is None:
            if self.users_now == self.finder.users:
                self._steady_at = now
        elif self._since is None:
            if now - self._steady_at >= SETTLE_S:
                self._since = now
                SWARM.window.reset()
        elif now - self._since >= self.told.step_time:
            step = self._measure(now - self._since)
            self._since = self._steady_at = None
            print(f"ramp: {_described(step)}", flush=True)
            if not self.finder.measured(step):
                self._report("")
                return None
        return (self.finder.users, RAMP_SPAWN_PER_S)

    def _measure(self, seconds: float) -> Step:
        window = SWARM.window
        return Step(
            users=self.finder.users,
            p99_ms=window.percentile_us(DELIVERED, 99.0) / 1000.0,
            messages_per_s=window.counts["messages stored"] / seconds,
            deliveries_per_s=window.counts["deliveries checked"] / seconds,
            saturated=window.counts["seconds saturated"] > window.counts["seconds watched"] * 0.1,
            fell_behind=window.counts["deliveries caught up"]
            > window.counts["deliveries checked"] * BEHIND_MAX,
        )

    def _report(self, cut_short: str) -> None:
        best, worst = self.finder.best, self.finder.worst
        objective = self.told.p99_objective
        if best is None:
            text = f"none: the first {self.finder.users} users broke {objective:g} ms"
        else:
            text = f"{best.users} users with p99 up to {objective:g} ms ({_described(best)})"
        if worst is not None:
            limit = "the load generator" if worst.saturated else "the relay's latency"
            text += f"; at {worst.users} the limit was {limit}"
        text += f"; {cut_short}" * bool(cut_short)
        FACTS["capacity"] = text
        FACTS["capacity_users"] = best.users if best is not None else 0
        FACTS["steps"] = [_plain(step) for step in self.finder.steps]


def _described(step: Step) -> str:
    return (
        f"{step.users} users, {step.messages_per_s:.1f} messages/s, "
        f"{step.deliveries_per_s:.0f} deliveries/s, p99 {step.p99_ms:.1f} ms"
        + (", LOAD GENERATOR SATURATED" if step.saturated else "")
        + (", readers fell behind" if step.fell_behind else "")
    )


def _plain(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in Step.__slots__}


def choose(environment: Environment, **_: object) -> None:
    """Give the run its shape, if its scenario has one."""
    if isinstance(environment.runner, WorkerRunner):
        return  # the master looks at the parameters for all
    with mistakes():
        told = parameters_of(environment)
    if told.scenario == "ramp":
        environment.shape_class = Ramp(environment, told)
    elif told.scenario == "spike":
        environment.shape_class = Spike(environment)
    if environment.shape_class is not None:
        environment.shape_class.runner = environment.runner
