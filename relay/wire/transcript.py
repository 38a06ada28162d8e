"""The running hash over the handshake's frames, and the labels that separate its uses."""

from __future__ import annotations

import hashlib
from typing import Final

RSA_LABEL: Final = b"relay/1 session key"
NEXT_KEY_LABEL: Final = b"relay/1 next key"
POW_LABEL: Final = b"relay/1 pow"
MAC_BYTES: Final = 32
"""Binder and confirmations are at the end of their frames and are excluded from what they confirm.
"""


class Transcript:
    """SHA-256 over whole frames, including headers, in the order of transmission."""

    __slots__ = ("_hash",)

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, frame: bytes) -> None:
        """Append a whole frame, or the rest of it."""
        self._hash.update(frame)

    def digest(self) -> bytes:
        """Return the hash of everything so far."""
        return self._hash.digest()

    def add_unconfirmed(self, frame: bytes) -> bytes:
        """Append a frame's bytes except its last 32, which confirm the hash that is returned.

        They are appended by ``add``, once they are known.
        """
        self._hash.update(memoryview(frame)[:-MAC_BYTES])
        return self._hash.digest()
