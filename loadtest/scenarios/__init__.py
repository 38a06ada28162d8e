"""The ready scenarios: what each kind of simulated user does."""

from __future__ import annotations

from typing import Final

from loadtest.scenarios.behaviour import Behaviour
from loadtest.scenarios.chat_day import ChatDay
from loadtest.scenarios.networks import FlakyNetwork, ReconnectStorm, SlowReaders
from loadtest.scenarios.steady import HistoryReaders, ManySmallRooms, OneBigRoom, Steady

_BEHAVIOURS: Final[dict[str, type[Behaviour]]] = {
    "chat-day": ChatDay,
    "one-big-room": OneBigRoom,
    "many-small-rooms": ManySmallRooms,
    "reconnect-storm": ReconnectStorm,
    "slow-readers": SlowReaders,
    "flaky-network": FlakyNetwork,
    "history-readers": HistoryReaders,
    "spike": Steady,
    "ramp": Steady,
}


def behaviour_of(scenario: str) -> type[Behaviour]:
    """Return the behaviour of a scenario's users."""
    return _BEHAVIOURS[scenario]
