"""Is the load generator itself the limit? Then its latencies say nothing about the server.

Locust looks every 10 s; a short run never hears of it. This looks every second, at two signs: the
process's share of a core, and how late its own timer fires (greenlets wait for each other).
"""

from __future__ import annotations

import logging
import time
from typing import Final

import gevent
import psutil

from loadtest.measures import Measures

CPU_PERCENT_MAX: Final = 90.0
"""Of one core. Locust warns at the same figure."""
LATE_MS_MAX: Final = 100.0
STEP_S: Final = 0.1
WARN_EVERY_S: Final = 10.0
SATURATED: Final = "LOAD GENERATOR SATURATED: latencies invalid"
log = logging.getLogger("relay.loadtest")


class Watch:
    """Watches the process it is made in."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first calls only begin
        psutil.cpu_percent()
        self._late_ms = 0.0
        self._began = time.monotonic()
        self._warned = float("-inf")

    def sleep(self, seconds: float) -> None:
        """Sleep in small steps, and note how late each one ended."""
        for _ in range(round(seconds / STEP_S)):
            due = time.monotonic() + STEP_S
            gevent.sleep(STEP_S)
            self._late_ms = max(self._late_ms, (time.monotonic() - due) * 1000.0)

    def look(self, measures: Measures) -> None:
        """Judge the time since the last check; print a warning, and keep it for the summary."""
        now = time.monotonic()
        if now - self._began < STEP_S:
            return  # too short to say anything
        cpu, late_ms = self._process.cpu_percent(), self._late_ms
        machine = psutil.cpu_percent()
        self._began, self._late_ms = now, 0.0
        measures.peak("cpu_percent", cpu)
        measures.peak("late_ms", late_ms)
        measures.peak("machine_percent", machine)
        measures.counts["seconds watched"] += 1
        if cpu <= CPU_PERCENT_MAX and late_ms <= LATE_MS_MAX:
            return
        measures.counts["seconds saturated"] += 1
        if now - self._warned >= WARN_EVERY_S:
            self._warned = now
            log.warning(
                "%s (%.0f %% of a core, timers %.0f ms late; the machine %.0f %% busy); use fewer "
                "users, more --processes, or another machine",
                SATURATED,
                cpu,
                late_ms,
                machine,
            )
