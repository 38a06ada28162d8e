"""Locust's event hooks, which are untyped, behind two typed functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from locust import LoadTestShape, events

if TYPE_CHECKING:
    from locust.env import Environment

PROTOCOL: Final = "RELAY"
"""The request type of every event."""


def listen(name: str, listener: Callable[..., None]) -> None:
    """Call ``listener`` with Locust's keyword arguments whenever the event fires."""
    hook: Any = getattr(events, name)
    hook.add_listener(listener)


def fire_request(
    environment: Environment,
    name: str,
    milliseconds: float | None,
    size: int = 0,
    error: Exception | None = None,
) -> None:
    """Tell Locust of one request; no time: it is counted, not timed."""
    hook: Any = environment.events.request
    hook.fire(
        request_type=PROTOCOL,
        name=name,
        response_time=milliseconds,
        response_length=size,
        exception=error,
        context={},
    )


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
