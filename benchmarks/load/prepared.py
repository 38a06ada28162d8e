"""The ephemeral keys of a client's next connection, created before it.

Thousands of clients that return at once are as many machines, each of which creates its keys by
itself. Here they share the server's cores, so what needs nothing from the server is done before the
storm. All that depends on its answers (exchange, decapsulation, confirmations, the signature of the
login) is done when they come, and the server does everything as for any client.
"""

from __future__ import annotations

import secrets

from relay.wire.connection import Connection
from relay.wire.frames import FrameType, frame
from relay.wire.handshake import ClientHandshake
from relay.wire.key_schedule import early_secret
from relay.wire.messages import RANDOM_BYTES, SUITE, VERSION, ServerHello
from relay.wire.phases import Phase
from relay.wire.tickets import ClientTicket


class PreparedKeys:
    """What a client sends to a server whose key is known, but for the ticket."""

    def __init__(self, spki: bytes) -> None:
        """Create the keys. ``spki``: the server's public key."""
        hello = ServerHello(VERSION, VERSION, SUITE, 0, bytes(RANDOM_BYTES), spki, b"")
        self._spki = spki
        self._made = ClientHandshake(secrets.token_bytes, VERSION)
        self._made.receive_hello(frame(FrameType.SERVER_HELLO, hello.body()))
        self._made.prepare_key()

    def accept(self, connection: Connection, ticket: ClientTicket | None) -> None:
        """Do what ``Connection.accept_server_key`` does, with these keys.

        The handshake is compiled in one build, and cannot have a subclass; so its attributes are
        set here.
        """
        made, handshake = self._made, connection._handshake
        assert isinstance(handshake, ClientHandshake)
        assert handshake.server_key.spki == self._spki
        assert connection.phase is Phase.PIN_DECISION
        handshake._secret, handshake._x25519 = made._secret, made._x25519
        handshake._mlkem, handshake._key, handshake._early = made._mlkem, made._key, b""
        if ticket is not None:
            handshake._early = early_secret(ticket.psk)
            handshake._key = made._key._replace(ticket=ticket.ticket)
        connection.out += handshake.client_key()
        connection._enter(Phase.AWAIT_SERVER_FINISHED)
