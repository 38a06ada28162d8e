"""The tickets of one connection: issued by a server, and kept by a client, for the next one."""

from __future__ import annotations

from typing import Final, final

from relay.errors import RemoteProtocolError
from relay.wire.events import TicketReceived
from relay.wire.key_schedule import ticket_secret
from relay.wire.messages import TICKET_BYTES_MAX
from relay.wire.tickets import TICKET_NONCE_BYTES, ClientTicket, TicketKeys

TICKETS_MAX: Final = 2
"""What a client accepts on one connection."""
TICKET_HEAD_BYTES: Final = 12


@final
class Resumption:
    """The tickets of one connection."""

    __slots__ = ("_given", "_received", "_secret")

    def __init__(self, secret: bytes) -> None:
        """Create without tickets.

        Args:
            secret: the source of the secrets of this connection's tickets; empty: there are none.
        """
        self._secret = secret
        self._given = False
        self._received = 0

    @property
    def may_give(self) -> bool:
        """True until a ticket was issued: one per connection, from which the next one follows.

        A second one would only be useful to a client that makes two connections from one.
        """
        return bool(self._secret) and not self._given

    def give(self, tickets: TicketKeys) -> bytes | None:
        """Server: return the content of a TICKET record; None: there is no key to seal one."""
        assert self.may_give, "a second ticket of a connection"
        nonce = bytes(TICKET_NONCE_BYTES)
        sealed = tickets.seal(ticket_secret(self._secret, nonce))
        self._given, self._secret = True, b""
        if sealed is None:
            return None
        ticket, lifetime_s = sealed
        return nonce + lifetime_s.to_bytes(4, "big") + len(ticket).to_bytes(2, "big") + ticket

    def receive(self, content: bytes) -> TicketReceived:
        """Client: handle the content of a TICKET record.

        Raises:
            RemoteProtocolError: it is malformed, or there were too many.
        """
        self._received += 1
        length = int.from_bytes(content[TICKET_HEAD_BYTES : TICKET_HEAD_BYTES + 2], "big")
        if (
            self._received > TICKETS_MAX
            or len(content) != TICKET_HEAD_BYTES + 2 + length
            or not 1 <= length <= TICKET_BYTES_MAX
        ):
            raise RemoteProtocolError("a malformed ticket, or too many")
        psk = ticket_secret(self._secret, content[:TICKET_NONCE_BYTES])
        ticket = ClientTicket(content[TICKET_HEAD_BYTES + 2 :], psk)
        lifetime_s = int.from_bytes(content[TICKET_NONCE_BYTES:TICKET_HEAD_BYTES], "big")
        return TicketReceived(ticket, lifetime_s)
