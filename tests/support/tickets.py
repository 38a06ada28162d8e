"""Keys of tickets as the workers of one server hold them, on a clock that a test moves."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from relay.server.agent.ticket_keys import TicketKeyMaker
from relay.server.ticket_register import TicketRegister
from relay.wire.tickets import ClientTicket, TicketKey, TicketKeys
from tests.support.pair import Pair, client, server, server_key


@dataclass
class Desk:
    """The key agent's part, and as many workers as a test asks for."""

    now: float = 1000.0
    register: TicketRegister = field(default_factory=TicketRegister)
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    workers: list[TicketKeys] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.maker = TicketKeyMaker(self.register.begin, self.random_bytes, self.clock)
        self.maker.rotate()

    def clock(self) -> float:
        return self.now

    def next_agent(
        self, keep: Callable[[list[TicketKey]], None], kept: Iterable[TicketKey]
    ) -> TicketKeyMaker:
        """The agent is replaced by one that knows these keys; return it."""
        self.maker = TicketKeyMaker(self.register.begin, self.random_bytes, self.clock, keep, kept)
        self.maker.rotate()
        return self.maker

    def worker(self, spki: bytes = b"") -> TicketKeys:
        """Another worker, with the keys that there are."""
        spki_hash = hashlib.sha256(spki or server_key().spki).digest()
        keys = TicketKeys(spki_hash, self.register, self.random_bytes, self.clock)
        keys.install(self.maker.keys)
        self.workers.append(keys)
        return keys

    def at(self, now: float) -> None:
        """Let the clock reach ``now``; new keys are made and pushed when they are due."""
        self.now = now
        if self.maker.rotate():
            for worker in self.workers:
                worker.install(self.maker.keys)


def pair(tickets: TicketKeys | None, ticket: ClientTicket | None = None, seed: str = "") -> Pair:
    """Both ends of a connection to a worker."""
    return Pair(client(seed=f"client {seed}", ticket=ticket), server(tickets=tickets, seed=seed))


def ticket_of(tickets: TicketKeys, seed: str = "first") -> ClientTicket:
    """A ticket as a client gets it after its login."""
    first = pair(tickets, seed=seed)
    first.run()
    assert first.server.connection.give_ticket(tickets, 0.0)
    first.run()
    (ticket,) = first.client.tickets
    return ticket
