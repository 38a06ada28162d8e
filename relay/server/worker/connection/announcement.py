"""The announcement of the server's next key, and which clients still need it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

from relay.wire.envelopes import NextKey
from relay.wire.packing import pack

if TYPE_CHECKING:
    import asyncio

TOLD_PER_SWEEP: Final = 20
"""Connections of a worker that are told of a new announcement in a second: each asks for a proof,
which is an RSA operation, and handshakes need the key agent, too."""


class Told(Protocol):
    """A session."""

    @property
    def welcomed(self) -> bool:
        """True between its login and its end."""

    def answer(self, envelope: bytes) -> None:
        """Send it something."""


class ProvesNextKey(Protocol):
    """The key agent's service."""

    def prove(self, challenge: bytes, source: str) -> asyncio.Future[bytes]:
        """Return a future of the proof."""


class Announcement:
    """Which key will follow, if any; and whom to tell."""

    def __init__(self, agent: ProvesNextKey, next_hash: bytes) -> None:
        self.agent = agent
        self.next_hash = next_hash
        """SHA-256 of the SPKI of the next key; empty: none."""
        self._to_tell: deque[Told] = deque()

    def change(self, next_hash: bytes, sessions: Iterable[Told]) -> None:
        """Another key will follow: tell everybody who is connected, a few at a time."""
        self.next_hash = next_hash
        self._to_tell = deque(sessions if next_hash else ())

    def sweep(self) -> None:
        """Tell some of those who are to be told. Called about once a second."""
        for _ in range(min(TOLD_PER_SWEEP, len(self._to_tell))):
            session = self._to_tell.popleft()
            if session.welcomed:
                session.answer(pack(NextKey(self.next_hash)))
