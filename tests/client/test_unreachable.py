"""relay.client.unreachable: real refusals, in words without the event loop's own."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest

from relay.client.address import Address
from relay.client.unreachable import unreachable

REFUSED = os.strerror(errno.ECONNREFUSED)


@pytest.fixture
def closed_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def test_both_faces_say_the_same(closed_port: int) -> None:
    """asyncio's own text has the address in it once more."""
    address = Address("127.0.0.1", closed_port, None)
    expected = f"cannot connect to 127.0.0.1, port {closed_port}: {REFUSED}"
    with pytest.raises(OSError, match="refused") as blocking:
        socket.create_connection(("127.0.0.1", closed_port), timeout=10)
    assert str(unreachable(address, blocking.value)) == expected

    async def dial() -> None:
        await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, "127.0.0.1", closed_port
        )

    with pytest.raises(OSError, match="Connect call failed") as aio:
        asyncio.run(dial())
    assert str(unreachable(address, aio.value)) == expected


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (TimeoutError(), "timed out"),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), "no such name"),
        (
            OSError(
                "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0),"
                " [Errno 111] Connect call failed ('127.0.0.1', 1)"
            ),
            os.strerror(111),
        ),
        (OSError("something else"), "something else"),
    ],
)
def test_why(error: OSError, why: str) -> None:
    assert str(unreachable(Address("host", 1, None), error)).endswith(f": {why}")
