"""A bot that answers "!echo TEXT" in a room. asyncio.

python examples/echo_bot.py relay://FINGERPRINT@HOST:PORT ROOM
"""

from __future__ import annotations

import asyncio
import sys

from relay import Client, Message, StateChanged

COMMAND = "!echo "


async def run(address: str, room: str) -> None:
    """Answer until the connection ends for good."""
    async with Client(address, name="echo-bot", display="Echo", agent="echo_bot") as client:
        await client.join(room)
        print(f"{client.name} is in {room}", flush=True)
        async for event in client:
            if isinstance(event, StateChanged):
                print(event.state.value, event.detail, file=sys.stderr)
            elif isinstance(event, Message) and event.text.startswith(COMMAND):
                # post waits for room in the window only: a slow answer does not stop the reading.
                await client.post(event.room, f"{event.sender}: {event.text.removeprefix(COMMAND)}")


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:3]))
