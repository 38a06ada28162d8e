"""Trust in a server's key: on first use, and never a silent change.

Checked in this order: the fingerprint in the address; the pin in the known-servers file; a person
(or a program) who is asked. No answer counts as no. A key that the expected one has announced and
proved is also accepted (``lineage``).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from relay.client.address import Address
from relay.client.devices.key_files import KeyFiles
from relay.client.errors import ServerIdentityError, UnknownServerKey
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.lineage import FOLLOWED_TYPE, ClaimedId, Expected, KeyChange
from relay.errors import UsageError

log: Final = logging.getLogger(__name__)
Ask: TypeAlias = Callable[[Address, str], "bool | Awaitable[bool]"]
"""Called with the address and the full fingerprint of an unknown key; True accepts and pins it. No
connection is open meanwhile, so a person may take any time. A blocking client requires a plain
bool."""


class KeyPolicy:
    """Where pins and keys are kept, and how to ask about an unknown server key."""

    def __init__(
        self,
        known: KnownServers | None = None,
        ask: Ask | None = None,
        keys: KeyFiles | None = None,
    ) -> None:
        """Use the user's own files unless others are given; ask nobody by default.

        Args:
            known: the file of known servers.
            ask: decides about an unknown key.
            keys: the device keys, and pins of other accounts.

        Raises:
            TypeError: an argument.
        """
        for name, value, kind in (("known", known, KnownServers), ("keys", keys, KeyFiles)):
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
        if ask is not None and not callable(ask):
            raise TypeError(f"ask must be a function, not {type(ask).__name__}")
        self.known = KnownServers() if known is None else known
        self.ask = ask
        self.keys = KeyFiles() if keys is None else keys

    def expected(self, address: Address) -> Expected | None:
        """Return the expected key of the server; None: unknown.

        If the server's id is another one, what was stored under the key is moved there first
        (``KeyFiles.follow``): whoever recorded the id may have had other key files.

        Raises:
            UsageError: the known-servers file cannot be read.
        """
        try:
            found = self.known.expected(address.host, address.port, address.fingerprint)
            if found is not None and found.id != found.fingerprint:
                for later in self.known.lineage().later(found.id):
                    self._follow(later, found.id)
            return found
        except UsageError:
            if address.fingerprint is None:
                raise
            return Expected(address.fingerprint)  # it contains all that is needed

    def server_id(self, address: Address) -> str | None:
        """Return the id under which keys for a server are kept; None: not known yet.

        Raises:
            UsageError: the known-servers file cannot be read.
        """
        expected = self.expected(address)
        return None if expected is None else expected.id

    def claimed(self, address: Address, claimed: ClaimedId) -> ServerIdentityError | None:
        """Decide about an id that a server claims and is not known to have.

        Returns:
            None: nothing is kept here under the id, so it is accepted and recorded; or another
            program has recorded it meanwhile. Otherwise the error that ends the client.
        """
        fingerprint, server_id = claimed
        if server_id != fingerprint and self._has_id(claimed):
            self._follow(fingerprint, server_id)
            return None
        line = f"* {FOLLOWED_TYPE} {server_id} {fingerprint}"
        if server_id == fingerprint or self._keeps(server_id):
            return ServerIdentityError(
                f"the server at {address.host}, port {address.port} claims the id"
                f" {server_id}, but no announced change of keys has proved that here; nothing was"
                " sent. If its operator confirms it, add this line to"
                f" {self.known.path}: {line}",
                fingerprint,
                server_id,
            )
        self.keep([KeyChange(server_id, fingerprint, followed=True)])
        self._follow(fingerprint, server_id)
        return None

    def _follow(self, fingerprint: str, server_id: str) -> None:
        try:
            self.keys.follow(fingerprint, server_id)
        except UsageError as error:
            log.warning("%s", error)

    def _has_id(self, claimed: ClaimedId) -> bool:
        """Return True if the key is known by now to belong to the server with this id."""
        with contextlib.suppress(UsageError):
            followed = self.known.lineage()._replace(following={})
            return followed.id_of(claimed.fingerprint) == claimed.server_id
        return False

    def _keeps(self, server_id: str) -> bool:
        """Return True if anything is kept under an id: keys, pins, or following keys."""
        # An unreadable file proves nothing, and must not hide what the other one contains.
        with contextlib.suppress(UsageError):
            if self.known.pins_key(server_id) or self.known.lineage().mentions(server_id):
                return True
        with contextlib.suppress(UsageError):
            return (self.keys.directory / server_id).exists()
        return False

    def keep(self, changes: Iterable[KeyChange]) -> None:
        """Keep what was proved about keys of servers. What cannot be written is logged."""
        try:
            for old, new, followed in changes:
                if followed:
                    self.known.followed(old, new)
                else:
                    self.known.announced(old, new)
        except UsageError as error:
            log.warning("%s", error)

    def question(self, address: Address, fingerprint: str) -> bool | Awaitable[bool]:
        """Ask whether an unknown key is right. With nobody to ask: no."""
        return False if self.ask is None else self.ask(address, fingerprint)

    def answer(self, address: Address, fingerprint: str, yes: bool) -> UnknownServerKey | None:
        """Pin the key if the answer was yes; otherwise return the error that ends the client.

        Raises:
            UsageError: the pin cannot be written.
        """
        if yes:
            self.known.pin(address.host, address.port, fingerprint)
            return None
        what = (
            "is not known; if it is the right one, put it into the address"
            if self.ask is None
            else "was not accepted"
        )
        return UnknownServerKey(
            f"the key of the server at {address.host}, port {address.port} {what}: {fingerprint}",
            fingerprint,
        )
