"""Ciphertexts of five kinds: one that the key agent can open, and four that it cannot.

All are numbers below the modulus: others can be recognised without the key, and OpenSSL refuses
them before it uses any secret.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from relay.wire.identity import parse_spki
from tests.support.pair import server_key

KINDS: Final = ("valid", "random", "another length", "another label", "PKCS#1 v1.5")


def ciphertext(kind: str, secret: bytes, spki: bytes = b"") -> bytes:
    """A ciphertext of a kind, for 32 bytes, under a key (the tests' own by default)."""
    public = load_der_public_key(spki or server_key().spki)
    size = parse_spki(spki or server_key().spki).modulus_bytes
    if kind == "valid":
        return parse_spki(spki or server_key().spki).wrap(secret)
    if kind == "random":
        return b"\0" + (secret * (size // 32 + 1))[: size - 1]
    if kind == "PKCS#1 v1.5":
        old: bytes = public.encrypt(secret, padding.PKCS1v15())  # type: ignore[union-attr]
        return old
    label = b"relay/1 session key" if kind == "another length" else b"another label"
    wrapped = secret[:31] if kind == "another length" else secret
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=label)
    sealed: bytes = public.encrypt(wrapped, oaep)  # type: ignore[union-attr]
    return sealed
