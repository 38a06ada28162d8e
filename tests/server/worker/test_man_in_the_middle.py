"""A man in the middle of a returning client, over real sockets: every frame, every way.

The client library is connected through a proxy. Its first connection is left alone (it brings a
ticket) and then cut; of the second, resumed one, a single frame is changed, dropped, repeated, cut
short, or exchanged with the next; the third is left alone. Whatever was done: the connection ends,
or is as if nothing was done, and what the client sends is stored once, or never if it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from relay import Client
from relay.client.closes import ProtocolViolation
from relay.client.errors import ServerBrokeProtocol
from relay.client.key_files import KeyFiles
from relay.client.known_servers import KnownServers
from relay.client.trust import KeyPolicy
from relay.wire.identity import fingerprint
from tests.support.devices import device
from tests.support.pair import server_key
from tests.support.workers import Cluster, TestClient

QUIET_S = 0.3
"""After so much silence of a connection that it has meddled with, he gives up and cuts it."""
Frames = list[bytes]
Meddling = Callable[[Frames, int], Frames]


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


def exchanged(frames: Frames, at: int) -> Frames:
    return [*frames[:at], *frames[at + 1 : at + 2], frames[at], *frames[at + 2 :]]


WAYS: dict[str, Meddling] = {
    "changed": changed, "dropped": dropped, "repeated": repeated, "cut short": cut_short,
    "exchanged": exchanged,
}  # fmt: skip
FRAMES = 4
"""Of each direction: hello, finished, ticket, WELCOME; key, finished, HELLO, what follows."""


class Direction:
    """Bytes of one direction, in frames; one of them is meddled with."""

    def __init__(self, at: int | None, way: Meddling) -> None:
        self._at = at
        self._way = way
        self._buffer = b""
        self._held: Frames = []
        self.passed = 0
        self.done = at is None

    def take(self, data: bytes) -> bytes:
        """Return what is to be passed on."""
        self._buffer += data
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[1:4], "big")
            if len(self._buffer) < end:
                break
            self._held.append(self._buffer[:end])
            self._buffer = self._buffer[end:]
        if self.done:
            passed, self._held = self._held, []
            return b"".join(passed)
        assert self._at is not None
        at = self._at - self.passed
        if len(self._held) <= at or (self._way is exchanged and len(self._held) < at + 2):
            return self._pass(min(len(self._held), max(at, 0)))
        self.done = True
        passed, self._held = self._way(self._held, at), []
        return b"".join(passed)

    def _pass(self, count: int) -> bytes:
        passed, self._held = self._held[:count], self._held[count:]
        self.passed += count
        return b"".join(passed)


class Middle:
    """A proxy in front of a worker."""

    def __init__(self, port: int, direction: str, at: int, way: Meddling) -> None:
        self._target = port
        self._direction, self._at, self._way = direction, at, way
        self.connections = 0
        self.cut: Callable[[], None] = lambda: None
        """Ends the connection that there is."""
        self.met: Direction | None = None
        """The direction of the second connection that is meddled with."""
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> int:
        """Listen; return the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.connections += 1
        attacked = self.connections == 2
        far, forth = await asyncio.open_connection("127.0.0.1", self._target)
        ways = {
            name: Direction(self._at if attacked and name == self._direction else None, self._way)
            for name in ("up", "down")
        }
        if attacked:
            self.met = ways[self._direction]

        def cut() -> None:
            for writer in (back, forth):
                writer.transport.abort()

        self.cut = cut
        pumps = [
            asyncio.ensure_future(_pump(near, forth, ways["up"], attacked)),
            asyncio.ensure_future(_pump(far, back, ways["down"], attacked)),
        ]
        self._tasks += pumps
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        cut()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Direction, attacked: bool
) -> None:
    with contextlib.suppress(OSError):
        while True:
            try:
                async with asyncio.timeout(QUIET_S if attacked else None):
                    data = await reader.read(65_536)
            except TimeoutError:
                return
            if not data:
                return
            writer.write(way.take(data))
            await writer.drain()


async def returns(
    cluster: Cluster, home: Path, number: int, direction: str, at: int, way: str
) -> bool:
    """One client's connections. Return whether it came back, and what it had sent is stored.

    It does not where he has brought one side to believe that the other broke the protocol: by a
    whole frame that is not legal there. Then it has ended, and says so.
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
        if at >= 2:  # he has let the handshake alone, and that was by ticket
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
