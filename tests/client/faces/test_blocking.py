"""What only the blocking client has: nothing happens between its calls."""

from __future__ import annotations

from relay.client.blocking import BlockingClient
from tests.client.faces.adapters import WAIT_S
from tests.support.cluster import Relay


def test_a_post_leaves_with_the_pump_that_waits(relay: Relay) -> None:
    """Before the wait: its answer is what ends it."""
    with BlockingClient(relay.address, name="pump-a") as client:
        outcome = client.post("pumping", "x")
        client.pump(WAIT_S)
        assert outcome.done()
