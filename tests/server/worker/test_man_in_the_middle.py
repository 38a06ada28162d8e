"""A man in the middle of a reconnecting client, over real sockets: every frame, every manipulation.

The client library connects through a proxy. Its first connection is not changed (it brings a
ticket) and then cut; of the second, resumed one, a single frame is changed, dropped, repeated, cut
short, or swapped with the next; the third is not changed. Whatever was done: the connection ends,
or works as if nothing was done, and what the client sends is stored once, or never if the client
has given up.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from relay import Client
from relay.client.closes import ProtocolViolation
from relay.client.devices.key_files import KeyFiles
from relay.client.errors import ServerBrokeProtocol
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.policy import KeyPolicy
from relay.wire.identity import fingerprint
from tests.support.devices import device
from tests.support.middle import Frames, Meddling, Middle, exchanged
from tests.support.pair import server_key
from tests.support.workers import Cluster, TestClient


def changed(frames: Frames, at: int) -> Frames:
    frame = bytearray(frames[at])
    frame[-7] ^= 4
    return [*frames[:at], bytes(frame), *frames[at + 1 :]]


def dropped(frames: Frames, at: int) -> Frames:
    return [*frames[:at], *frames[at + 1 :]]


def repeated(frames: Frames, at: int) -> Frames:
    return [*frames[: at + 1], frames[at], *frames[at + 1 :]]


def cut_short(frames: Frames, at: int) -> Frames:
    return [*frames[:at], frames[at][:-5]]


WAYS: dict[str, Meddling] = {
    "changed": changed, "dropped": dropped, "repeated": repeated, "cut short": cut_short,
    "exchanged": exchanged,
}  # fmt: skip
FRAMES = 4
"""In each direction: hello, finished, ticket, WELCOME; key, finished, HELLO, what follows."""


async def returns(
    cluster: Cluster, home: Path, number: int, direction: str, at: int, way: str
) -> bool:
    """Run one client. Return whether it reconnected, and its message was stored.

    It gives up where the manipulation made one side see a protocol violation of the other, by a
    complete frame that is not legal there; then it reports that.
    """
    middle = Middle(cluster.workers[0].port, direction, at, WAYS[way])
    port = await middle.start()
    name = f"visitor{number}"
    policy = KeyPolicy(KnownServers(home / name), keys=KeyFiles(home / "keys"))
    address = f"relay://{fingerprint(server_key().spki)}@127.0.0.1:{port}"
    client = Client(address, name=name, key=device(name), register=True, key_policy=policy)
    case = f"{direction} {at} {way}"
    try:
        await client.connect()
        await client.send("lobby", f"{case}: first")
        middle.cut()
        post = await client.post("lobby", f"{case}: second")
        try:
            async with asyncio.timeout(60):
                await post
        except (ProtocolViolation, ServerBrokeProtocol):
            assert way in ("repeated", "exchanged"), case
            return False
        assert client.statistics["logins"] >= 2, case
        assert middle.met is not None
        if at >= 2:  # the handshake was not changed, and it resumed by ticket
            assert client.statistics["resumptions"] >= 1, case
        return True
    finally:
        await client.close(0)
        await middle.close()


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_every_frame_of_a_returning_client(tmp_path: Path, direction: str) -> None:
    cases = [(at, way) for at in range(FRAMES) for way in WAYS]
    async with Cluster(tmp_path, 1) as cluster:
        came_back = await asyncio.gather(
            *(
                returns(cluster, tmp_path, number, direction, at, way)
                for number, (at, way) in enumerate(cases)
            )
        )
        assert sum(came_back) >= len(cases) - 4
        reader = await TestClient.login(cluster.workers[0], "reader")
        await reader.join("lobby", last=1000)
        stored = Counter(entry.body.decode() for entry in reader.entries("lobby"))
        for back, (at, way) in zip(came_back, cases, strict=True):
            case = f"{direction} {at} {way}"
            assert stored.pop(f"{case}: first") == 1
            assert stored.pop(f"{case}: second", 0) in ((1,) if back else (0, 1)), case
        assert not stored
