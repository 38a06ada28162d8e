"""The server's announcement of its next key, which the client only trusts with a proof.

The announcement alone could come from a compromised process of the server that does not have the
key. So the client sends a fresh secret encrypted to the server's key, and only the holder of that
key can answer (docs/protocol.md, "Changes of the server's key").
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from typing import Final

from relay import limits
from relay.secret import Secret
from relay.wire.envelopes import Prove
from relay.wire.identity import fingerprint_of, parse_spki

log: Final = logging.getLogger(__name__)
PROOFS_MAX: Final = 8
"""Requested on one connection. Each proof adds a line to a file that all servers share."""


class NextKeyProof:
    """What was proved on one connection about the server's next key."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._spki = b""
        self._known: str | None = None
        self._secret = Secret(b"")
        self._announced = b""
        self._later = b""
        """Announced while a proof for another key was pending: handled after that."""
        self._asked = 0
        """Proofs requested on this connection."""
        self.proved: str | None = None
        """The fingerprint that was just proved; taken by the state."""

    def begin(self, spki: bytes, known: str | None) -> None:
        """Begin a logged-in connection to the server with this key.

        ``known`` is the fingerprint of the key that it has announced and proved before.
        """
        self._spki, self._known, self._announced, self._later = spki, known, b"", b""
        self._asked = 0

    def announced(self, spki_hash: bytes, *, asking: bool) -> bool:
        """Handle an announcement. True: request a proof, by ``prove``.

        ``asking``: another proof is pending; ``take_later`` returns this announcement afterwards.
        """
        if asking:
            self._later = spki_hash
            return False
        if not self._spki or fingerprint_of(spki_hash) == self._known:
            return False
        if self._asked >= PROOFS_MAX:
            log.warning("the server announces next keys too often: they are ignored now")
            self._spki = b""
            return False
        self._asked += 1
        self._announced = spki_hash
        self._secret = Secret(self._random_bytes(limits.SESSION_SECRET_BYTES))
        return True

    def take_later(self) -> bytes:
        """Return and clear what was announced while a proof was pending; empty: nothing."""
        later, self._later = self._later, b""
        return later

    def prove(self, number: int) -> Prove:
        """Return the request for the proof."""
        return Prove(number, parse_spki(self._spki).challenge(self._secret))

    def answered(self, proof: bytes) -> bool:
        """Check the proof. False: it is wrong."""
        expected = parse_spki(self._spki).next_key_proof(self._secret, self._announced)
        if not hmac.compare_digest(expected, proof):
            return False
        self.proved = self._known = fingerprint_of(self._announced)
        return True
