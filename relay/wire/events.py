"""The events of a ``Connection``. Drained with ``Connection.events()`` after each input."""

from __future__ import annotations

from typing import NamedTuple

from relay.wire.tickets import ClientTicket


class ServerKeyOffered(NamedTuple):
    """Client: the server's key arrived. Accept it, or abort: nothing was sent yet."""

    spki: bytes
    fingerprint: str
    server_id: str = ""
    """Claimed by the server: the fingerprint of its first key. Not authentic before the handshake
    is complete. Empty: equal to the fingerprint."""


class SecretWrapped(NamedTuple):
    """Server: have the key agent unwrap this, then call ``provide_secret``."""

    ciphertext: bytes


class HandshakeCompleted(NamedTuple):
    """Both sides are authenticated; records may be sent. ``mode`` 0: full, 1: resumed."""

    mode: int
    fell_back: bool = False
    """A ticket was offered and not accepted: it was unknown, expired, or used before."""


class TicketReceived(NamedTuple):
    """Client: a ticket for one later handshake with the server that has this key."""

    ticket: ClientTicket
    lifetime_s: int


class ApplicationData(NamedTuple):
    """One app record's content: whole envelopes, not parsed yet."""

    content: bytes


class PongReceived(NamedTuple):
    """The answer to a ping."""

    payload: bytes


class ConnectionClosed(NamedTuple):
    """The end; always the last event, and exactly one.

    ``code`` is None if the connection was lost or dropped without an authenticated close record.
    ``clean`` is True only with one. ``remote``: whether the peer ended it. ``detail`` is for our
    own log, never for the peer.
    """

    code: int | None
    retry_after_s: int
    clean: bool
    remote: bool
    detail: str
    stranger: bool = False
    """True if the peer does not speak this protocol at all."""


Event = (
    ServerKeyOffered
    | SecretWrapped
    | HandshakeCompleted
    | TicketReceived
    | ApplicationData
    | PongReceived
    | ConnectionClosed
)
