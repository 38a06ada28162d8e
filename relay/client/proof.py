"""The credentials that a client logs in with, as far as code without files knows them."""

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
    """What a client proves at one server, and what it knows of that server's people."""

    server_id: str
    """The fingerprint of the server's key."""
    key: Key | None
    """None: a guest."""
    may_register: bool
    """Claim the name if nobody has it."""
    register_first: bool
    """The key is new, or registering is what this client is for: do not try to log in before."""
    token: bytes
    """Of an invitation; empty: none."""
    pins: dict[str, Pin]
    chain: list[bytes] | None
    """Links of one's own chain that were seen before; None: they are not kept."""
    missing: ClientError | None = None
    """Why there is no key, where one is needed; told once the server has shown the right key."""


class KeySource(Protocol):
    """Where credentials come from, and where what is seen is kept."""

    @property
    def needs_files(self) -> bool:
        """False when ``at`` reads no file, so that it need not be called beside a loop."""

    def at(self, server_id: str) -> Credentials:
        """Return what to prove at a server.

        Raises:
            UsageError: a key file cannot be used.
        """

    def unused(self) -> None:
        """Remove the file of a key that was made and that no server has accepted."""

    def keep(self, server_id: str, seen: dict[str, Pin], own_links: list[bytes] | None) -> None:
        """Keep what was seen of chains; ``own_links``: None if one's own is as it was."""


def server_id_bytes(fingerprint: str) -> bytes:
    """Return the 32 bytes of a fingerprint."""
    return spki_hash_of(fingerprint)
