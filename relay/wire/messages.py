"""The four handshake messages: layout only. Their meaning is in ``handshake``.

Every field has a fixed length unless it contains a length; a missing or trailing byte is an error.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from relay.errors import IllegalFrame, RemoteProtocolError
from relay.wire.frames import HEADER
from relay.wire.transcript import MAC_BYTES, POW_LABEL

MAGIC: Final = b"RLY1"
VERSION: Final = 1
SUITE: Final = 1
RANDOM_BYTES: Final = 32
X25519_BYTES: Final = 32
MLKEM_EK_BYTES: Final = 1184
MLKEM_CT_BYTES: Final = 1088
NONCE_BYTES: Final = 8
EXT_BYTES_MAX: Final = 256
EXT_SERVER_ID: Final = 1
"""An item of ServerHello's ext: H(spki) of the server's first key, if that is another one."""
SERVER_ID_BYTES: Final = 32
TICKET_BYTES_MAX: Final = 256
POW_BITS_MAX: Final = 16
"""A server may request no more, and a client refuses more: a tenth of a second of one core, so that
a man in the middle cannot keep a client busy."""
BEFORE_NONCE_BYTES: Final = 2 + RANDOM_BYTES + X25519_BYTES + MLKEM_EK_BYTES
"""The part of ClientKey's body that the proof of work covers: 1250 bytes."""
NO_BINDER: Final = bytes(MAC_BYTES)
FULL: Final = 0
RESUMED: Final = 1
TOO_SHORT: Final = "a handshake message is too short"
TOO_LONG: Final = "a handshake message is too long"

assert BEFORE_NONCE_BYTES == 1250


class Fields:
    """Reads fields from a handshake frame's body, strictly."""

    __slots__ = ("_at", "_data")

    def __init__(self, frame: bytes) -> None:
        self._data = frame
        self._at = HEADER

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        end = self._at + count
        if end > len(self._data):
            raise RemoteProtocolError(TOO_SHORT)
        value = self._data[self._at : end]
        self._at = end
        return value

    def u8(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def variable(self, maximum: int) -> bytes:
        """Return a field with a u16 length of at most ``maximum``."""
        length = int.from_bytes(self.take(2), "big")
        if length > maximum:
            raise RemoteProtocolError("a handshake field is too long")
        return self.take(length)

    def end(self) -> None:
        """Raise if bytes are left."""
        if self._at != len(self._data):
            raise RemoteProtocolError(TOO_LONG)


class ServerHello(NamedTuple):
    """The server sends first; this layout is frozen for all versions."""

    ver_min: int
    ver_max: int
    suite: int
    pow_bits: int
    server_random: bytes
    spki: bytes
    ext: bytes = b""

    def body(self) -> bytes:
        """Return the frame's body."""
        return b"".join(
            (
                MAGIC,
                bytes((self.ver_min, self.ver_max, self.suite, self.pow_bits)),
                self.server_random,
                len(self.spki).to_bytes(2, "big"),
                self.spki,
                len(self.ext).to_bytes(2, "big"),
                self.ext,
            )
        )

    @classmethod
    def parse(cls, frame: bytes) -> ServerHello:
        """Parse a frame. Raises RemoteProtocolError."""
        fields = Fields(frame)
        if fields.take(len(MAGIC)) != MAGIC:
            raise IllegalFrame("this is not a Relay server")
        hello = cls(
            fields.u8(),
            fields.u8(),
            fields.u8(),
            fields.u8(),
            fields.take(RANDOM_BYTES),
            fields.variable(len(frame)),
            fields.variable(EXT_BYTES_MAX),
        )
        fields.end()
        return hello


def pack_ext(server_id: bytes, spki_hash: bytes) -> bytes:
    """Return ServerHello's ext: empty as long as the first key is the server's key."""
    if server_id in (b"", spki_hash):
        return b""
    return bytes((EXT_SERVER_ID, len(server_id))) + server_id


def server_id_in(ext: bytes) -> bytes:
    """Return the id that an ext claims; empty: none.

    Raises:
        RemoteProtocolError: it is not a sequence of (type u8, length u8, that many bytes), or the
            id is malformed.
    """
    found = b""
    while ext:
        kind, length = ext[0], ext[1] if len(ext) > 1 else len(ext)
        value, ext = ext[2 : 2 + length], ext[2 + length :]
        if len(value) != length:
            raise RemoteProtocolError("a malformed extension")
        if kind == EXT_SERVER_ID:
            if found or length != SERVER_ID_BYTES:
                raise RemoteProtocolError("a malformed id of a server")
            found = value
    return found


class ClientKey(NamedTuple):
    """The client's session key, wrapped, and its ephemeral keys."""

    version: int
    suite: int
    client_random: bytes
    x25519_c: bytes
    mlkem_ek: bytes
    pow_nonce: bytes
    rsa_ct: bytes
    ticket: bytes
    binder: bytes

    def before_nonce(self) -> bytes:
        """Return the part covered by the proof of work."""
        return (
            bytes((self.version, self.suite)) + self.client_random + self.x25519_c + self.mlkem_ek
        )

    def body(self) -> bytes:
        """Return the frame's body."""
        return b"".join(
            (
                self.before_nonce(),
                self.pow_nonce,
                self.rsa_ct,
                len(self.ticket).to_bytes(2, "big"),
                self.ticket,
                self.binder,
            )
        )

    @classmethod
    def parse(cls, frame: bytes, modulus_bytes: int) -> ClientKey:
        """Parse a frame. Raises RemoteProtocolError."""
        head = _client_key_head(modulus_bytes)
        start = HEADER + head.size
        if len(frame) < start:
            raise RemoteProtocolError(TOO_SHORT)
        version, suite, random, x25519_c, mlkem_ek, pow_nonce, rsa_ct, ticket_bytes = (
            head.unpack_from(frame, HEADER)
        )
        if ticket_bytes > TICKET_BYTES_MAX:
            raise RemoteProtocolError("a handshake field is too long")
        end = start + ticket_bytes
        _check_size(frame, end + MAC_BYTES)
        key = cls(
            version, suite, random, x25519_c, mlkem_ek, pow_nonce, rsa_ct,
            frame[start:end], frame[end:],
        )  # fmt: skip
        if not key.ticket and key.binder != NO_BINDER:
            raise RemoteProtocolError("a binder without a ticket")
        return key


@lru_cache(8)
def _client_key_head(modulus_bytes: int) -> Struct:
    """Return what of ClientKey's body is the same for all clients: up to the ticket's length."""
    sizes = (RANDOM_BYTES, X25519_BYTES, MLKEM_EK_BYTES, NONCE_BYTES, modulus_bytes)
    return Struct("!BB" + "".join(f"{size}s" for size in sizes) + "H")


class ServerFinished(NamedTuple):
    """The server's ephemeral keys and the proof that it has the RSA key."""

    mode: int
    x25519_s: bytes
    mlkem_ct: bytes
    server_confirm: bytes

    def body(self) -> bytes:
        """Return the frame's body."""
        return bytes((self.mode,)) + self.x25519_s + self.mlkem_ct + self.server_confirm

    @classmethod
    def parse(cls, frame: bytes) -> ServerFinished:
        """Parse a frame. Raises RemoteProtocolError."""
        fields = Fields(frame)
        finished = cls(
            fields.u8(),
            fields.take(X25519_BYTES),
            fields.take(MLKEM_CT_BYTES),
            fields.take(MAC_BYTES),
        )
        fields.end()
        return finished


def parse_client_finished(frame: bytes) -> bytes:
    """Return client_confirm. Raises RemoteProtocolError."""
    _check_size(frame, HEADER + MAC_BYTES)
    return frame[HEADER:]


def _check_size(frame: bytes, size: int) -> None:
    """Raise RemoteProtocolError unless this is the size of a handshake message."""
    if len(frame) != size:
        raise RemoteProtocolError(TOO_SHORT if len(frame) < size else TOO_LONG)


def work_is_done(server_random: bytes, before_nonce: bytes, nonce: bytes, bits: int) -> bool:
    """Return True if a nonce solves the server's proof of work."""
    if bits == 0:
        return True
    digest = hashlib.sha256(
        POW_LABEL + server_random + hashlib.sha256(before_nonce).digest() + nonce
    ).digest()
    return int.from_bytes(digest[:4], "big") >> (32 - bits) == 0


class Work:
    """The search for a nonce: about 2 ** bits SHA-256 operations, in pieces of any size."""

    __slots__ = ("_base", "_next", "_shift")

    def __init__(self, server_random: bytes, before_nonce: bytes, bits: int) -> None:
        """Create. ``bits`` is 1 or more."""
        covered = hashlib.sha256(before_nonce).digest()
        self._base = hashlib.sha256(POW_LABEL + server_random + covered)
        self._shift = 32 - bits
        self._next = 0

    def attempt(self, count: int) -> bytes | None:
        """Try the next ``count`` nonces; return the right one, or None if it is not among them."""
        base, shift = self._base, self._shift
        for number in range(self._next, self._next + count):
            nonce = number.to_bytes(NONCE_BYTES, "big")
            digest = base.copy()
            digest.update(nonce)
            if int.from_bytes(digest.digest()[:4], "big") >> shift == 0:
                return nonce
        self._next += count
        return None

    def solve(self) -> bytes:
        """Return the nonce, however long it takes: for tools and tests."""
        while (nonce := self.attempt(1024)) is None:
            pass
        return nonce
