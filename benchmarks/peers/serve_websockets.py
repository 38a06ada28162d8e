"""The peer ``websockets``: its asyncio server on uvloop with its broadcast helper.

python serve_websockets.py PORT CERTIFICATE KEY
"""

from __future__ import annotations

import asyncio
import ssl
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

members: set[ServerConnection] = set()


async def handle(connection: ServerConnection) -> None:
    """Members only listen; what the publisher says goes to all of them."""
    request = connection.request
    if request is not None and request.path == "/publish":
        async for message in connection:
            broadcast(members, message)
        return
    members.add(connection)
    try:
        await connection.wait_closed()
    finally:
        members.discard(connection)


async def main(port: int, certificate: str, key: str) -> None:
    """Serve for ever, without compression and pings."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    async with serve(
        handle,
        "127.0.0.1",
        port,
        ssl=context,
        compression=None,
        ping_interval=None,
        backlog=4096,
    ):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
