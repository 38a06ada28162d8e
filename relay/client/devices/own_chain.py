"""The links of this account's own device chain, which a client keeps in a file. No I/O.

A server that has lost some of them, for example because a backup was restored, gets them back.
"""

from __future__ import annotations

from collections.abc import Iterator

from relay.chat.accounts import links
from relay.chat.accounts.chain import Chain, Pin


class OwnChain:
    """The links as last seen, by a client that keeps them."""

    __slots__ = ("keeps", "links", "unsaved")

    def __init__(self) -> None:
        """Begin without links."""
        self.keeps = False
        """True if there is a file for them."""
        self.links: list[bytes] = []
        """As last seen; empty: not yet, or not kept."""
        self.unsaved: list[bytes] | None = None
        """To be kept in the file; None: unchanged."""

    def begin(self, kept: list[bytes], begun: list[bytes]) -> None:
        """A connection is logged in.

        Args:
            kept: the links in the file.
            begun: the root link, if this client has created the account: what was kept before
                belongs to one that was reset.
        """
        self.keeps = True
        if not self.links:
            self.links = begun or kept
            self.unsaved = begun or None

    def seen(self, packed: list[bytes]) -> None:
        """The chain was seen, and verified."""
        self.links = self.unsaved = list(packed)

    def extended(self, packed: bytes) -> None:
        """The chain has one more link, which this client has created."""
        link = links.parse(packed)
        if link.complete and self.links and links.hash_of(self.links[-1]) == link.body.previous:
            self.seen([*self.links, packed])

    def has(self, packed: list[bytes]) -> bool:
        """Return True if all of these links are known here."""
        return self.links[: len(packed)] == packed

    def lost(self, packed: list[bytes]) -> bool:
        """Return True if the server has only the beginning of what is known here."""
        return 0 < len(packed) < len(self.links) and self.has(packed)

    def pins(self, pinned: Pin | None, chains: list[Chain]) -> Iterator[Pin]:
        """Yield what this account's chain must extend: what was seen of it, and the kept links.

        The latter may belong to an account that was reset; then the pin decides.
        """
        if pinned is not None:
            yield pinned
        known = self.links
        if known and links.hash_of(known[0]) == chains[0].root:
            yield Pin(chains[0].root, len(known) - 1, links.hash_of(known[-1]))
