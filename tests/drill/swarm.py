"""Clients that write and read all the time, in one process, and what they notice.

Each writer numbers its messages; each reader follows all rooms and knows for every writer and room
which number comes next. So loss, duplicates and wrong order are detected at once, and the latency
of each message is measured by one clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Final, Self

from relay.client import backoff
from relay.client.aio import Client
from relay.client.errors import ClientError
from relay.client.events import Gap, Message, State, StateChanged

PROBE_S: Final = 0.02
SETTLE_S: Final = 60.0
BACKOFF_S_MAX: Final = 1.0
"""Instead of 20 s: clients in a drill are to come back soon."""


@dataclass(slots=True)
class Window:
    """What was noticed in a period."""

    latencies_ms: list[float] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    gaps: int = 0
    refused: int = 0
    """Connections that were not accepted: of a prober, 50 a second."""
    reconnects: int = 0
    offline_s: float = 0.0
    """The longest time that any client was not connected."""

    def percentile(self, share: float) -> float:
        """Return a percentile of the messages' latencies, in ms."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Swarm:
    """See the module's docstring. An async context manager."""

    def __init__(
        self, address: str, *, writers: int, readers: int, rooms: int, rate: float
    ) -> None:
        """Prepare.

        Args:
            address: of the relay.
            writers: how many.
            readers: how many; each reads all rooms.
            rooms: how many.
            rate: messages a second of all writers together.
        """
        self.window = Window()
        self._address = address
        self._rooms = [f"room{number}" for number in range(rooms)]
        self._pause_s = writers / rate
        self._names = [f"writer{n}" for n in range(writers)]
        self._readers = [f"reader{n}" for n in range(readers)]
        self._sent: dict[tuple[str, str], int] = {}
        """(room, writer) to the last number that was sent."""
        self._read: dict[tuple[str, str, str], int] = {}
        """(reader, room, writer) to the last number that was read."""
        self._clients: list[Client] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.Task[None]] = []
        """Tasks that end when there is nothing more to write."""
        self._writing = True
        self.failures: list[str] = []

    async def __aenter__(self) -> Self:
        """Connect all, and begin."""
        backoff.MAX_S = BACKOFF_S_MAX  # type: ignore[misc]
        for name in self._readers:
            client = await self._connect(name)
            for room in self._rooms:
                await client.join(room, since=0)
            self._begin(self._listen(name, client))
        for name in self._names:
            client = await self._connect(name)
            self._begin(self._listen(name, client))
            self._writers.append(self._begin(self._write(name, client)))
        self._begin(self._probe())
        return self

    async def __aexit__(self, *exc: object) -> None:
        """End all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients:
            await client.close(0)

    async def _connect(self, name: str) -> Client:
        client = Client(self._address, name=name)
        await client.connect()
        self._clients.append(client)
        return client

    def _begin(self, work: object) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks.append(task)
        return task

    async def _guarded(self, work: object) -> None:
        try:
            await work  # type: ignore[misc]
        except (ClientError, AssertionError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    # --- what is measured -----------------------------------------------------------------------
    def begin_window(self) -> Window:
        """Begin another window; return it."""
        self.window = Window()
        return self.window

    async def caught_up(self) -> bool:
        """Wait until everything sent so far has been read by all readers; False if it was not."""
        sent = dict(self._sent)
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline and not self.failures:
            if all(
                self._read.get((reader, *place), 0) >= number
                for place, number in sent.items()
                for reader in self._readers
            ):
                return True
            await asyncio.sleep(0.05)
        return False

    async def finish(self) -> bool:
        """Stop writing, and wait until everything has been read."""
        self._writing = False
        await asyncio.wait(self._writers, timeout=SETTLE_S)
        return await self.caught_up()

    # --- the clients ----------------------------------------------------------------------------
    async def _write(self, name: str, client: Client) -> None:
        number = 0
        while self._writing:
            number += 1
            room = self._rooms[number % len(self._rooms)]
            count = self._sent.get((room, name), 0) + 1
            await client.post(room, f"{name} {count} {time.monotonic_ns()}")
            self._sent[room, name] = count
            await asyncio.sleep(self._pause_s)

    async def _listen(self, name: str, client: Client) -> None:
        gone_s, was_online = 0.0, False
        async for event in client:
            window, now = self.window, time.monotonic()
            if isinstance(event, Message):
                self._take(name, event)
            elif isinstance(event, Gap):
                window.gaps += 1
            elif isinstance(event, StateChanged):
                was_online = was_online or event.state is State.ONLINE
                if event.state is State.ONLINE and gone_s:
                    window.reconnects += 1
                    window.offline_s = max(window.offline_s, now - gone_s)
                    gone_s = 0.0
                elif was_online and event.state is not State.ONLINE:
                    gone_s = gone_s or now

    def _take(self, reader: str, message: Message) -> None:
        writer, number, sent_ns = message.text.split()
        place = reader, message.room, writer
        before = self._read.get(place, 0)
        if int(number) <= before:
            self.window.doubled += 1
            return
        self.window.lost += int(number) - before - 1
        self._read[place] = int(number)
        self.window.latencies_ms.append((time.monotonic_ns() - int(sent_ns)) / 1e6)

    async def _probe(self) -> None:
        host, _, port = self._address.rpartition("@")[2].rpartition(":")
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                self.window.refused += 1
            else:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            await asyncio.sleep(PROBE_S)
