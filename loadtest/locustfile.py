"""The ready scenarios: ``locust -f loadtest/locustfile.py --host relay://FINGERPRINT@HOST:PORT``.

``--scenario`` chooses one; see docs/loadtest.md.
"""

from __future__ import annotations

import itertools
import random
from typing import Final

from locust import task
from locust.exception import StopTest

from loadtest import summary  # noqa: F401  # listens for the end of the run
from loadtest.parameters import parameters_of
from loadtest.scenarios import behaviour_of
from loadtest.user import RelayUser
from relay.errors import UsageError

_ordinals: Final = itertools.count()


class SwarmUser(RelayUser):
    """A user that behaves as the scenario says."""

    def on_start(self) -> None:
        """Connect and begin."""
        ordinal = next(_ordinals)
        try:
            told = parameters_of(self.environment)
        except UsageError as error:
            raise StopTest(str(error)) from None
        place = getattr(self.environment.runner, "worker_index", 0)
        self.random = random.Random(f"{told.seed} {place} {ordinal}")
        self.behaviour = behaviour_of(told.scenario)(self, told, ordinal)
        self.behaviour.prepare()
        super().on_start()
        self.behaviour.begin()

    @task
    def turn(self) -> None:
        """Do the next thing."""
        self.behaviour.turn()
