"""Users who are removed during an attack: how long their connections continue.

Two wait, with connections on all workers: a device that its owner removes, and a user whom the
operator disables. Measured from the acknowledgement to the end of the last connection.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from relay.client.aio import Client
from relay.client.devices.device_key import DeviceKey, public_text
from relay.client.errors import ClientError
from tests.support.cluster import Relay, run_relay

CONNECTIONS_MAX: Final = 64
"""Connections of each: enough for one on each worker, and no more than this."""
END_S: Final = 30.0
"""A connection that has not ended by then counts as open."""


class PutOut:
    """``begin`` before the attack, ``measure`` during it. ``faults`` describes what went wrong."""

    def __init__(self, relay: Relay, data: Path) -> None:
        """Connect nobody yet.

        Args:
            relay: of the attack.
            data: its data directory, for the operator.
        """
        self._relay = relay
        self._address = relay.address
        self._data = data
        self._owner = Client(relay.address, name="carol", reconnect=False)
        self._lost = DeviceKey.generate()
        self._ended: dict[str, list[asyncio.Task[float]]] = {}
        self._clients: list[Client] = []
        self.removed_s: float | None = None
        """From the acknowledgement to the end of a removed device's last connection."""
        self.disabled_s: float | None = None
        """Likewise, of a disabled user's, from the end of ``relay ctl``."""
        self.faults: list[str] = []

    async def begin(self) -> None:
        """Log both in."""
        await self._owner.connect()
        await self._owner.add_device(self._lost)
        await self._connect("carol", self._lost)
        await self._connect("dave", None)

    async def _connect(self, name: str, key: DeviceKey | None) -> None:
        """Log in until each worker has a connection: the kernel chooses the worker."""
        self._ended[name] = []
        served: set[int] = set()
        workers = set(self._relay.worker_pids())
        while not workers <= served:
            if len(self._ended[name]) == CONNECTIONS_MAX:
                raise RuntimeError(f"{CONNECTIONS_MAX} connections, and a worker has none of them")
            before = await asyncio.to_thread(self._relay.peers_by_worker)
            client = Client(self._address, name=name, reconnect=False, key=key)
            await client.connect()
            self._clients.append(client)
            self._ended[name].append(asyncio.create_task(_end_of(client)))
            after = await asyncio.to_thread(self._relay.peers_by_worker)
            served |= {pid for pid, ports in after.items() if ports - before.get(pid, set())}

    async def measure(self) -> None:
        """Remove the device, and then disable the user."""
        try:
            await self._owner.remove_device(public_text(self._lost.public))
        except ClientError as error:
            self.faults.append(f"a device could not be removed: {error}")
            return
        self.removed_s = await self._gone("carol", time.monotonic())
        arguments = ("ctl", "--data", self._data, "user", "disable", "dave")
        disabled = await asyncio.to_thread(run_relay, *arguments)
        if disabled.returncode:
            self.faults.append(f"a user could not be disabled: {disabled.stderr}")
            return
        self.disabled_s = await self._gone("dave", time.monotonic())

    async def _gone(self, name: str, since: float) -> float | None:
        done, left = await asyncio.wait(self._ended[name], timeout=END_S)
        if left:
            self.faults.append(f"{len(left)} connections of {name}, who was put out, go on")
            return None
        return max(0.0, max(task.result() for task in done) - since)

    async def end(self) -> None:
        """Disconnect."""
        tasks = [task for ended in self._ended.values() for task in ended]
        for client in (self._owner, *self._clients):
            await client.close(1.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _end_of(client: Client) -> float:
    """Return when a connection has ended."""
    try:
        async for _ in client:
            pass
    except ClientError:
        pass
    return time.monotonic()
