"""How a server's keys follow one another, according to proofs seen by this user. Pure.

    * relay-next-key-v1 OLD NEW          OLD has proved that NEW will follow it
    * relay-followed-key-v1 OLD NEW      NEW has replaced OLD, which is no longer accepted

A server's *id* is the fingerprint of its first key. Device keys and pins are kept under it, so it
stays when keys change. A server states its id. It is believed if these lines contain the same id,
and at the first contact if nothing is kept under that id: then a line of the second kind is
written, from the id to the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

NEXT_KEY_TYPE: Final = "relay-next-key-v1"
FOLLOWED_TYPE: Final = "relay-followed-key-v1"


class Expected(NamedTuple):
    """The expected key of a server."""

    fingerprint: str
    following: str | None = None
    """The fingerprint of the key that this one has announced, which is also accepted."""
    server_id: str = ""
    """Empty: equal to the fingerprint."""

    @property
    def id(self) -> str:
        """The server's id."""
        return self.server_id or self.fingerprint


class ClaimedId(NamedTuple):
    """The id that a server states, after proving its key."""

    fingerprint: str
    """Of its key."""
    server_id: str


class KeyChange(NamedTuple):
    """A proved fact about a key of a server."""

    old: str
    new: str
    followed: bool
    """True: the new key is in use. False: it was announced."""


class Lineage(NamedTuple):
    """The content of the lines; of two lines about the same key the last one counts."""

    following: Mapping[str, str]
    """By key: the one that it has announced."""
    followed: Mapping[str, str]
    """By key: the one that has replaced it."""

    def expected(self, fingerprint: str) -> Expected:
        """Return the expected key where a key was pinned, or named in an address."""
        server_id = self.id_of(fingerprint)
        seen = [fingerprint, *self.later(fingerprint)]
        fingerprint = seen[-1]
        following = self.following.get(fingerprint)
        return Expected(
            fingerprint,
            None if following in seen else following,
            "" if server_id == fingerprint else server_id,
        )

    def later(self, fingerprint: str) -> list[str]:
        """Return the keys that have replaced a key, one after the other."""
        seen = [fingerprint]
        while (later := self.followed.get(seen[-1])) is not None and later not in seen:
            seen.append(later)
        return seen[1:]

    def id_of(self, fingerprint: str) -> str:
        """Return the id of the server that has, or had, this key."""
        before = {new: old for old, new in self.following.items() if not self.replaced(new)}
        before |= {new: old for old, new in self.followed.items()}
        seen = {fingerprint}
        while (old := before.get(fingerprint)) is not None and old not in seen:
            seen.add(old)
            fingerprint = old
        return fingerprint

    def replaced(self, fingerprint: str) -> bool:
        """Return True if another key has replaced this one. It can then follow none."""
        return fingerprint in self.followed

    def mentions(self, server_id: str) -> bool:
        """Return True if anything is known about a server with this id."""
        return server_id in self.following or server_id in self.followed


def lineage(lines: Iterable[list[str]]) -> Lineage:
    """Return the content of lines that were split into words."""
    following: dict[str, str] = {}
    followed: dict[str, str] = {}
    for _, kind, old, new in lines:
        (following if kind == NEXT_KEY_TYPE else followed)[old] = new
    return Lineage(following, followed)
