"""A client's and a server's end of one connection, in memory, with a clock that is an argument.

Everything is fixed by seeds except what OpenSSL randomises itself (the OAEP padding and the ML-KEM
encapsulation). ``Peer`` does what an owner does: it feeds, drains, accepts the key, unwraps the
secret. The test controls what is transmitted.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from relay.wire.cipher import RecordLimits
from relay.wire.connection import DEFAULT_LIMITS, Connection
from relay.wire.events import (
    ApplicationData,
    ConnectionClosed,
    Event,
    HandshakeCompleted,
    SecretWrapped,
    ServerKeyOffered,
    TicketReceived,
)
from relay.wire.handshake import OPENSSL, RandomBytes, Randomised
from relay.wire.identity import PrivateKey, generate_private_key
from relay.wire.phases import Phase, Side
from relay.wire.tickets import ClientTicket, TicketKeys
from relay.wire.timing import DEFAULT_TIMING, Timing

KEY_FILE = Path(__file__).parent.parent / "vectors" / "server_key.json"


def stream(seed: str) -> RandomBytes:
    """Pseudo-random bytes, the same in every run."""
    return random.Random(seed).randbytes


@cache
def server_key() -> PrivateKey:
    """The one RSA key of the tests (2048 bits, for speed): public test material."""
    n = {name: int(value, 16) for name, value in json.loads(KEY_FILE.read_text()).items()}
    numbers = rsa.RSAPrivateNumbers(
        p=n["p"],
        q=n["q"],
        d=n["d"],
        dmp1=n["d"] % (n["p"] - 1),
        dmq1=n["d"] % (n["q"] - 1),
        iqmp=pow(n["q"], -1, n["p"]),
        public_numbers=rsa.RSAPublicNumbers(n["e"], n["n"]),
    )
    return PrivateKey(numbers.private_key(), stream("implicit rejection"))


@cache
def other_key() -> PrivateKey:
    """A key of another server, made for this run."""
    return generate_private_key(stream("another key"), 2048)


@dataclass
class Peer:
    """One end, and every event that it has reported."""

    connection: Connection
    now: float = 0.0
    trusting: bool = True
    """Accepts the server's key, and asks the key agent: set False to look between the steps."""
    working: bool = True
    """Does the work that the server asks for."""
    ticket: ClientTicket | None = None
    """What a client offers."""
    unwrapped: int = 0
    """How often the RSA key was used."""
    events: list[Event] = field(default_factory=list)

    @property
    def phase(self) -> Phase:
        return self.connection.phase

    @property
    def completed(self) -> bool:
        return any(isinstance(event, HandshakeCompleted) for event in self.events)

    @property
    def tickets(self) -> list[ClientTicket]:
        """Those that were received."""
        return [event.ticket for event in self.events if isinstance(event, TicketReceived)]

    @property
    def received(self) -> list[bytes]:
        return [event.content for event in self.events if isinstance(event, ApplicationData)]

    @property
    def closed(self) -> ConnectionClosed:
        """The end: the last event, and the only one of its kind."""
        (found,) = [event for event in self.events if isinstance(event, ConnectionClosed)]
        assert found is self.events[-1]
        assert self.connection.finished
        return found

    def take(self, data: bytes) -> None:
        """Receive bytes and act on what they cause."""
        self.connection.receive_data(data, self.now)
        self.act()

    def act(self) -> None:
        """Drain the events; answer those that ask for a decision."""
        pending = self.connection.events()
        while pending:
            self.events += pending
            for event in pending:
                if self.trusting:
                    self._decide(event)
            pending = self.connection.events()

    def _decide(self, event: Event) -> None:
        connection = self.connection
        if isinstance(event, ServerKeyOffered) and connection.phase is Phase.PIN_DECISION:
            connection.accept_server_key(self.now, self.ticket)
            if self.working and connection.work is not None:
                connection.provide_work(connection.work.solve(), self.now)
        elif isinstance(event, SecretWrapped):
            self.unwrapped += 1
            connection.provide_secret(server_key().unwrap(event.ciphertext), self.now)

    def give(self) -> bytes:
        """What is to be sent now."""
        return self.connection.data_to_send()

    def at(self, now: float) -> None:
        """Let the clock reach ``now``."""
        self.now = now
        self.connection.handle_deadline(now)
        self.act()


def client(
    *,
    limits: RecordLimits = DEFAULT_LIMITS,
    timing: Timing = DEFAULT_TIMING,
    randomised: Randomised = OPENSSL,
    version_min: int = 1,
    seed: str = "client",
    ticket: ClientTicket | None = None,
) -> Peer:
    """A client's end that has received nothing."""
    return Peer(
        Connection.client(
            now=0.0,
            random_bytes=stream(seed),
            limits=limits,
            timing=timing,
            version_min=version_min,
            randomised=randomised,
        ),
        ticket=ticket,
    )


def server(
    *,
    limits: RecordLimits = DEFAULT_LIMITS,
    timing: Timing = DEFAULT_TIMING,
    randomised: Randomised = OPENSSL,
    pow_bits: int = 0,
    seed: str = "server",
    tickets: TicketKeys | None = None,
) -> Peer:
    """A server's end whose ServerHello waits to be sent."""
    return Peer(
        Connection.server(
            now=0.0,
            random_bytes=stream(seed),
            spki=server_key().spki,
            limits=limits,
            timing=timing,
            pow_bits=pow_bits,
            randomised=randomised,
            tickets=tickets,
        )
    )


@dataclass
class Pair:
    """Both ends. ``client`` and ``server`` are Peers; ``run`` carries bytes until none are left."""

    client: Peer = field(default_factory=client)
    server: Peer = field(default_factory=server)

    def run(self, cut: int = 0) -> None:
        """Carry bytes both ways, in pieces of ``cut`` bytes (0: as they come)."""
        while True:
            down, up = self.server.give(), self.client.give()
            if not down and not up:
                return
            for piece in pieces(down, cut):
                self.client.take(piece)
            for piece in pieces(up, cut):
                self.server.take(piece)

    def at(self, now: float) -> None:
        """Let the clock of both reach ``now``, and carry what that causes."""
        self.client.at(now)
        self.server.at(now)
        self.run()


def pieces(data: bytes, cut: int) -> Iterable[bytes]:
    """``data`` in pieces of ``cut`` bytes; 0: in one."""
    if not cut:
        return [data] if data else []
    return [data[start : start + cut] for start in range(0, len(data), cut)]


def established(limits: RecordLimits = DEFAULT_LIMITS, timing: Timing = DEFAULT_TIMING) -> Pair:
    """A pair whose handshake is complete and whose events are forgotten."""
    pair = Pair(client(limits=limits, timing=timing), server(limits=limits, timing=timing))
    pair.run()
    for peer in (pair.client, pair.server):
        assert peer.phase is Phase.OPEN
        peer.events.clear()
    return pair


def in_phase(phase: Phase, side: Side) -> tuple[Peer, bytes]:
    """One end in a phase, and the legal bytes that its peer would send next."""
    pair = Pair(server=server(pow_bits=8 if phase is Phase.WORKING else 0))
    pair.client.working = phase is not Phase.WORKING
    hello = pair.server.give()
    pair.client.trusting = phase is not Phase.PIN_DECISION
    pair.server.trusting = phase is not Phase.UNWRAPPING
    if phase is Phase.AWAIT_SERVER_HELLO:
        return pair.client, hello
    pair.client.take(hello)
    key = pair.client.give()
    if phase in (Phase.PIN_DECISION, Phase.WORKING):
        return pair.client, b""
    if phase is Phase.AWAIT_CLIENT_KEY:
        return pair.server, key
    pair.server.take(key)
    finished = pair.server.give()
    if phase is Phase.UNWRAPPING:
        return pair.server, b""
    if phase is Phase.AWAIT_SERVER_FINISHED:
        return pair.client, finished
    pair.client.take(finished)
    reply = pair.client.give()
    if phase is Phase.AWAIT_CLIENT_FINISHED:
        return pair.server, reply
    pair.server.take(reply)
    peer, other = (pair.client, pair.server) if side is Side.CLIENT else (pair.server, pair.client)
    if phase is Phase.CLOSING:
        peer.connection.close(2000, 0.0)
    elif phase is Phase.CLOSED:
        peer.connection.abort("as the test wants it")
    peer.give()
    peer.act()
    assert peer.phase is phase
    return peer, other.connection.seal(b"record", 0.0)
