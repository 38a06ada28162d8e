"""Tickets: issued by a server to a client, so that its next handshake needs no RSA operation.

A ticket is sealed under keys that all workers of a server share and that exist only in memory
(docs/protocol.md, "Tickets"). It resumes keys, never a user: a client that resumes logs in like any
other. The workers also share a register of used tickets. A ticket that cannot be opened, or was
used, is not an error: the handshake is then a full one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag

from relay import limits
from relay.secret import Secret
from relay.wire.cipher import new_aead

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LABEL: Final = b"relay/1 ticket"
VERSION: Final = 1
KEY_ID_BYTES: Final = 8
NONCE_BYTES: Final = 12
TICKET_NONCE_BYTES: Final = 8
"""For deriving a ticket's secret; not for its seal."""
LIFETIME_S_MIN: Final = 60
"""A ticket with a shorter lifetime is not worth issuing."""
_BODY: Final = struct.Struct("!BQQQ32s32s")
"""version, serial, issued ms, expires ms, H(spki), PSK."""
TICKET_BYTES: Final = KEY_ID_BYTES + NONCE_BYTES + _BODY.size + 16


class ClientTicket(NamedTuple):
    """What a client keeps: the bytes to send, and the secret that only both ends know."""

    ticket: bytes
    psk: Secret


class TicketKey(NamedTuple):
    """A key that seals tickets. Times are in monotonic seconds, which processes share."""

    generation: int
    """The key's number in this run of the server: 1, 2, ...; selects its part of the register."""
    key_id: bytes
    """Random: transmitted in the clear in every ticket."""
    secret_key: Secret
    expires: float
    """When it no longer opens tickets."""


class OpenedTicket(NamedTuple):
    """A valid, unexpired ticket; not known yet whether it was used."""

    generation: int
    serial: int
    psk: Secret


class Register(Protocol):
    """Which tickets were issued, and used: shared by all workers of a server."""

    def allot(self, generation: int) -> int | None:
        """Return a number for a new ticket; None: there are no more for this key."""

    def spend(self, generation: int, serial: int) -> bool:
        """Use a ticket. False: it was used before, or this cannot be determined."""


class TicketKeys:
    """The keys of a worker: seals tickets under the newest, opens those under any."""

    def __init__(
        self,
        spki_hash: bytes,
        register: Register,
        random_bytes: Callable[[int], bytes],
        clock: Callable[[], float],
    ) -> None:
        """Create without a key: no tickets yet.

        Args:
            spki_hash: SHA-256 of the server's key: a ticket is for one server's key.
            register: shared by the workers.
            random_bytes: used after the fork.
            clock: monotonic seconds, the same in all processes.
        """
        self._spki_hash = spki_hash
        self._register = register
        self._random_bytes = random_bytes
        self._clock = clock
        self._held: list[tuple[TicketKey, AESGCM]] = []
        """By generation, the newest last."""

    def install(self, keys: Iterable[TicketKey]) -> None:
        """Take keys from the key agent; present ones stay until they expire."""
        now = self._clock()
        known = {key.key_id for key, _ in self._held}
        held = self._held + [
            (key, new_aead(key.secret_key)) for key in keys if key.key_id not in known
        ]
        held.sort(key=lambda one: one[0].generation)
        self._held = [one for one in held if one[0].expires > now][-limits.TICKET_KEYS_MAX :]

    def seal(self, psk: bytes) -> tuple[bytes, int] | None:
        """Return a new ticket and its lifetime in seconds; None: none can be issued."""
        if not self._held:
            return None
        key, aead = self._held[-1]
        now = self._clock()
        lifetime_s = int(key.expires - now)
        if lifetime_s < LIFETIME_S_MIN:
            return None
        serial = self._register.allot(key.generation)
        if serial is None:
            return None
        body = _BODY.pack(
            VERSION, serial, int(now * 1000), int(key.expires * 1000), self._spki_hash, psk
        )
        nonce = self._random_bytes(NONCE_BYTES)
        sealed = aead.encrypt(nonce, body, LABEL + key.key_id + self._spki_hash)
        return key.key_id + nonce + sealed, lifetime_s

    def open(self, ticket: bytes) -> OpenedTicket | None:
        """Return the content of a ticket; None: not ours, of another key, changed, or expired."""
        if len(ticket) != TICKET_BYTES:
            return None
        key_id = ticket[:KEY_ID_BYTES]
        now = self._clock()
        for key, aead in self._held:
            if key.key_id != key_id:  # in the clear: no secret is compared
                continue
            nonce = ticket[KEY_ID_BYTES : KEY_ID_BYTES + NONCE_BYTES]
            sealed = ticket[KEY_ID_BYTES + NONCE_BYTES :]
            try:
                body = aead.decrypt(nonce, sealed, LABEL + key_id + self._spki_hash)
            except InvalidTag:
                return None
            version, serial, _, expires_ms, spki_hash, psk = _BODY.unpack(body)
            good = version == VERSION and spki_hash == self._spki_hash
            if good and now < key.expires and now * 1000 < expires_ms:
                return OpenedTicket(key.generation, serial, Secret(psk))
            return None
        return None

    def spend(self, opened: OpenedTicket) -> bool:
        """Use a ticket up. False: it was used before, or this cannot be determined."""
        return self._register.spend(opened.generation, opened.serial)
