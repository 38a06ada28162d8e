"""A man in the middle who tampers with one frame of the second connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

QUIET_S = 1.0
"""After so much silence since the frame that is tampered with came, the connection is cut."""
Frames = list[bytes]
Meddling = Callable[[Frames, int], Frames]
"""Given the frames that are held and the index of the one that is meant; what is passed on."""


def exchanged(frames: Frames, at: int) -> Frames:
    """Exchange a frame with the next one; it needs both."""
    return [*frames[:at], *frames[at + 1 : at + 2], frames[at], *frames[at + 2 :]]


class Direction:
    """The bytes of one direction, in frames, one of which is tampered with."""

    def __init__(self, at: int | None, way: Meddling) -> None:
        self._at = at
        self._way = way
        self._buffer = b""
        self._held: Frames = []
        self.passed = 0
        self.frames = 0
        """Whole ones that came, whatever became of them."""
        self.done = at is None

    @property
    def reached(self) -> bool:
        """Whether the frame that is tampered with has come, though it may still be held."""
        return self.done or (self._at is not None and self.frames > self._at)

    def take(self, data: bytes) -> bytes:
        """Return what is to be passed on."""
        self._buffer += data
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[1:4], "big")
            if len(self._buffer) < end:
                break
            self._held.append(self._buffer[:end])
            self.frames += 1
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

    def __init__(
        self, port: int, direction: str, at: int, way: Meddling, quiet_s: float | None = QUIET_S
    ) -> None:
        self._target = port
        self._quiet_s = quiet_s
        self._direction, self._at, self._way = direction, at, way
        self.connections = 0
        self.cut: Callable[[], None] = lambda: None
        """Ends the connection that there is."""
        self.met: Direction | None = None
        """The direction of the second connection that is meddled with."""
        self.attacked: dict[str, Direction] = {}
        """Both directions of the second connection."""
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
            self.met, self.attacked = ways[self._direction], ways

        def cut() -> None:
            for writer in (back, forth):
                writer.transport.abort()

        self.cut = cut
        quiet_s = self._quiet_s if attacked else None
        pumps = [
            asyncio.ensure_future(_pump(near, forth, ways["up"], self.met, quiet_s)),
            asyncio.ensure_future(_pump(far, back, ways["down"], self.met, quiet_s)),
        ]
        self._tasks += pumps
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        cut()


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    way: Direction,
    met: Direction | None,
    quiet_s: float | None,
) -> None:
    with contextlib.suppress(OSError):
        while True:
            try:
                async with asyncio.timeout(quiet_s):
                    data = await reader.read(65_536)
            except TimeoutError:
                if met is None or met.reached:  # until then a busy machine is the reason
                    return
                continue
            if not data:
                return
            writer.write(way.take(data))
            await writer.drain()
