"""The parameters of a run, from the command line, RELAY_LOADTEST_ variables, or the web page."""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from loadtest.payload import payload_size
from relay.errors import UsageError

if TYPE_CHECKING:
    from locust.env import Environment

SCENARIOS: Final = (
    "chat-day", "one-big-room", "many-small-rooms", "reconnect-storm", "slow-readers",
    "flaky-network", "history-readers", "spike", "ramp",
)  # fmt: skip
_POSITIVE: Final = (
    "rate", "think_time", "cut_after", "slow_bytes", "storm_every", "sources", "p99_objective",
    "first_users", "step_time",
)  # fmt: skip
ENVIRONMENT_PREFIX: Final = "RELAY_LOADTEST_"


@dataclass(frozen=True, slots=True)
class Parameters:
    """One run's parameters; ``HELP`` describes each."""

    scenario: str = "chat-day"
    rooms: int = 50
    rooms_per_user: int = 3
    room_size: int = 0
    writers: float = 0.2
    rate: float = 0.2
    think_time: float = 20.0
    payload: str = "typed"
    seed: int = 1
    cut_after: int = 20_000
    slow: float = 0.2
    slow_bytes: float = 2_000.0
    storm_every: float = 20.0
    sources: int = 1
    p99_objective: float = 100.0
    first_users: int = 50
    step_time: int = 15


HELP: Final = {
    "scenario": "which behaviour: " + ", ".join(SCENARIOS),
    "rooms": "how many rooms there are; their popularity follows Zipf's law",
    "rooms_per_user": "rooms that each user follows",
    "room_size": "people in a room of many-small-rooms, on average; 0: as --rooms gives",
    "writers": "the share of users that write; the others only read",
    "rate": "messages per second of each writer (all scenarios but chat-day)",
    "think_time": "mean pause in seconds between two actions of a user (chat-day)",
    "payload": "body sizes: typed (as people type), fixed:N, or uniform:MIN:MAX, in bytes",
    "seed": "the same seed, users and processes make the same decisions",
    "cut_after": "mean bytes until a connection breaks (flaky-network)",
    "slow": "the share of users that read slowly (slow-readers)",
    "slow_bytes": "bytes per second that these read",
    "storm_every": "seconds from one loss of all connections to the next (reconnect-storm)",
    "sources": "connect from so many addresses 127.0.0.x; one carries about 28,000 connections",
    "p99_objective": "publish→delivered p99 in ms that ramp must not exceed",
    "first_users": "users of ramp's first step",
    "step_time": "seconds that ramp measures at each step",
}


def add_options(parser: argparse.ArgumentParser, **_: object) -> None:
    """Add a flag for each parameter; Locust calls it."""
    for field in fields(Parameters):
        default: Any = field.default
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=type(default),
            default=default,
            env_var=ENVIRONMENT_PREFIX + field.name.upper(),
            help=HELP[field.name],
            choices=list(SCENARIOS) if field.name == "scenario" else None,
        )


def parameters_of(environment: Environment) -> Parameters:
    """Return the parameters of the run. Raises UsageError."""
    options = environment.parsed_options
    if options is None:
        return Parameters()
    given = {field.name: getattr(options, field.name) for field in fields(Parameters)}
    parameters = Parameters(**given)
    payload_size(parameters.payload, random.Random(0))
    if not 1 <= parameters.rooms_per_user <= parameters.rooms:
        raise UsageError("--rooms-per-user: at least 1, at most --rooms")
    for name in ("writers", "slow"):
        if not 0.0 <= given[name] <= 1.0:
            raise UsageError(f"--{name}: a share from 0 to 1")
    for name in _POSITIVE:
        if given[name] <= 0:
            raise UsageError(f"--{name.replace('_', '-')}: more than 0")
    return parameters
