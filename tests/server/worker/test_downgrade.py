"""A man in the middle who tries to negotiate weaker parameters, over real sockets.

The client library connects through him. On its second connection, which offers a ticket, he changes
what one side sends about versions, record protection or the kind of handshake. That connection is
never established, and what the client sends is stored once, over the next one. It also fails as
early as possible: several checks would detect the change, and each case asserts that the first of
them did, by the number of frames of each side.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from relay import Client
from relay.client.devices.key_files import KeyFiles
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.policy import KeyPolicy
from relay.wire.connection import Connection
from relay.wire.events import ConnectionClosed
from relay.wire.frames import FrameType, frame
from relay.wire.identity import fingerprint, parse_spki
from relay.wire.messages import FULL, NO_BINDER, ClientKey, ServerFinished, ServerHello
from tests.support.devices import device
from tests.support.middle import Frames, Middle
from tests.support.pair import server_key
from tests.support.workers import Cluster, TestClient

MODULUS_BYTES = parse_spki(server_key().spki).modulus_bytes
Change = Callable[[bytes], bytes]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 1) as running:
        yield running


def hello(**changes: object) -> Change:
    """Change ServerHello."""
    return lambda whole: frame(
        FrameType.SERVER_HELLO,
        ServerHello.parse(whole)._replace(**changes).body(),  # type: ignore[arg-type]
    )


def key(**changes: object) -> Change:
    """Change ClientKey."""
    return lambda whole: frame(
        FrameType.CLIENT_KEY,
        ClientKey.parse(whole, MODULUS_BYTES)._replace(**changes).body(),  # type: ignore[arg-type]
    )


def finished(**changes: object) -> Change:
    """Change ServerFinished."""
    return lambda whole: frame(
        FrameType.SERVER_FINISHED,
        ServerFinished.parse(whole)._replace(**changes).body(),  # type: ignore[arg-type]
    )


class Downgrade(NamedTuple):
    """What he changes, and how many frames client and server send before the connection fails."""

    direction: str
    at: int
    change: Change
    of_client: int
    of_server: int


def offered(change: Change, *, refused: bool) -> Downgrade:
    """He changes ServerHello. The client sends nothing, or the server sends nothing more."""
    return Downgrade("down", 0, change, 0 if refused else 1, 1)


def chosen(change: Change, *, answered: bool = False) -> Downgrade:
    """He changes ClientKey. The server does not answer, or the client does not answer that."""
    return Downgrade("up", 0, change, 1, 2 if answered else 1)


def answered(change: Change) -> Downgrade:
    """He changes ServerFinished. The client sends nothing more."""
    return Downgrade("down", 1, change, 1, 2)


NO_TICKET = bytes(125)
STRIPPED = {"ticket": b"", "binder": NO_BINDER}
"""The binder of its ticket: otherwise it would not match, and reveal any other change."""
DOWNGRADES = {
    "an older version is offered, too": offered(hello(ver_min=0), refused=False),
    "only an older version is offered": offered(hello(ver_min=0, ver_max=0), refused=True),
    "only a newer version is offered": offered(hello(ver_min=2, ver_max=2), refused=True),
    "a newer version is offered, too": offered(hello(ver_max=2), refused=False),
    "another suite is offered": offered(hello(suite=0), refused=True),
    "no work is asked, or other work": offered(hello(pow_bits=1), refused=False),
    "an older version is chosen": chosen(key(version=0, **STRIPPED)),
    "a newer version is chosen": chosen(key(version=2, **STRIPPED)),
    "another suite is chosen": chosen(key(suite=0, **STRIPPED)),
    "the ticket's binder is stripped": chosen(key(binder=NO_BINDER)),
    "the ticket is stripped": chosen(key(**STRIPPED), answered=True),
    "the ticket is one that nobody opens": chosen(
        key(ticket=NO_TICKET, binder=NO_BINDER), answered=True
    ),
    "the answer is that the ticket was of no use": answered(finished(mode=FULL)),
    "the answer is a kind that does not exist": answered(finished(mode=2)),
}


@pytest.mark.parametrize("case", DOWNGRADES)
async def test_nothing_less_than_both_can_is_agreed_upon(
    cluster: Cluster, tmp_path: Path, case: str
) -> None:
    direction, at, change, of_client, of_server = DOWNGRADES[case]
    changed: list[tuple[bytes, bytes]] = []

    def meddle(frames: Frames, index: int) -> Frames:
        changed.append((frames[index], change(frames[index])))
        return [*frames[:index], changed[-1][1], *frames[index + 1 :]]

    (worker,) = cluster.workers.values()
    middle = Middle(worker.port, direction, at, meddle, quiet_s=None)
    port = await middle.start()
    policy = KeyPolicy(KnownServers(tmp_path / "known"), keys=KeyFiles(tmp_path / "keys"))
    address = f"relay://{fingerprint(server_key().spki)}@127.0.0.1:{port}"
    client = Client(address, name="ann", key=device("ann"), register=True, key_policy=policy)
    try:
        await client.connect()
        await client.send("lobby", "first")
        middle.cut()
        async with asyncio.timeout(60):
            await client.send("lobby", "second")
        ((before, after),) = changed
        assert before != after, "he has changed nothing"
        said = {way: found.frames for way, found in middle.attacked.items()}
        assert said == {"up": of_client, "down": of_server}
        assert middle.connections >= 3
        assert client.statistics["logins"] == 2
        counts = worker.parts.services.counts
        established = sum(counts.kinds.values())
        assert established == 2, "the modified connection was established"
    finally:
        await client.close(0)
        await middle.close()
    reader = await TestClient.login(worker, "reader")
    await reader.join("lobby", last=10)
    assert [entry.body for entry in reader.entries("lobby")] == [b"first", b"second"]


class Silent(TestClient):
    """A transport that keeps what would be written."""

    wanted = b""

    def _write(self) -> None:
        self.wanted += self.connection.data_to_send()


async def test_a_client_that_has_spoken_a_higher_version_says_nothing(cluster: Cluster) -> None:
    """Not a byte: a server that offers less than before is not trusted."""
    (worker,) = cluster.workers.values()
    client = Silent()
    client.connection = Connection.client(now=0.0, random_bytes=bytes, version_min=2)
    await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", worker.port)
    worker.clients.append(client)
    await client.until(lambda: client.closed, "the end")
    assert isinstance(client.closed, ConnectionClosed)
    assert "higher version" in client.closed.detail
    assert not client.wanted
