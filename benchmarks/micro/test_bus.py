"""The cost of the bus per message: packing, framing, checking; and a hop between two processes.

pytest benchmarks/micro/test_bus.py
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure.scale import Scale
from relay.bus.messages import Batch, Message, Submit
from relay.bus.packing import MessageReader, pack
from relay.chat.entries import Submission

BODY = secrets.token_bytes(200)
MESSAGES: dict[str, Message] = {
    "submit": Submit(1, Submission("lobby", "alice", b"", b"producer", 1, 0, "", BODY), []),
    "batch of 1": Batch("lobby", 1, b"epoch...", 2, 1, bytes(264)),
    "batch of 100": Batch("lobby", 1, b"epoch...", 101, 100, bytes(26_400)),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_pack(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = "bus: pack a message"
    benchmark(pack, MESSAGES[name])


@pytest.mark.parametrize("name", MESSAGES)
def test_unpack(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = "bus: take a message apart and check it"
    reader = MessageReader()
    assert benchmark(reader.feed, pack(MESSAGES[name])) == [MESSAGES[name]]


@pytest.fixture
def echo() -> Iterator[socket.socket]:
    """A process that unpacks what it gets and packs it again, behind a Unix-domain socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    child = os.fork()
    if child == 0:
        ours.close()
        reader = MessageReader()
        while data := theirs.recv(262_144):
            for message in reader.feed(data):
                theirs.sendall(pack(message))
        os._exit(0)
    theirs.close()
    with ours:
        yield ours
    os.waitpid(child, 0)


@pytest.mark.parametrize("name", MESSAGES)
def test_hop_and_back(benchmark: BenchmarkFixture, echo: socket.socket, name: str) -> None:
    """Two hops: there and back, each packed, sent, received and checked."""
    benchmark.group = "bus: a message there and back"
    message = MESSAGES[name]
    reader = MessageReader()

    def there_and_back() -> Message:
        echo.sendall(pack(message))
        while True:
            found = reader.feed(echo.recv(262_144))
            if found:
                return found[0]

    assert benchmark(there_and_back) == message


@pytest.mark.parametrize("rested", ["not rested", "10 ms"])
def test_wake(benchmark: BenchmarkFixture, echo: socket.socket, rested: str, scale: Scale) -> None:
    """The least that a message costs that wakes two sleeping processes, one after the other."""
    benchmark.group = "bus: there and back, by how long both had slept"
    data = pack(MESSAGES["submit"])
    reader = MessageReader()

    def there_and_back() -> None:
        echo.sendall(data)
        while not reader.feed(echo.recv(65_536)):
            pass

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        there_and_back,
        setup=lambda: time.sleep(0.01 if rested == "10 ms" else 0),
        rounds=3 if scale.quick else 300,
    )
