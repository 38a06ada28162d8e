"""What all simulated users of one process share, and how processes report to Locust's master.

Each process measures into ``here``. Once a second (one process alone) or with each report to the
master (many), what was measured is moved to ``total`` and ``window`` of the one that reports.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

import gevent
from locust.runners import MasterRunner, WorkerRunner

from loadtest import hooks
from loadtest.checks import Violation
from loadtest.measures import VIOLATION, Measures
from loadtest.saturation import Watch

if TYPE_CHECKING:
    from locust.env import Environment

DELIVERED: Final = "publish→delivered"
PULSE_S: Final = 1.0
REPORT_KEY: Final = "relay"
log = logging.getLogger("relay.loadtest")


class Swarm:
    """One process's part of the swarm; on the reporting process also the sum of all."""

    def __init__(self) -> None:
        self.here = Measures()
        self.total = Measures()
        """Everything since the start, of all processes; empty in Locust's workers."""
        self.window = Measures()
        """As ``total``, but emptied by whoever looks at it (the capacity finder)."""
        self.delivered_us: list[float] = []
        """Of the running second: an event or a histogram call per delivery would cost too much."""
        self.heads: dict[str, int] = {}
        """The highest acknowledged seq of each log: every reader must get there in the end."""
        self.began = time.monotonic()
        """When the running measurement began."""
        self.environment: Environment | None = None
        """None until Locust has started."""

    # --- what users tell --------------------------------------------------------------------------
    def request(
        self, name: str, milliseconds: float | None, size: int = 0, error: Exception | None = None
    ) -> None:
        """Fire Locust's request event, and keep the time in microseconds."""
        assert self.environment is not None
        if milliseconds is not None and error is None:
            self.here.record(name, milliseconds * 1000.0)
        hooks.fire_request(self.environment, name, milliseconds, size, error)

    def violated(self, violation: Violation) -> None:
        """Count a broken promise, and make it a failure of Locust's."""
        kind = type(violation).__name__
        self.here.counts[VIOLATION + kind] += 1
        detail = f"{kind}: {violation}"
        self.here.example(detail)
        log.error("VIOLATION %s", detail)
        # Locust keeps one entry per text: the detail is in the log and the summary.
        self.request("check", None, 0, type(violation)(kind))

    def acknowledged(self, name: str, seq: int) -> None:
        """A message of this process is in a log."""
        if seq > self.heads.get(name, 0):
            self.heads[name] = seq

    # --- once a second ----------------------------------------------------------------------------
    def pulse(self, watch: Watch) -> None:
        """Put a second's deliveries into the histogram; look at our own load."""
        values, self.delivered_us = self.delivered_us, []
        if values:
            record = self.here.record
            for value in values:
                record(DELIVERED, value)
            values.sort()
            p99_ms = values[int(len(values) * 0.99)] / 1000.0
            self._show("publish→delivered, p99 of each second", p99_ms)
        watch.look(self.here)

    def _show(self, name: str, milliseconds: float) -> None:
        """Give the web page a line, without touching the histograms."""
        assert self.environment is not None
        hooks.fire_request(self.environment, name, milliseconds)

    def collect(self, taken: dict[str, Any]) -> None:
        """Add what a process has measured."""
        self.total.merge(taken)
        self.window.merge(taken)

    def reset(self) -> None:
        """Begin a new test."""
        for measures in (self.here, self.total, self.window):
            measures.reset()
        self.delivered_us.clear()
        self.began = time.monotonic()

    def forget_spawning(self) -> None:
        """Begin to measure again, with all users there; what was violated stays violated."""
        self.delivered_us.clear()
        for measures in (self.here, self.total, self.window):
            examples = measures.examples
            violations = measures.violation_counts
            measures.reset()
            measures.counts.update(violations)
            measures.examples = examples
        self.began = time.monotonic()


SWARM: Final = Swarm()
"""Of this process."""


def _beat() -> None:
    watch = Watch()
    environment = SWARM.environment
    assert environment is not None
    while True:
        watch.sleep(PULSE_S)
        SWARM.pulse(watch)
        if not isinstance(environment.runner, WorkerRunner):
            SWARM.collect(SWARM.here.take())


def gather() -> Measures:
    """Return everything measured so far: call it in the reporting process."""
    SWARM.pulse(Watch())
    SWARM.collect(SWARM.here.take())
    return SWARM.total


def _begin(environment: Environment, **_: object) -> None:
    SWARM.environment = environment
    if not isinstance(environment.runner, MasterRunner):
        gevent.spawn(_beat)


def _reset(environment: Environment, **_: object) -> None:
    SWARM.reset()


def _report(client_id: str, data: dict[str, Any]) -> None:
    data[REPORT_KEY] = SWARM.here.take()


def _reported(client_id: str, data: dict[str, Any]) -> None:
    if REPORT_KEY in data:
        SWARM.collect(data[REPORT_KEY])


def _spawned(user_count: int, **_: object) -> None:
    if SWARM.environment is not None and SWARM.environment.reset_stats:
        SWARM.forget_spawning()


hooks.listen("init", _begin)
hooks.listen("spawning_complete", _spawned)
hooks.listen("reset_stats", lambda **_: SWARM.forget_spawning())
hooks.listen("test_start", _reset)
hooks.listen("report_to_master", _report)
hooks.listen("worker_report", _reported)
