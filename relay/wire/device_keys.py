"""Device keys: Ed25519, refusing points for which a signature would prove nothing.

The library accepts small-order points and non-canonical encodings; for some of them one constant
signature is valid for every message. They are refused wherever a public key comes from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from relay.errors import RelayError
from relay.secret import Secret

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
_SIGN_BIT: Final = 1 << 255
_P: Final = 2**255 - 19
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    )
)
"""With bit 255 cleared: the points of small order, in all existing encodings."""


class DeviceKeyError(RelayError):
    """Bytes that are not a valid public key of a device."""


def check_public_key(key: bytes) -> None:
    """Check the encoding of a public key.

    Raises:
        DeviceKeyError: wrong length, small order, or not canonical.
    """
    if len(key) != KEY_BYTES:
        raise DeviceKeyError("a device key has 32 bytes")
    number = int.from_bytes(key, "little") & (_SIGN_BIT - 1)
    if number.to_bytes(KEY_BYTES, "little") in _SMALL_ORDER:
        raise DeviceKeyError("a device key of small order")
    if number >= _P:
        raise DeviceKeyError("a device key that is not canonical")


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    """Return True if a signature is valid. False also for an invalid key."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        check_public_key(key)
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (DeviceKeyError, InvalidSignature, ValueError):
        return False
    return True


class PrivateDeviceKey:
    """A device's private key. It has no repr."""

    __slots__ = ("_key", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        """Create the key from a seed.

        Args:
            seed: 32 random bytes: the secret itself (RFC 8032, section 5.1.5).
        """
        if len(seed) != KEY_BYTES:
            raise ValueError("a seed has 32 bytes")
        self.seed = Secret(seed)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes]) -> PrivateDeviceKey:
        """Create a new key."""
        return cls(random_bytes(KEY_BYTES))

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message: 64 bytes."""
        return self._key.sign(message)
