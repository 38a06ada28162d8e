"""Carry messages between two rooms: python examples/bridge.py relay://FINGERPRINT@HOST:PORT A B"""

import asyncio
import sys

from relay import Client, Room


async def carry(source: Room, target: Room, own_name: str) -> None:
    """Carry what others say from one room to the other."""
    async for message in source:
        if message.sender != own_name:
            await target.post(f"{message.sender}: {message.text}")


async def main(address: str, one: str, other: str) -> None:
    """Carry both ways."""
    async with (
        Client(address, name="bridge", register=True) as client,
        client.room(one) as a,
        client.room(other) as b,
    ):
        print(f"{client.name} is in {a.name} and {b.name}", flush=True)
        await asyncio.gather(carry(a, b, client.name), carry(b, a, client.name))


asyncio.run(main(*sys.argv[1:]))
