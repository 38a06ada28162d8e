"""Two honest clients during an attack: checks that their messages arrive once and in order, and how
fast.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from relay.client.aio import Client
from relay.client.errors import ClientError
from relay.client.events import Gap, Message
from tests.fuzz.chat_attacks import HONEST_ROOM

INTERVAL_S: Final = 0.01
"""Between two messages; they take turns."""
ARRIVAL_S: Final = 60.0
"""For messages under way to arrive once the attack is over."""
NAMES: Final = ("alice", "bob")


class HonestPair:
    """Two clients that never reconnect. ``faults`` describes what went wrong."""

    def __init__(self, address: str) -> None:
        self._clients = [Client(address, name=name, reconnect=False) for name in NAMES]
        self._sent = 0
        self._due: list[float] = []
        """When each message was due: waiting for the window counts."""
        self._seen: list[list[int]] = [[], []]
        self._latencies: list[float] = []
        self._readers: list[asyncio.Task[None]] = []
        self._posts: list[asyncio.Future[object]] = []
        self.faults: list[str] = []

    async def begin(self) -> None:
        """Log in and join."""
        for index, client in enumerate(self._clients):
            await client.connect()
            await client.join(HONEST_ROOM)
            self._readers.append(asyncio.create_task(self._read(index, client)))

    async def _read(self, index: int, client: Client) -> None:
        try:
            async for event in client:
                if isinstance(event, Message):
                    number = int(event.text)
                    self._seen[index].append(number)
                    if number % 2 != index:
                        self._latencies.append(time.monotonic() - self._due[number])
                elif isinstance(event, Gap):
                    self.faults.append(f"{NAMES[index]} got a gap: {event.reason}")
        except ClientError as error:
            self.faults.append(f"{NAMES[index]} was cut off: {error}")

    async def talk(self, seconds: float) -> list[float]:
        """Send at a fixed rate for a while; return how long each message took, sorted."""
        until = time.monotonic() + seconds
        return await self.talk_until(lambda due: due >= until)

    async def talk_until(self, enough: Callable[[float], bool]) -> list[float]:
        """Likewise, until a callback, called when the next message is due, ends it."""
        self._latencies = []
        due = time.monotonic()
        while not self.faults and not enough(due):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            client = self._clients[self._sent % 2]
            self._due.append(due)
            try:
                self._posts.append(await client.post(HONEST_ROOM, str(self._sent)))  # type: ignore[arg-type]
            except ClientError as error:
                self.faults.append(f"{NAMES[self._sent % 2]} could not send: {error}")
                break
            self._sent += 1
            due += INTERVAL_S
        await self._arrived()
        return sorted(self._latencies)

    async def _arrived(self) -> None:
        """Wait until both have received everything that was sent, or one has lost the
        connection.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ARRIVAL_S):
                while not self.faults and min(map(len, self._seen)) < self._sent:
                    await asyncio.sleep(0.01)

    async def end(self) -> None:
        """Disconnect, and check what both have received."""
        await self._arrived()
        if not self.faults:
            results = await asyncio.gather(*self._posts, return_exceptions=True)
            refused = [result for result in results if isinstance(result, BaseException)]
            if refused:
                self.faults.append(f"{len(refused)} sends were refused, first: {refused[0]!r}")
            self.faults += faults_in(self._sent, self._seen)
        for client in self._clients:
            await client.close(1.0)
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)


def faults_in(sent: int, seen: list[list[int]]) -> list[str]:
    """Check what each of the two got of the messages below ``sent``; the even ones are alice's."""
    faults: list[str] = []
    if seen[0] != seen[1]:
        faults.append("the two have seen different orders")
    for name, numbers in zip(NAMES, seen, strict=True):
        missing = set(range(sent)) - set(numbers)
        if missing:
            faults.append(f"{name} misses {len(missing)} messages, first {min(missing)}")
        if len(set(numbers)) != len(numbers):
            faults.append(f"{name} got {len(numbers) - len(set(numbers))} messages twice")
        for sender in (0, 1):
            own = [number for number in numbers if number % 2 == sender]
            if own != sorted(own):
                faults.append(f"{name} got {NAMES[sender]}'s messages out of order")
    return faults
