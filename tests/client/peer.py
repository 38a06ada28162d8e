"""An in-memory server scripted by tests: the real wire protocol, without the real worker."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import TypeVar

from relay.chat.entries import Cursor
from relay.client.devices.credentials import KeyChoice
from relay.client.devices.key_files import KeyFiles
from relay.client.events import Event, State
from relay.client.identity import new_identity
from relay.client.options import Options
from relay.client.state import ClientState
from relay.wire.connection import Connection
from relay.wire.envelopes import ClientEnvelope, Hello, ServerEnvelope, Welcome
from relay.wire.events import ApplicationData, ConnectionClosed, SecretWrapped
from relay.wire.frames import FrameType
from relay.wire.identity import PrivateKey, parse_spki
from relay.wire.messages import ClientKey, pack_ext
from relay.wire.packing import pack, unpack_client
from tests.support.devices import device
from tests.support.pair import server_key
from tests.support.tickets import Desk

Found = TypeVar("Found")


class Link:
    """A client's state with one connection at a time, and a clock that tests advance."""

    def __init__(self, **options: object) -> None:
        self.now = 1000.0
        dice = random.Random(1)
        given: dict[str, object] = {
            "name": "alice",
            "identity": new_identity(secrets.token_bytes),
            "key_choice": KeyChoice("alice", device("alice"), False, None, KeyFiles(None)),
            "expected_key": None,
            "random_bytes": secrets.token_bytes,
            "jitter": dice.random,
        }
        self.state = ClientState(Options(**(given | options)))  # type: ignore[arg-type]
        self.received: list[ClientEnvelope] = []
        """Envelopes that the client has sent on this connection."""
        self.records: list[int] = []
        """How many envelopes each record had."""
        self.close: ConnectionClosed | None = None
        """How the server saw the connection end."""
        self.bytes_from_client = self.bytes_from_client_now = 0
        """Bytes in all, and on this connection up to the last step of the handshake."""
        self.desk = Desk(now=self.now)
        self.tickets = self.desk.worker()
        self.offered_ticket = False
        """The client has offered one on this connection."""

    def give_ticket(self) -> int:
        """Give the client a ticket; return its lifetime in seconds."""
        self.desk.now = self.now
        assert self.server.give_ticket(self.tickets, self.now)
        self.run()
        return int(self.desk.maker.keys[-1].expires - self.now)

    def forget_tickets(self) -> None:
        """Restart the server: it knows no ticket any more."""
        self.desk = Desk(now=self.now)
        self.tickets = self.desk.worker()

    def dial(self, key: PrivateKey | None = None, server_id: bytes = b"") -> None:
        """Open a connection and run the handshake as far as it goes; the server may claim an id."""
        sent_before = self.bytes_from_client
        self.key = server_key() if key is None else key
        self.server = Connection.server(
            now=self.now,
            random_bytes=secrets.token_bytes,
            spki=self.key.spki,
            tickets=self.tickets,
            ext=pack_ext(server_id, sha256(self.key.spki).digest()),
        )
        self.desk.now = self.now
        self.offered_ticket = False
        self.received.clear()
        self.records.clear()
        self.close = None
        needed = self.state.needs_credentials
        if needed is not None:
            self.state.login.credentials = self.state.options.key_choice.at(needed)
        self.state.dialling()
        self.state.connection_made(self.now)
        self.run()
        self.bytes_from_client_now = self.bytes_from_client - sent_before

    def log_in(
        self,
        sends_max: int = 1024,
        key: PrivateKey | None = None,
        server_id: bytes = b"",
        root: bytes = b"",
    ) -> None:
        """Dial, and send WELCOME to the client."""
        if self.state.connect_at is not None:
            self.now = max(self.now, self.state.connect_at)
        self.dial(key, server_id)
        if self.state.key.undecided is not None:
            self.state.key.trust(self.state.key.undecided)
            self.dial(key, server_id)
        self.hello = self.heard(Hello)
        self.send_envelopes(Welcome(self.hello.name, 0, 32_768, sends_max, "peer", root))

    def run(self) -> None:
        """Transfer bytes both ways until there are no more."""
        while True:
            from_client = self.state.data_to_send(self.now)
            self.bytes_from_client += len(from_client)
            if from_client:
                if from_client[0] == FrameType.CLIENT_KEY:
                    key = ClientKey.parse(from_client, parse_spki(self.key.spki).modulus_bytes)
                    self.offered_ticket = bool(key.ticket)
                self.server.receive_data(from_client, self.now)
            self._serve()
            from_server = self.server.data_to_send()
            if from_server:
                self.state.receive_data(from_server, self.now)
            if not from_client and not from_server:
                return

    def _serve(self) -> None:
        for event in self.server.events():
            match event:
                case SecretWrapped(ciphertext=ciphertext):
                    self.server.provide_secret(self.key.unwrap(ciphertext), self.now)
                case ApplicationData(content=content):
                    envelopes = unpack_client(content)
                    self.records.append(len(envelopes))
                    self.received += envelopes
                case ConnectionClosed():
                    self.close = event
                case _:
                    pass

    def send_envelopes(self, *envelopes: ServerEnvelope) -> None:
        """Send envelopes in one record; transfer the client's reaction."""
        self.send_raw(b"".join(map(pack, envelopes)))

    def send_raw(self, content: bytes) -> None:
        """Send bytes as the server."""
        self.server.send(content, self.now)
        self.run()

    def end(self, code: int, retry_after_s: int = 0) -> None:
        """Close as the server."""
        self.server.close(code, self.now, retry_after_s)
        self.run()

    def lose(self) -> None:
        """Lose the connection without a close."""
        self.state.receive_eof(self.now)
        self.state.data_to_send(self.now)

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, with every deadline of the client."""
        until = self.now + seconds
        while (deadline := self.state.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.state.handle_deadline(self.now)
            self.run()
        self.now = until

    def heard(self, kind: Callable[..., Found]) -> Found:
        """Return the only envelope of a type that the client has sent, and forget it."""
        (found,) = self.all_heard(kind)
        return found

    def all_heard(self, kind: Callable[..., Found]) -> list[Found]:
        """Return all of a type, and forget them."""
        found = [envelope for envelope in self.received if type(envelope) is kind]
        self.received = [envelope for envelope in self.received if type(envelope) is not kind]
        return found  # type: ignore[return-value]

    def taken(self) -> list[Event]:
        """Take every event, as a client does: it writes only when ``flush_due`` requires it."""
        events = []
        while (event := self.state.chat.take()) is not None:
            if self.state.chat.rooms.flush_due:
                self.run()
            events.append(event)
        return events

    @property
    def cursors(self) -> dict[str, Cursor]:
        """Return the cursors of what the program has taken, by room."""
        return dict(self.state.chat.queue.taken)

    def condition(self) -> State:
        """Return the client's state, hiding it from the type checker's narrowing."""
        return self.state.state

    def results(self) -> dict[object, object]:
        """Return the ended calls, by token."""
        return dict(self.state.chat.answers())
