"""Features of the blocking client alone: nothing happens between its calls."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from relay.client import event_queue
from relay.client.blocking import BlockingClient
from relay.client.events import State
from tests.client.faces.adapters import WAIT_S
from tests.support.cluster import Relay

Paused: TypeAlias = tuple[Relay, BlockingClient]


def test_a_post_leaves_with_the_pump_that_waits(relay: Relay) -> None:
    """Before the wait: its answer ends the wait."""
    with BlockingClient(relay.address, name="pump-a") as client:
        outcome = client.post("pumping", "x")
        client.pump(WAIT_S)
        assert outcome.done()


@pytest.fixture
def paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paused]:
    """A client that does not read, for its queue is full and its program waits for another room."""
    monkeypatch.setattr(event_queue, "EVENTS_MAX", 30)
    with Relay(tmp_path / "data") as relay, BlockingClient(relay.address, name="full") as client:
        client.join("busy")
        with BlockingClient(relay.address, name="talker") as talker:
            for n in range(40):
                talker.post("busy", str(n))
            talker.flush()
        client._pump.wait(lambda: client._state.reading_paused, WAIT_S)
        assert client._state.reading_paused
        yield relay, client


def test_a_client_that_does_not_read_rests(paused: Paused) -> None:
    """It checks for the connection's end periodically, and does not spin."""
    _, client = paused
    looks = 0

    def met() -> bool:
        nonlocal looks
        looks += 1
        return False

    client._pump.wait(met, 1.0)
    assert looks <= 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can be asked")
def test_a_client_that_does_not_read_sees_the_end(paused: Paused) -> None:
    """Not only when its program takes events again."""
    relay, client = paused
    relay.stop()
    client._pump.wait(lambda: client.state is not State.ONLINE, WAIT_S)
    assert client.state is State.WAITING
