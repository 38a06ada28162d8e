"""Answer "!echo TEXT" in a room: python examples/echo_bot.py relay://FINGERPRINT@HOST:PORT ROOM"""

import asyncio
import sys

from relay import Client


async def main(address: str, name: str) -> None:
    """Answer until the connection ends for good."""
    async with Client(address, name="echo-bot", register=True) as client, client.room(name) as room:
        print(f"{client.name} is in {room.name}", flush=True)
        async for message in room:
            if message.text.startswith("!echo "):
                # post waits for space in the window only: a slow answer does not stop the reading.
                await room.post(f"{message.sender}: {message.text.removeprefix('!echo ')}")


asyncio.run(main(*sys.argv[1:]))
