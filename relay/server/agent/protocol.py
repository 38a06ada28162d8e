"""The protocol between a worker and the key agent over a Unix-domain stream socket. Sans-I/O.

A frame consists of u16 length of the rest, u8 kind, u32 request id, and payload. The agent sends
HELLO first, then TICKET_KEYS at once and whenever there is a new key. Unknown kinds are skipped, so
that later versions may send more. Both ends come from one build: a malformed frame is a bug and
ends the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from relay.errors import RelayError
from relay.framing import FrameSplitter
from relay.secret import Secret
from relay.wire.tickets import KEY_ID_BYTES, TicketKey

_HEAD: Final = struct.Struct("!HBI")
_LENGTH_BYTES: Final = 2
_REST_BYTES_MIN: Final = _HEAD.size - _LENGTH_BYTES
PAYLOAD_BYTES_MAX: Final = 2048
"""An SPKI of 8192 bits has 1,062 bytes, a ciphertext 1,024."""
CIPHERTEXT_BYTES_MAX: Final = 1024
HASH_BYTES: Final = 32
SOURCE_BYTES_MAX: Final = 64
"""An address as text; IPv6 with a zone has at most 62."""


class Kind(IntEnum):
    """The kind of a frame."""

    HELLO = 1
    """Agent, once, id 0: see ``pack_hello``."""
    UNWRAP = 2
    """Worker: u8 length of the source, the source's address, the ciphertext."""
    SECRET = 3
    """Agent: 32 bytes for the request with this id; random if the ciphertext was invalid."""
    BUSY = 4
    """Agent: the request with this id was shed; there is no secret."""
    TICKET_KEYS = 5
    """Agent, id 0: the keys that seal tickets, the newest last."""
    PROVE = 6
    """Worker: as UNWRAP, with a challenge instead of the ciphertext."""
    PROOF = 7
    """Agent: 32 bytes for the request with this id, proving that the next key follows the server's.
    """


class Frame(NamedTuple):
    """One frame. ``kind`` is a plain number, since this build may not know it."""

    kind: int
    request: int
    payload: bytes


class AgentProtocolError(RelayError):
    """The peer sent something malformed."""


def pack(kind: Kind, request: int, payload: bytes = b"") -> bytes:
    """Return a frame's bytes."""
    assert len(payload) <= PAYLOAD_BYTES_MAX
    return _HEAD.pack(_REST_BYTES_MIN + len(payload), kind, request) + payload


class Identity(NamedTuple):
    """The identity of the server."""

    server_id: bytes
    """SHA-256 of the SPKI of its first key."""
    next_hash: bytes
    """SHA-256 of the SPKI of the next key; empty: none."""
    spki: bytes


def pack_hello(identity: Identity) -> bytes:
    """Return a HELLO frame."""
    next_hash = identity.next_hash or bytes(HASH_BYTES)
    return pack(Kind.HELLO, 0, identity.server_id + next_hash + identity.spki)


def unpack_hello(payload: bytes) -> Identity:
    """Return the content of a HELLO.

    Raises:
        AgentProtocolError: malformed.
    """
    server_id, next_hash = payload[:HASH_BYTES], payload[HASH_BYTES : 2 * HASH_BYTES]
    spki = payload[2 * HASH_BYTES :]
    if not spki:
        raise AgentProtocolError("malformed hello")
    return Identity(server_id, b"" if next_hash == bytes(HASH_BYTES) else next_hash, spki)


def pack_question(kind: Kind, request: int, ciphertext: bytes, source: str) -> bytes:
    """Return an UNWRAP or PROVE frame. The source is truncated to what the frame can carry."""
    if len(ciphertext) > CIPHERTEXT_BYTES_MAX:
        raise ValueError("the ciphertext is too long")
    name = source.encode(errors="replace")[:SOURCE_BYTES_MAX]
    return pack(kind, request, bytes((len(name),)) + name + ciphertext)


def unpack_question(payload: bytes) -> tuple[bytes, str]:
    """Return (ciphertext, source).

    Raises:
        AgentProtocolError: malformed.
    """
    length = payload[0] if payload else SOURCE_BYTES_MAX + 1
    ciphertext = payload[1 + length :]
    if length > SOURCE_BYTES_MAX or not 0 < len(ciphertext) <= CIPHERTEXT_BYTES_MAX:
        raise AgentProtocolError("malformed request")
    return ciphertext, payload[1 : 1 + length].decode(errors="replace")


_TICKET_KEY: Final = struct.Struct(f"!Q{KEY_ID_BYTES}s32sd")


def pack_ticket_keys(keys: Iterable[TicketKey]) -> bytes:
    """Return a TICKET_KEYS frame."""
    return pack(Kind.TICKET_KEYS, 0, ticket_keys_payload(keys))


def ticket_keys_payload(keys: Iterable[TicketKey]) -> bytes:
    """Return what such a frame holds."""
    return b"".join(_TICKET_KEY.pack(*key) for key in keys)


def unpack_ticket_keys(payload: bytes) -> list[TicketKey]:
    """Return the keys of a TICKET_KEYS frame.

    Raises:
        AgentProtocolError: malformed.
    """
    if len(payload) % _TICKET_KEY.size:
        raise AgentProtocolError("malformed ticket keys")
    return [
        TicketKey(generation, key_id, Secret(key), expires)
        for generation, key_id, key, expires in _TICKET_KEY.iter_unpack(payload)
    ]


class FrameReader(FrameSplitter):
    """Splits received bytes into frames."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_LENGTH_BYTES)

    def frame_bytes(self, header: bytes | bytearray) -> int:
        """See ``FrameSplitter``."""
        length = int.from_bytes(header, "big")
        if not _REST_BYTES_MIN <= length <= _REST_BYTES_MIN + PAYLOAD_BYTES_MAX:
            raise AgentProtocolError("malformed frame")
        return _LENGTH_BYTES + length

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes, and return the frames that are complete.

        Raises:
            AgentProtocolError: an invalid length. The connection is no longer usable.
        """
        self.feed_bytes(data)
        frames: list[Frame] = []
        while (whole := self.next_frame()) is not None:
            _, kind, request = _HEAD.unpack_from(whole)
            # The payload of a SECRET is one; payloads of other kinds need not be shown either.
            frames.append(Frame(kind, request, Secret(whole[_HEAD.size :])))
        return frames
