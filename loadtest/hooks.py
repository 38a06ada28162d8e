"""Locust's event hooks and statistics, which are untyped, behind typed functions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from locust import LoadTestShape, events
from locust.stats import StatsEntry, bucket_response_time

if TYPE_CHECKING:
    from locust.env import Environment

REQUEST, DELIVERY, VIOLATION = "REQUEST", "DELIVERY", "VIOLATION"
"""The types of rows in Locust's tables."""


Listener: TypeAlias = Callable[..., None]


def listen(name: str, listener: Listener) -> None:
    """Call ``listener`` with Locust's keyword arguments whenever the event fires."""
    hook: Any = getattr(events, name)
    hook.add_listener(listener)


def fire_request(
    environment: Environment,
    name: str,
    milliseconds: float | None,
    size: int = 0,
    error: Exception | None = None,
    kind: str = REQUEST,
) -> None:
    """Report one request to Locust; without a time it is counted, not timed."""
    hook: Any = environment.events.request
    hook.fire(
        request_type=kind,
        name=name,
        response_time=milliseconds,
        response_length=size,
        exception=error,
        context={},
    )


def log_deliveries(
    environment: Environment, name: str, milliseconds: Sequence[float], untimed: int
) -> None:
    """Add the deliveries of a second to a row of their own, and to the total.

    All at once: an event for each would cost more than the delivery.
    """
    count = len(milliseconds) + untimed
    if not count:
        return
    stats: Any = environment.stats
    entry: Any = StatsEntry(stats, name, DELIVERY)
    entry.num_requests, entry.num_none_requests = count, untimed
    entry.last_request_timestamp = time.time()
    entry.num_reqs_per_sec[int(entry.last_request_timestamp)] = count
    if milliseconds:
        entry.total_response_time = sum(milliseconds)
        entry.min_response_time, entry.max_response_time = min(milliseconds), max(milliseconds)
        entry.response_times.update(Counter(map(bucket_response_time, milliseconds)))
    for row in (stats.entries[name, DELIVERY], stats.total):
        row.extend(entry)


def per_second(environment: Environment, kind: str, name: str) -> float:
    """Return a row's rate as Locust shows it: over the last ten seconds."""
    stats: Any = environment.stats
    return float(stats.get(name, kind).current_rps)


def count_of(environment: Environment, kind: str) -> int:
    """Return how many requests of a kind there were."""
    stats: Any = environment.stats
    return sum(row.num_requests for (_, of), row in stats.entries.items() if of == kind)


class Shape(LoadTestShape):
    """Locust's shape, with types. Given to the run by its scenario, not found in the locustfile."""

    abstract = True

    def __init__(self) -> None:
        begin: Any = super().__init__
        begin()

    def reset_time(self) -> None:
        """Begin; Locust calls it at the start of a test."""
        reset: Any = super().reset_time
        reset()

    @property
    def passed_s(self) -> float:
        """Seconds since the start."""
        passed: Any = super().get_run_time
        return float(passed())

    @property
    def users_now(self) -> int:
        """Users that are there."""
        return 0 if self.runner is None else self.runner.user_count
