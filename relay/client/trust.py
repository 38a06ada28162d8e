"""Whether a server's key is the right one: trust on first use, and never a silent change.

In this order: the fingerprint in the address; the pin in the known-servers file; a person (or a
program) who is asked. No answer is no.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from relay.client.address import Address
from relay.client.errors import UnknownServerKey
from relay.client.key_files import KeyFiles
from relay.client.known_servers import KnownServers

Ask: TypeAlias = Callable[[Address, str], "bool | Awaitable[bool]"]
"""Called with the address and the full fingerprint of an unknown key; True accepts and pins it. No
connection is open meanwhile: a person may take their time. A blocking client takes a plain bool."""


class KeyPolicy:
    """Where pins and keys are kept, and whom to ask about an unknown key of a server."""

    def __init__(
        self,
        known: KnownServers | None = None,
        ask: Ask | None = None,
        keys: KeyFiles | None = None,
    ) -> None:
        """Use the user's own files unless others are given; ask nobody by default.

        Args:
            known: the file of known servers.
            ask: whom to ask about an unknown key.
            keys: the device keys, and what is pinned of other people's.
        """
        self.known = KnownServers() if known is None else known
        self.ask = ask
        self.keys = KeyFiles() if keys is None else keys

    def expected(self, address: Address) -> str | None:
        """Return the fingerprint that the server's key must have; None: unknown.

        Raises:
            UsageError: the known-servers file cannot be read.
        """
        if address.fingerprint is not None:
            return address.fingerprint
        pin = self.known.find(address.host, address.port)
        return None if pin is None else pin.fingerprint

    def question(self, address: Address, fingerprint: str) -> bool | Awaitable[bool]:
        """Ask whether an unknown key is the right one. Nobody to ask: no."""
        return False if self.ask is None else self.ask(address, fingerprint)

    def answer(self, address: Address, fingerprint: str, yes: bool) -> UnknownServerKey | None:
        """Pin the key if the answer was yes; otherwise return the error that ends the client.

        Raises:
            UsageError: the pin cannot be written.
        """
        if yes:
            self.known.pin(address.host, address.port, fingerprint)
            return None
        said = (
            "is not known; if it is the right one, put it into the address"
            if self.ask is None
            else "was not accepted"
        )
        return UnknownServerKey(
            f"the key of the server at {address.host}, port {address.port} {said}: {fingerprint}",
            fingerprint,
        )
