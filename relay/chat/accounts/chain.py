"""The signed chain of an account's devices: the same rules for the home and for every reader.

A chain begins with a root link and is extended link by link; each link contains the hash of the
previous one. Its *root* is the hash of its first link and identifies the account. A reader
remembers a chain as a ``Pin`` and accepts only extensions of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from relay.chat.accounts import links
from relay.chat.accounts.links import Body, Kind, Link, LinkError, Verify

LINKS_MAX: Final = 256
"""Links of one chain. An ADD leaves room for the removal of all devices but one, so that a stolen
device cannot fill the chain up and stay."""


class Pin(NamedTuple):
    """What a reader remembers of a chain."""

    root: bytes
    number: int
    """Index of the last link; the root link has 0."""
    head: bytes
    """The hash of the last link."""


class Chain(NamedTuple):
    """A chain up to one of its links. Immutable: extending it creates another one."""

    server_id: bytes
    handle: str
    nonce: bytes
    root: bytes
    number: int
    head: bytes
    devices: dict[bytes, int]
    """Active keys, and the index of the link that added each. Must not be modified."""
    removed: frozenset[bytes]
    """Keys that can never be added again."""

    @property
    def pin(self) -> Pin:
        """What a reader remembers of it."""
        return Pin(self.root, self.number, self.head)

    def key_ids(self) -> set[bytes]:
        """Return the ids of all keys that were ever in it: old messages stay valid."""
        return {links.key_id(key) for key in (*self.devices, *self.removed)}

    def extended(self, link: Link, verify: Verify | None) -> Chain:
        """Return the chain with one more link.

        Args:
            link: a complete link.
            verify: checks signatures; None: they have been checked before.

        Raises:
            LinkError: it does not continue this chain.
        """
        self.check_next(link.body)
        if not link.complete:
            raise LinkError("the new key has not signed the link")
        if verify is not None and not link.verified(verify):
            raise LinkError("a link with a wrong signature")
        body = link.body
        devices, removed = dict(self.devices), self.removed
        if body.kind is Kind.ADD:
            devices[body.subject] = body.number
        else:
            del devices[body.subject]
            removed |= {body.subject}
        return self._replace(number=body.number, head=link.hash, devices=devices, removed=removed)

    def check_next(self, body: Body) -> None:
        """Check everything about the next link except its signatures.

        Raises:
            LinkError: it does not continue this chain.
        """
        same = (body.server_id, body.handle, body.nonce) == (
            self.server_id, self.handle, self.nonce,
        )  # fmt: skip
        if not same or body.kind is Kind.ROOT:
            raise LinkError("a link of another chain")
        if body.number != self.number + 1 or body.previous != self.head:
            raise LinkError("the device list has changed meanwhile")
        if body.signer not in self.devices:
            raise LinkError("signed by a key that is not a device of the account")
        if body.kind is Kind.ADD:
            if body.subject in self.devices or body.subject in self.removed:
                raise LinkError("this key is a device of the account already, or was one")
            if body.number + len(self.devices) >= LINKS_MAX:
                raise LinkError("the device list is full: an operator has to reset the account")
        elif body.subject not in self.devices:
            raise LinkError("this key is not a device of the account")
        elif len(self.devices) == 1:
            raise LinkError("the last device cannot be removed")
        elif body.number >= LINKS_MAX:
            raise LinkError("the device list is full: an operator has to reset the account")

    def next_body(self, kind: Kind, subject: bytes, signer: bytes) -> Body:
        """Return the content of the next link, to be signed.

        Raises:
            LinkError: this chain does not allow it.
        """
        body = Body(
            kind, self.server_id, self.handle, self.nonce, self.number + 1, self.head, subject,
            signer,
        )  # fmt: skip
        self.check_next(body)
        return body


def root_body(server_id: bytes, handle: str, nonce: bytes, key: bytes) -> Body:
    """Return the content of a chain's first link, to be signed by its key."""
    return Body(Kind.ROOT, server_id, handle, nonce, 0, links.NO_LINK, key, key)


def begun(link: Link, verify: Verify | None) -> Chain:
    """Return the chain of a root link.

    Raises:
        LinkError: it is not a root link, or its signature is wrong.
    """
    body = link.body
    if (
        body.kind is not Kind.ROOT
        or body.number != 0
        or body.previous != links.NO_LINK
        or body.signer != body.subject
    ):
        raise LinkError("not the first link of a chain")
    if verify is not None and not link.verified(verify):
        raise LinkError("a link with a wrong signature")
    root = link.hash
    devices = {body.subject: 0}
    return Chain(body.server_id, body.handle, body.nonce, root, 0, root, devices, frozenset())


class Reading:
    """A chain that is being read, some links at a time: to check a link takes up to 0.3 ms."""

    __slots__ = ("_packed", "chains", "looked_at")

    def __init__(self, packed: Sequence[bytes]) -> None:
        """Begin with the root."""
        self._packed = packed
        self.chains: list[Chain] = []
        """The chain after each of the links that were read."""
        self.looked_at = 0
        """How many links were read, with the false one."""

    @property
    def whole(self) -> bool:
        """True once all links were read."""
        return len(self.chains) == len(self._packed)

    def advance(self, most: int, verify: Verify) -> None:
        """Read the next links, at most so many.

        Raises:
            LinkError: they do not form a chain.
        """
        if len(self._packed) > LINKS_MAX:
            raise LinkError("a chain that is too long")
        chains = self.chains
        for packed in self._packed[len(chains) : len(chains) + most]:
            self.looked_at += 1
            link = links.parse(packed)
            chains.append(chains[-1].extended(link, verify) if chains else begun(link, verify))


def read(packed: Sequence[bytes], verify: Verify) -> list[Chain]:
    """Return the chain after each of its links, from the root on.

    Raises:
        LinkError: they do not form a chain.
    """
    reading = Reading(packed)
    reading.advance(len(packed), verify)
    return reading.chains


def extends(chains: list[Chain], pin: Pin) -> bool:
    """Return True if a chain that was read is the pinned one, or an extension of it."""
    return len(chains) > pin.number and chains[pin.number].pin == pin
