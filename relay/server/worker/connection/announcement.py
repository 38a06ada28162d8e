"""Announces the server's next key and tracks which clients still need the announcement."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

from relay.wire.envelopes import NextKey
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.server.agent.answer import Answer

ANNOUNCED_PER_SWEEP: Final = 20
"""Connections of a worker that get a new announcement per second. Each of them then requests a
proof, which is an RSA operation, and handshakes need the key agent, too."""


class Recipient(Protocol):
    """The part of a session that an announcement uses."""

    @property
    def welcomed(self) -> bool:
        """True from the login to the end of the connection."""

    def answer(self, envelope: bytes) -> None:
        """Send an envelope to the client."""


class ProvesNextKey(Protocol):
    """The key agent's service."""

    def prove(self, challenge: bytes, source: str) -> Answer:
        """Return the proof, once it is there."""


class Announcement:
    """The announced next key, if any, and the sessions that still have to be told."""

    def __init__(self, agent: ProvesNextKey, next_hash: bytes) -> None:
        self.agent = agent
        self.next_hash = next_hash
        """SHA-256 of the SPKI of the next key; empty if there is none."""
        self._pending: deque[Recipient] = deque()

    def change(self, next_hash: bytes, sessions: Iterable[Recipient]) -> None:
        """Announce another key to all connected clients, a few at a time."""
        self.next_hash = next_hash
        self._pending = deque(sessions if next_hash else ())

    def sweep(self) -> None:
        """Send the announcement to some of the sessions that wait for it.

        Called about once a second.
        """
        for _ in range(min(ANNOUNCED_PER_SWEEP, len(self._pending))):
            session = self._pending.popleft()
            if session.welcomed:
                session.answer(pack(NextKey(self.next_hash)))
