"""All servers that are compared, with one interface: Relay, its peers, the kernel floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.load.publishers import WINDOW, RoomPublisher
from benchmarks.load.swarm import Connect
from benchmarks.measure import machine
from benchmarks.peers.servers import PEERS, Peer, PeerServer
from benchmarks.peers.tls import Certificate
from benchmarks.servers.floor import Floor
from benchmarks.servers.relay import MeasuredRelay
from tests.support.cluster import ROOT
from tests.support.processes import Processes

WARM_UP = 20
RELAY, COMPILED, FLOOR = "Relay", "Relay compiled", "kernel floor"
COMPILED_PYTHON = ROOT / ".venv-compiled" / "bin" / "python"
"""Made by ``make compiled``."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs."""

    processes: Processes
    join: Callable[..., Connect]
    """(prefix of the members' names, topics ...) to what connects them."""
    publisher: Callable[..., RoomPublisher]
    """(topics ...) to a publisher."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that is compared, and what it guarantees while it is measured."""

    name: str
    version: str
    encryption: str
    durability: str
    start: Callable[[Path, int], AbstractContextManager[Running]]
    """(directory, number of members) to the running server."""
    warm_up: int = WARM_UP
    """Members that connect, and go, before anything is measured."""
    window: int = WINDOW
    rooms: bool = True
    """False: it knows one topic alone."""
    rate_max: float = float("inf")
    """Higher rates are left out: it cannot keep up by far."""


@contextmanager
def _relay(python: Path | None, directory: Path, members: int) -> Iterator[Running]:
    with MeasuredRelay(
        directory / "data", workers=1, cores=machine.SERVER_CORES, python=python
    ) as server:
        yield Running(
            server.processes,
            lambda prefix, *topics: server.join(*topics, prefix=prefix),
            lambda *topics: server.publisher(topics[0]),
        )


@contextmanager
def _floor(directory: Path, members: int) -> Iterator[Running]:
    with Floor(directory, members) as floor:
        floor.processes.pin(machine.SERVER_CORES)
        yield Running(floor.processes, lambda *_: floor.join(), lambda *_: floor.publisher())


@contextmanager
def _peer(peer: Peer, certificate: Certificate, directory: Path, members: int) -> Iterator[Running]:
    with PeerServer(peer, directory, certificate) as server:
        server.processes.pin(machine.SERVER_CORES)
        yield Running(server.processes, server.join, server.publisher)


def contenders(certificate: Certificate, relay_version: str) -> tuple[list[Contender], list[str]]:
    """Return the servers that can be measured here, and the names of those that cannot."""
    found = [
        Contender(
            FLOOR,
            "send() in a loop",
            "none",
            "none",
            _floor,
            warm_up=0,
            window=64,
            rooms=False,
            rate_max=100,
        ),
    ]
    missing: list[str] = []
    for name, python in ((RELAY, None), (COMPILED, COMPILED_PYTHON)):
        if python is not None and not python.exists():
            missing.append(name)
            continue
        encryption = "AES-256-GCM, padded, ML-KEM + X25519 + RSA-3072"
        start = partial(_relay, python)
        found.append(Contender(name, relay_version, encryption, "log on disk, exactly once", start))
    for peer in PEERS:
        version = peer.version()
        if version is None:
            missing.append(peer.name)
            continue
        encryption = "TLS 1.3, AES-256-GCM, X25519, RSA-3072" if peer.tls else "none"
        begin = partial(_peer, peer, certificate)
        found.append(
            Contender(peer.name, version, encryption, peer.durability, begin, rooms=peer.rooms)
        )
    return found, missing
