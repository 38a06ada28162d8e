"""A device key under a passphrase: scrypt (RFC 7914) derives the key of one AES-256-GCM record.

The passphrase is prepared like a password (RFC 8265, "OpaqueString"): in NFC, with one kind of
space. Otherwise what is typed at another keyboard or system, where an accent is a character of its
own, would be another passphrase. Nothing is prohibited: it never leaves this machine.
"""

from __future__ import annotations

import unicodedata
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from relay.errors import RelayError
from relay.secret import Secret

SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
COST: Final = 1 << 17
"""128 MiB and about 0.4 s: OWASP's recommendation for scrypt (Password Storage Cheat Sheet, 2025).
"""
COST_MAX: Final = 1 << 20
"""A file that requires more is refused: it would only exhaust the memory of its reader."""
_BLOCK: Final = 8
_AAD: Final = b"relay/1 device key"


class WrongPassphrase(RelayError):
    """The passphrase is wrong, or the file was changed."""


class SealedSeed(NamedTuple):
    """The stored values."""

    cost: int
    salt: bytes
    nonce: bytes
    sealed: bytes


def seal(seed: bytes, passphrase: str, salt: bytes, nonce: bytes) -> SealedSeed:
    """Encrypt a seed. Salt and nonce are fresh random bytes."""
    assert len(salt) == SALT_BYTES
    assert len(nonce) == NONCE_BYTES
    cipher = _cipher(prepared(passphrase), salt, COST)
    return SealedSeed(COST, salt, nonce, cipher.encrypt(nonce, seed, _AAD))


def unseal(kept: SealedSeed, passphrase: str) -> Secret:
    """Return the seed.

    What was sealed before passphrases were prepared is opened as well: by the passphrase as it was
    typed then, if this keyboard gives the same spaces: composed and decomposed characters are both
    tried.

    Raises:
        WrongPassphrase: it cannot be decrypted.
    """
    if not 2 <= kept.cost <= COST_MAX or kept.cost & (kept.cost - 1):
        raise WrongPassphrase("the key file asks for an impossible amount of work")
    as_typed = (unicodedata.normalize(form, passphrase) for form in ("NFC", "NFD"))
    forms = (prepared(passphrase), passphrase, *as_typed)
    for form in dict.fromkeys(forms):  # one for ASCII
        try:
            cipher = _cipher(form, kept.salt, kept.cost)
            return Secret(cipher.decrypt(kept.nonce, kept.sealed, _AAD))
        except (InvalidTag, ValueError):
            continue
    raise WrongPassphrase("the passphrase is wrong")


def prepared(passphrase: str) -> str:
    """Return the form of a passphrase from which keys are derived."""
    spaced = "".join(" " if unicodedata.category(one) == "Zs" else one for one in passphrase)
    return unicodedata.normalize("NFC", spaced)


def _cipher(passphrase: str, salt: bytes, cost: int) -> AESGCM:
    kdf = Scrypt(salt=salt, length=32, n=cost, r=_BLOCK, p=1)
    return AESGCM(kdf.derive(passphrase.encode()))
