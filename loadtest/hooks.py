"""Locust's event hooks, which are untyped, behind two typed functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from locust import events

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
