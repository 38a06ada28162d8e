"""The credentials for a login, as seen by code that accesses no files."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from relay.chat.accounts.chain import Pin
from relay.client.errors import ClientError
from relay.wire.identity import spki_hash_of


class Key(Protocol):
    """A device's key."""

    @property
    def public(self) -> bytes:
        """The public key."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message."""


class Credentials(NamedTuple):
    """The credentials of a client at one server, and what it knows about other accounts there."""

    server_id: str
    """The fingerprint of the server's key."""
    key: Key | None
    """None: a guest."""
    may_register: bool
    """True: claim the name if it is free."""
    register_first: bool
    """True if the key is new, or registering is the purpose: do not try to log in before."""
    token: bytes
    """Of an invitation; empty: none."""
    pins: dict[str, Pin]
    chain: list[bytes] | None
    """Links of this account's chain that were seen before; None: they are not kept."""
    missing: ClientError | None = None
    """Why a required key is missing; raised once the server has shown the right key."""


class KeySource(Protocol):
    """Where credentials come from, and where observations are kept."""

    @property
    def needs_files(self) -> bool:
        """False if ``at`` reads no file and may be called in an event loop."""

    def at(self, server_id: str) -> Credentials:
        """Return the credentials for a server.

        Raises:
            UsageError: a key file cannot be used.
        """

    def unused(self) -> None:
        """Remove the file of a key that was created and that no server has accepted."""

    def keep(self, server_id: str, seen: dict[str, Pin], own_links: list[bytes] | None) -> None:
        """Keep what was seen of chains.

        ``own_links``: None if this account's chain is unchanged.
        """


def server_id_bytes(fingerprint: str) -> bytes:
    """Return the 32 bytes of a fingerprint."""
    return spki_hash_of(fingerprint)
