"""The ready scenarios: ``locust -f loadtest/locustfile.py --host relay://FINGERPRINT@HOST:PORT``.

``--scenario`` chooses one; see docs/loadtest.md.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import asdict
from typing import TYPE_CHECKING

from locust import task

from loadtest import hooks, listeners
from loadtest.parameters import parameters_of
from loadtest.scenarios import behaviour_of
from loadtest.socket_watch import WatchedSocket
from loadtest.summary import FACTS
from loadtest.user import RelayUser

if TYPE_CHECKING:
    from locust.env import Environment

listeners.install_scenarios()
_ordinals = itertools.count()
"""Numbers the users of this process, from 0 with each test."""


class SwarmUser(RelayUser):
    """A user that behaves as the scenario says."""

    def on_start(self) -> None:
        """Connect and begin."""
        ordinal = next(_ordinals)
        told = parameters_of(self.environment)
        place = getattr(self.environment.runner, "worker_index", 0)
        self.random = random.Random(f"{told.seed} {place} {ordinal}")
        self.behaviour = behaviour_of(told.scenario)(self, told, ordinal)
        self.behaviour.prepare()
        super().on_start()
        self.behaviour.begin()

    def dialled(self, watched: WatchedSocket) -> None:
        """Let the scenario see each connection."""
        self.behaviour.dialled(watched)

    @task
    def turn(self) -> None:
        """Do the next thing."""
        self.behaviour.turn()


def _start_again(environment: Environment, **_: object) -> None:
    global _ordinals
    _ordinals = itertools.count()
    FACTS["parameters"] = asdict(parameters_of(environment))


hooks.listen("test_start", _start_again)
