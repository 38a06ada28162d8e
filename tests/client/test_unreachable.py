"""relay.client.unreachable: real connection errors, without the event loop's wording."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest

from relay.client import dialling
from relay.client.address import Address
from relay.client.aio import dial
from relay.client.candidates import AddressHistory, Candidate
from relay.client.dialling import AllFailed, NoSocket
from relay.client.unreachable import unreachable

REFUSED = os.strerror(errno.ECONNREFUSED)
BOTH = f"{os.strerror(111)}, {os.strerror(113)}"


@pytest.fixture
def closed_port() -> int:
    """Return a port of the loopback interface without a listener."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def test_both_faces_report_the_same(closed_port: int) -> None:
    """The system's wording, once, with the address."""
    address = Address("127.0.0.1", closed_port, None)
    expected = f"cannot connect to 127.0.0.1, port {closed_port}: {REFUSED}"
    with pytest.raises(OSError, match="no address") as blocking:
        dialling.dial_tcp(address, 10, AddressHistory())
    assert str(unreachable(address, blocking.value)) == expected
    with pytest.raises(OSError, match="no address") as aio:
        asyncio.run(dial.dial_tcp(address, 10, AddressHistory()))
    assert str(unreachable(address, aio.value)) == expected


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (TimeoutError(), "timed out"),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), "no such name"),
        (AllFailed([OSError(111, "x"), OSError(113, "y"), OSError(111, "z")]), BOTH),
        (OSError("something else"), "something else"),
    ],
)
def test_why(error: OSError, why: str) -> None:
    assert str(unreachable(Address("host", 1, None), error)).endswith(f": {why}")


def test_random_numbers_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What refuses them stays as it is: a client that connects again and again asks no more."""
    if not hasattr(os, "getrandom"):
        pytest.skip("this system has no getrandom")
    tried: list[int] = []

    def getrandom(size: int) -> bytes:
        tried.append(size)
        if len(tried) == 1:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return bytes(size)

    monkeypatch.setattr(os, "getrandom", getrandom)
    dialling._check_random_numbers.cache_clear()
    candidate = Candidate(socket.AF_INET, 0, ("127.0.0.1", 1))
    with pytest.raises(NoSocket, match="Operation not permitted"):
        dialling.open_socket(candidate)
    for _ in range(3):
        dialling.open_socket(candidate).close()
    assert tried == [1, 1], "once more after it failed"
