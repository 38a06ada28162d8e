"""Record protection for one direction: AES-256-GCM with an implicit, never repeated sequence.

The cipher owns its nonce counter, its usage limits and its rekey, so that no caller can reuse a
nonce (TLS: record protection; Noise: CipherState). ``seal`` creates a whole frame, ``open`` takes
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay import limits
from relay.errors import ForkedConnection, LocalProtocolError, RemoteProtocolError
from relay.wire import fork
from relay.wire.frames import FrameType
from relay.wire.key_schedule import IV_BYTES, KEY_BYTES, next_traffic_secret, traffic_keys

TYPE_BITS: Final = FrameType.RECORD << 24
FRAME_OVERHEAD: Final = 20
"""Of a record's frame, in bytes: its header, and the tag after the ciphertext."""
SEQUENCE_MAX: Final = 2**48 - 1
"""Far beyond every usage limit; reaching it is an error, never a wrap."""
RECORDS_AT_FIRST: Final = 4
"""What opens a connection: until then a direction is at rest."""
RECORDS_AT_REST: Final = 3
"""What a direction may be used for between two pings while staying at rest: a ping, an answer to
the peer's, and one more."""


class RecordType(IntEnum):
    """The type of a record's content."""

    APP = 1
    CLOSE = 2
    KEY_UPDATE = 3
    TICKET = 4
    PING = 5
    PONG = 6


APP: Final = int(RecordType.APP)


@dataclass(frozen=True, slots=True)
class RecordLimits:
    """Usage limits of one key. RFC 8446 section 5.5 allows 2^24.5 full records of AES-GCM."""

    records_max: int = 2**22
    bytes_max: int = 2**34
    age_s_max: float = 3600.0
    receive_records_max: int = 2**23
    receive_bytes_max: int = 2**35
    key_update_records_min: int = 256
    """A key update that comes after fewer records *and* sooner than the next is refused."""
    key_update_interval_s_min: float = 60.0


class AuthenticationFailed(RemoteProtocolError):
    """A record's tag is wrong: the connection ends without a close."""


def padded_size(inner: int) -> int:
    """Return the padded length of an inner plaintext of ``inner`` bytes (type byte included)."""
    if inner <= 1024:
        return 64 if inner <= 64 else 1 << (inner - 1).bit_length()
    return -(-inner // 1024) * 1024


def new_aead(key: bytes) -> AESGCM:
    """Return AES-256-GCM; the library would silently accept a 16-byte key."""
    if len(key) != KEY_BYTES:
        raise LocalProtocolError("an AES-256 key has 32 bytes")
    return AESGCM(key)


@final
class Padded:
    """The content of a record, padded once for sealing on any number of connections."""

    __slots__ = ("content", "head", "inner")

    def __init__(self, content: bytes, record_type: int = APP) -> None:
        """Pad it.

        Raises:
            LocalProtocolError: it is larger than a record may be.
        """
        size = len(content)
        if size > limits.RECORD_CONTENT_BYTES_MAX:
            raise LocalProtocolError(f"a record of {size} bytes")
        padded = padded_size(size + 1)
        self.content = content
        self.head = (TYPE_BITS | padded + 16).to_bytes(4, "big")
        """The header of its frame."""
        self.inner = content + _TAIL[record_type][: padded - size]
        """Its plaintext."""


class _Direction:
    """The common part of both directions: the generation's keys and their usage.

    The library's object for a key takes 2.4 KiB: for both directions, half of the memory of an idle
    connection. So a direction at rest only keeps its key, and creates an ``AESGCM`` for each
    record, which takes about 2 µs.
    """

    __slots__ = (
        "_aead", "_awake_from", "_iv", "_key", "_secret", "bytes_used", "limits", "sequence",
        "since",
    )  # fmt: skip

    def __init__(self, secret: bytes, record_limits: RecordLimits, now: float) -> None:
        self.limits = record_limits
        self._install(secret, now)

    def _install(self, secret: bytes, now: float) -> None:
        key, iv = traffic_keys(secret)
        if len(iv) != IV_BYTES:
            raise LocalProtocolError("a GCM nonce has 12 bytes")
        self._secret = secret
        self._key = key
        self._aead: AESGCM | None = None
        self._iv = int.from_bytes(iv, "big")
        self.sequence = 0
        self.bytes_used = 0
        self.since = now
        self._awake_from = RECORDS_AT_FIRST
        """The ``sequence`` from which on ``_aead`` is kept; it is None before."""

    def _new_aead(self, sequence: int) -> AESGCM:
        """Return the ``_aead`` for a record: created for it alone, or to be kept."""
        aead = new_aead(self._key)
        if sequence >= self._awake_from:
            self._aead = aead
        return aead

    def rest(self) -> None:
        """Keep only the key, unless it was used much since the last call.

        Called from time to time.
        """
        if self.sequence < self._awake_from:
            self._aead = None
        self._awake_from = self.sequence + RECORDS_AT_REST

    def update(self, now: float) -> None:
        """Switch to the next generation of keys; its sequence starts at 0."""
        self._install(next_traffic_secret(self._secret), now)


class SendCipher(_Direction):
    """Seals this side's records, only in the process that created it."""

    __slots__ = ("_generation", "bytes_max", "direct", "records_max", "until")

    def __init__(self, secret: bytes, record_limits: RecordLimits, now: float) -> None:
        super().__init__(secret, record_limits, now)
        self._generation = fork.generation()
        self.records_max = record_limits.records_max
        self.bytes_max = record_limits.bytes_max
        self.until = now + record_limits.age_s_max
        """When this key is too old."""
        self.direct = True
        """False while the owner has something to send first, or sends no app data (any more)."""

    def update(self, now: float) -> None:
        """Switch to the next generation of keys; its sequence starts at 0."""
        super().update(now)
        self.until = now + self.limits.age_s_max

    def seal(self, record_type: int, content: bytes) -> bytes:
        """Return a whole Record frame.

        Raises:
            LocalProtocolError: the content is larger than a record may be.
            ForkedConnection: this is a copy in a forked child, which would repeat nonces.
        """
        if self._generation != fork.generation():
            raise ForkedConnection
        padded = Padded(content, record_type)
        return self._sealed(padded.head, padded.inner)

    def seal_padded(self, padded: Padded, now: float) -> bytes:
        """Return a whole Record frame of app data, like ``seal``. Empty if ``update_due``, or if
        not ``direct``: then the owner must seal it.

        The check is repeated here because this is the hot path of a delivery. For the same reason
        a fork of which Python is not told is not looked for: a server's worker has none.
        """
        if not self.direct:
            return b""
        if self.sequence >= self.records_max or self.bytes_used >= self.bytes_max:
            return b""
        if now >= self.until:
            return b""
        return self._sealed(padded.head, padded.inner)

    def _sealed(self, head: bytes, inner: bytes) -> bytes:
        """Seal with the next nonce: no other function uses one for sealing."""
        if self._generation != fork.forks:
            raise ForkedConnection
        sequence = self.sequence
        if sequence > SEQUENCE_MAX:
            raise LocalProtocolError("the sequence of a key is used up")
        self.sequence = sequence + 1
        self.bytes_used += len(inner) + FRAME_OVERHEAD
        return head + (self._aead or self._new_aead(sequence)).encrypt(
            (self._iv ^ sequence).to_bytes(12, "big"), inner, head
        )

    def update_due(self, now: float) -> bool:
        """Return True if the next record requires a new key."""
        return (
            self.sequence >= self.records_max
            or self.bytes_used >= self.bytes_max
            or now >= self.until
        )


class ReceiveCipher(_Direction):
    """Opens the peer's records."""

    __slots__ = ("_updated",)

    def __init__(self, secret: bytes, record_limits: RecordLimits, now: float) -> None:
        super().__init__(secret, record_limits, now)
        self._updated = False

    def open(self, frame: bytes) -> tuple[int, bytes]:
        """Return (record type, content) of a whole Record frame.

        Raises:
            AuthenticationFailed: the tag is wrong. Nothing of the plaintext is exposed.
            RemoteProtocolError: no type byte, content too long, or the key was used too much.
        """
        bound = self.limits
        sequence = self.sequence
        self.bytes_used += len(frame)
        if sequence >= bound.receive_records_max or self.bytes_used > bound.receive_bytes_max:
            raise RemoteProtocolError("the peer uses a key beyond its limit")
        try:
            inner = (self._aead or self._new_aead(sequence)).decrypt(
                (self._iv ^ sequence).to_bytes(12, "big"), memoryview(frame)[4:], frame[:4]
            )
        except InvalidTag:
            raise AuthenticationFailed("a record does not authenticate") from None
        self.sequence = sequence + 1
        inner = inner.rstrip(b"\0")
        if not inner:
            raise RemoteProtocolError("a record without a type")
        if len(inner) - 1 > limits.RECORD_CONTENT_BYTES_MAX:
            raise RemoteProtocolError("a record's content is too long")
        return inner[-1], inner[:-1]

    def accept_update(self, now: float) -> None:
        """Follow the peer's key update.

        Raises:
            RemoteProtocolError: it is too soon after the previous one; the first is always legal.
        """
        bound = self.limits
        if (
            self._updated
            and self.sequence < bound.key_update_records_min
            and now - self.since < bound.key_update_interval_s_min
        ):
            raise RemoteProtocolError("key updates come too often")
        self._updated = True
        self.update(now)


# Type byte and the longest padding, once per type: the end of every plaintext is a slice of it.
_TAIL: Final = {int(t): bytes((t,)) + bytes(1024) for t in RecordType}
