"""Derives keys from shared secrets and the transcript (docs/protocol.md, "Key schedule").

HKDF is RFC 5869 with SHA-256; ``expand_label`` has the form of RFC 8446 section 7.1 with Relay's
own prefix, so no value can be mistaken for one of TLS.
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from relay.secret import Secret

HASH_BYTES: Final = 32
KEY_BYTES: Final = 32
IV_BYTES: Final = 12
LABEL_PREFIX: Final = b"relay1 "
ZEROS: Final = bytes(HASH_BYTES)
EMPTY_HASH: Final = sha256(b"").digest()


def extract(salt: bytes, ikm: bytes) -> bytes:
    """HKDF-Extract (RFC 5869 section 2.2): HMAC-SHA256 of the input under the salt."""
    return hmac.digest(salt, ikm, "sha256")


def expand(secret: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand (RFC 5869 section 2.3), ``length`` in bytes.

    Written out: the library's object costs six times as much as the HMAC.

    Raises:
        ValueError: more than 255 hashes.
    """
    if length > 255 * HASH_BYTES:
        raise ValueError("HKDF-Expand gives at most 255 hashes: 8160 bytes")
    block = output = b""
    for count in range(1, -(-length // HASH_BYTES) + 1):
        block = hmac.digest(secret, block + info + bytes((count,)), "sha256")
        output += block
    return output[:length]


def expand_label(
    secret: bytes, label: str, context: bytes, length: int, prefix: bytes = LABEL_PREFIX
) -> bytes:
    """``L(s, label, ctx, n)`` of the specification. ``prefix`` varies for RFC 8448's values."""
    use = _use(label, length, len(context), prefix)
    if length > HASH_BYTES:
        return expand(secret, use + context, length)
    # One HMAC, without another call: fourteen times per handshake.
    return hmac.digest(secret, use + context + b"\1", "sha256")[:length]


@lru_cache(64)
def _use(label: str, length: int, context_bytes: int, prefix: bytes) -> bytes:
    """Return the part of the info that is the same in all handshakes."""
    full = prefix + label.encode("ascii")
    return length.to_bytes(2, "big") + bytes((len(full),)) + full + bytes((context_bytes,))


_EARLY: Final = extract(ZEROS, ZEROS)
_DERIVED: Final = expand_label(_EARLY, "derived", EMPTY_HASH, HASH_BYTES)
"""Without a ticket these two are the same in all handshakes, and no secrets."""


def early_secret(psk: bytes = ZEROS) -> bytes:
    """ES: from the ticket's key, or from zeros without one."""
    return _EARLY if psk is ZEROS else extract(ZEROS, psk)


def handshake_secret(early: bytes, secret: bytes, x25519: bytes, mlkem: bytes) -> bytes:
    """HS: from the client's secret and both ephemeral ones, always 96 bytes in total."""
    ikm = secret + x25519 + mlkem
    assert len(ikm) == 96, "each of the three secrets has 32 bytes"
    if early is _EARLY:
        return extract(_DERIVED, ikm)
    return extract(expand_label(early, "derived", EMPTY_HASH, HASH_BYTES), ikm)


def confirmation(secret: bytes, label: str, transcript: bytes) -> bytes:
    """server_confirm (label "s confirm", T2) or client_confirm ("c confirm", T3)."""
    key = expand_label(secret, label, transcript, HASH_BYTES)
    return hmac.digest(key, transcript, "sha256")


class SessionSecrets(NamedTuple):
    """The remaining secrets of a handshake."""

    client: Secret
    server: Secret
    exporter: Secret


def session_secrets(secret: bytes, t3: bytes) -> SessionSecrets:
    """Derive both directions' first traffic secrets and the exporter from HS."""
    return SessionSecrets(
        Secret(expand_label(secret, "c ap", t3, HASH_BYTES)),
        Secret(expand_label(secret, "s ap", t3, HASH_BYTES)),
        Secret(expand_label(secret, "exporter", t3, HASH_BYTES)),
    )


def resumption_secret(secret: bytes, t4: bytes) -> Secret:
    """RMS, from which the secrets of tickets are derived."""
    return Secret(expand_label(secret, "resumption", t4, HASH_BYTES))


def ticket_secret(resumption: bytes, ticket_nonce: bytes) -> Secret:
    """PSK: the secret of a ticket, from RMS and the nonce sent with it."""
    return Secret(expand_label(resumption, "ticket", ticket_nonce, HASH_BYTES))


def binder(early: bytes, t0: bytes) -> bytes:
    """Prove that the client offering a ticket knows its secret, on this connection."""
    return hmac.digest(expand_label(early, "res binder", b"", HASH_BYTES), t0, "sha256")


def traffic_keys(traffic_secret: bytes) -> tuple[bytes, bytes]:
    """Return (key, iv) of one generation of one direction."""
    key = expand_label(traffic_secret, "key", b"", KEY_BYTES)
    return key, expand_label(traffic_secret, "iv", b"", IV_BYTES)


def next_traffic_secret(traffic_secret: bytes) -> bytes:
    """Return the traffic secret of the next generation."""
    return expand_label(traffic_secret, "traffic upd", b"", HASH_BYTES)


def login_binding(exporter: bytes, spki: bytes) -> bytes:
    """The value that login signatures are bound to: this connection and this server key."""
    return Secret(expand_label(exporter, "client login", _hash_of(spki), HASH_BYTES))


@lru_cache(8)
def _hash_of(spki: bytes) -> bytes:
    """Return the hash of a server's key, which is the same in all handshakes of a server."""
    return sha256(spki).digest()
