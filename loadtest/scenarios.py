"""Scenarios by name."""

from __future__ import annotations

from typing import Final

from loadtest.behaviour import Behaviour
from loadtest.chat_day import ChatDay

_SCENARIOS: Final[dict[str, type[Behaviour]]] = {
    "chat-day": ChatDay,
}


def behaviour_of(scenario: str) -> type[Behaviour]:
    """Return the behaviour of a scenario's users."""
    return _SCENARIOS[scenario]
