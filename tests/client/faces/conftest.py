"""A relay for the suite, and clients of the face under test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.client.trust.known_servers import KnownServers
from relay.client.trust.policy import KeyPolicy
from tests.client.faces.adapters import FACES, Face
from tests.support.cluster import Relay

Connect = Callable[..., Face]


@pytest.fixture(scope="package")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One relay for all tests that do not stop or kill it; each uses rooms and names of its own."""
    with Relay(tmp_path_factory.mktemp("relay") / "data") as running:
        yield running


@pytest.fixture(params=sorted(FACES))
def face(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Return a function that creates clients of one face; they are closed after the test."""
    made: list[Face] = []
    with asyncio.Runner() as runner:

        def make(address: str, name: str, **options: object) -> Face:
            options.setdefault("key_policy", KeyPolicy(KnownServers(tmp_path / "known_servers")))
            one = FACES[request.param](runner, address, {"name": name, **options})
            made.append(one)
            return one

        yield make
        for one in made:
            with contextlib.suppress(Exception):
                one.close()


@pytest.fixture
def connect(face: Connect, relay: Relay) -> Connect:
    """Return a function that creates connected clients of the shared relay."""

    def make(name: str, **options: object) -> Face:
        one = face(relay.address, name, **options)
        one.connect()
        return one

    return make


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A legal name of a room of the test's own."""
    legal = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())
    return legal.removeprefix("test-")[-30:].strip("-")
