"""One link of a device chain: exact bytes (docs/protocol.md, "The device chain").

A link is signed as it is, so that every reader of a chain can verify it: it contains nothing about
a connection. Signatures are made and checked in the wire package; the functions are passed in.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from relay import limits
from relay.chat import names

LABEL: Final = b"relay/1 device link\0"
VERSION: Final = 1
ED25519: Final = 1
"""The only type of key."""
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
HASH_BYTES: Final = 32
NONCE_BYTES: Final = 16
NO_LINK: Final = bytes(HASH_BYTES)
"""The previous hash of the first link."""
LINK_BYTES_MAX: Final = (
    len(LABEL) + 2 + HASH_BYTES + 1 + limits.NAME_CHARS_MAX + NONCE_BYTES + 2 + HASH_BYTES
    + 2 * (1 + KEY_BYTES) + 2 * SIGNATURE_BYTES
)  # fmt: skip

Verify: TypeAlias = Callable[[bytes, bytes, bytes], bool]
"""(key, signature, message) -> whether it is valid. False also for a key that must not be used."""


class LinkError(Exception):
    """Bytes that are not a link, or a link that does not continue its chain."""


class Kind(IntEnum):
    """The kind of a link."""

    ROOT = 1
    """Begins the chain with its first key, which signs itself."""
    ADD = 2
    """Signed by a device of the chain and by the new key."""
    REMOVE = 3
    """Signed by a device of the chain."""


_SIGNATURES: Final = {Kind.ROOT: 1, Kind.ADD: 2, Kind.REMOVE: 1}


class Body(NamedTuple):
    """The content of a link: the bytes covered by its signatures."""

    kind: Kind
    server_id: bytes
    handle: str
    nonce: bytes
    """Of the root: the same in all links of a chain."""
    number: int
    """0 for the root."""
    previous: bytes
    """The hash of the previous link."""
    subject: bytes
    """The key that is added or removed."""
    signer: bytes

    def packed(self) -> bytes:
        """Return the bytes that are signed."""
        name = self.handle.encode("ascii")
        return b"".join(
            (
                LABEL,
                bytes((VERSION, self.kind)),
                self.server_id,
                bytes((len(name),)),
                name,
                self.nonce,
                self.number.to_bytes(2, "big"),
                self.previous,
                bytes((ED25519,)),
                self.subject,
                bytes((ED25519,)),
                self.signer,
            )
        )


class Link(NamedTuple):
    """A parsed link."""

    body: Body
    packed: bytes
    """All of it, including signatures."""
    signed: bytes
    """The bytes covered by the signatures."""
    signatures: tuple[bytes, ...]
    """Of the signer; then, for ADD, of the new key."""

    @property
    def hash(self) -> bytes:
        """The value that the next link contains as its previous hash."""
        return hash_of(self.packed)

    @property
    def complete(self) -> bool:
        """False for an offer: an ADD that its new key has not signed yet."""
        return len(self.signatures) == _SIGNATURES[self.body.kind]

    def verified(self, verify: Verify) -> bool:
        """Return True if all signatures present are valid."""
        body = self.body
        return all(
            verify(key, signature, self.signed)
            for key, signature in zip((body.signer, body.subject), self.signatures, strict=False)
        )


def hash_of(packed: bytes) -> bytes:
    """Return the hash of a link's bytes."""
    return hashlib.sha256(packed).digest()


def key_id(key: bytes) -> bytes:
    """Return the id of a device in entries: the first 16 bytes of SHA-256 of its key."""
    return hashlib.sha256(key).digest()[: limits.KEY_ID_BYTES]


@functools.lru_cache(maxsize=16)
def _shared(server_id: bytes) -> bytes:
    """Return one object for equal values: all accounts of a server have one id."""
    return server_id


def parse(packed: bytes) -> Link:
    """Parse a link, strictly. An ADD may lack the new key's signature (an offer).

    Raises:
        LinkError: it is invalid.
    """
    fields = _Fields(packed)
    if fields.take(len(LABEL)) != LABEL or fields.u8() != VERSION:
        raise LinkError("not a link of this version")
    number = fields.u8()
    if number not in _SIGNATURES:
        raise LinkError("a link of an unknown kind")
    kind = Kind(number)
    server_id = _shared(fields.take(HASH_BYTES))
    name = fields.take(fields.u8())
    if not name.isascii() or not names.is_handle(name.decode("ascii")):
        raise LinkError("a link with an illegal name")
    body = Body(
        kind,
        server_id,
        names.shared(name.decode("ascii")),
        fields.take(NONCE_BYTES),
        int.from_bytes(fields.take(2), "big"),
        fields.take(HASH_BYTES),
        fields.key(),
        fields.key(),
    )
    signed = packed[: fields.at]
    count, rest = divmod(len(packed) - fields.at, SIGNATURE_BYTES)
    offer = kind is Kind.ADD and count == 1
    if rest or (count != _SIGNATURES[kind] and not offer):
        raise LinkError("a link with a wrong number of signatures")
    signatures = tuple(fields.take(SIGNATURE_BYTES) for _ in range(count))
    return Link(body, packed, signed, signatures)


class _Fields:
    """Reads fields one after the other."""

    def __init__(self, data: bytes) -> None:
        if len(data) > LINK_BYTES_MAX:
            raise LinkError("a link that is too long")
        self._data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self._data):
            raise LinkError("a link that is cut off")
        value = self._data[self.at : end]
        self.at = end
        return value

    def u8(self) -> int:
        return self.take(1)[0]

    def key(self) -> bytes:
        if self.u8() != ED25519:
            raise LinkError("a key of an unknown type")
        return self.take(KEY_BYTES)
