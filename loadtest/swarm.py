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
        self.delivered_untimed = 0
        """Of the running second: checked, but their times say nothing."""
        self.connected = False
        """True once any user of this process has had a connection."""
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
        assert self.environment is not None
        # Locust keeps one entry per text: the detail is in the log and the summary.
        error = type(violation)(kind)
        hooks.fire_request(self.environment, kind, None, 0, error, hooks.VIOLATION)

    def acknowledged(self, name: str, seq: int) -> None:
        """A message of this process is in a log."""
        if seq > self.heads.get(name, 0):
            self.heads[name] = seq

    # --- once a second ----------------------------------------------------------------------------
    def pulse(self, watch: Watch) -> None:
        """Put a second's deliveries into histogram and table; look at our own load."""
        values, self.delivered_us = self.delivered_us, []
        untimed, self.delivered_untimed = self.delivered_untimed, 0
        record = self.here.record
        for value in values:
            record(DELIVERED, value)
        assert self.environment is not None
        hooks.log_deliveries(
            self.environment, DELIVERED, [value / 1000.0 for value in values], untimed
        )
        watch.look(self.here)

    def collect(self, taken: dict[str, Any]) -> None:
        """Add what a process has measured."""
        self.total.merge(taken)
        self.window.merge(taken)

    def reset(self) -> None:
        """Begin a new test."""
        for measures in (self.here, self.total, self.window):
            measures.reset()
        self.delivered_us.clear()
        self.delivered_untimed = 0
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


def begin(environment: Environment, **_: object) -> None:
    """Locust has started."""
    SWARM.environment = environment
    if not isinstance(environment.runner, MasterRunner):
        gevent.spawn(_beat)


def reset(environment: Environment, **_: object) -> None:
    """A test begins."""
    SWARM.reset()


def report(client_id: str, data: dict[str, Any]) -> None:
    """Put what was measured here into a report to the master."""
    data[REPORT_KEY] = SWARM.here.take()


def reported(client_id: str, data: dict[str, Any]) -> None:
    """Take what a worker has measured."""
    if REPORT_KEY in data:
        SWARM.collect(data[REPORT_KEY])


def spawned(user_count: int, **_: object) -> None:
    """All users are there."""
    if SWARM.environment is not None and SWARM.environment.reset_stats:
        SWARM.forget_spawning()


def forget_spawning(**_: object) -> None:
    """Locust's statistics were reset by hand."""
    SWARM.forget_spawning()
