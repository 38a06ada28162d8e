"""The server's RSA identity: keys from and to bytes, the fingerprint, wrap and unwrap.

The SPKI that a client accepts is checked byte by byte (docs/protocol.md, "The pin decision"):
canonical DER, so that one key has one fingerprint, and limits that the library does not enforce.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from relay import limits
from relay.errors import RelayError
from relay.wire.transcript import NEXT_KEY_LABEL, RSA_LABEL

MODULUS_BITS_MIN: Final = 2048
MODULUS_BITS_MAX: Final = 8192
EXPONENT: Final = 65537
KEY_BITS_DEFAULT: Final = 3072
SPKI_BYTES_MAX: Final = 1100
"""An 8192-bit key has 1,062 bytes; more is refused before it is parsed."""
_RSA_ALGORITHM: Final = bytes.fromhex("300d06092a864886f70d0101010500")
"""AlgorithmIdentifier: rsaEncryption (1.2.840.113549.1.1.1) with NULL parameters."""


class IdentityError(RelayError):
    """A key that the protocol does not allow.

    The message explains why, and never contains the key.
    """


def fingerprint(spki: bytes) -> str:
    """Return SHA-256 of an SPKI as 52 characters of lowercase base32, without padding."""
    return fingerprint_of(hashlib.sha256(spki).digest())


def fingerprint_of(spki_hash: bytes) -> str:
    """Return the fingerprint of the key with this SHA-256 of its SPKI."""
    return base64.b32encode(spki_hash).decode().rstrip("=").lower()


def spki_hash_of(fingerprint: str) -> bytes:
    """Return the SHA-256 encoded by a well-formed fingerprint."""
    return base64.b32decode(fingerprint.upper() + "====")


def _oaep(label: bytes = RSA_LABEL) -> padding.OAEP:
    return padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=label)


class ServerPublicKey:
    """A checked RSA public key."""

    __slots__ = ("_key", "fingerprint", "modulus_bytes", "spki")

    def __init__(self, spki: bytes, modulus: int) -> None:
        self.spki = spki
        self.fingerprint = fingerprint(spki)
        self.modulus_bytes = (modulus.bit_length() + 7) // 8
        self._key = rsa.RSAPublicNumbers(EXPONENT, modulus).public_key()

    def wrap(self, secret: bytes) -> bytes:
        """Return RSA-OAEP of a 32-byte secret. OpenSSL itself randomises the padding."""
        if len(secret) != limits.SESSION_SECRET_BYTES:
            raise ValueError("the secret has 32 bytes")
        return self._key.encrypt(secret, _oaep())

    def challenge(self, secret: bytes) -> bytes:
        """Return a challenge with which only the holder of this key can prove another key."""
        return self._key.encrypt(secret, _oaep(NEXT_KEY_LABEL))

    def next_key_proof(self, secret: bytes, next_hash: bytes) -> bytes:
        """Return the correct proof for a challenge's secret."""
        return _next_key_proof(secret, hashlib.sha256(self.spki).digest(), next_hash)


def parse_spki(der: bytes) -> ServerPublicKey:
    """Check a DER SubjectPublicKeyInfo.

    Raises:
        IdentityError: not canonical DER of an RSA key, or outside the limits.
    """
    if len(der) > SPKI_BYTES_MAX:
        raise IdentityError("the server's key is too long")
    outer, rest = _element(der, 0x30)
    if rest:
        raise IdentityError("bytes behind the server's key")
    if not outer.startswith(_RSA_ALGORITHM):
        raise IdentityError("the server's key is not an RSA key")
    bits, rest = _element(outer[len(_RSA_ALGORITHM) :], 0x03)
    if rest or bits[:1] != b"\0":
        raise IdentityError("the server's key is not canonical DER")
    numbers, rest = _element(bits[1:], 0x30)
    if rest:
        raise IdentityError("the server's key is not canonical DER")
    modulus, rest = _integer(numbers)
    exponent, rest = _integer(rest)
    if rest:
        raise IdentityError("the server's key is not canonical DER")
    if exponent != EXPONENT:
        raise IdentityError("the server's key has another exponent than 65537")
    if modulus % 2 == 0 or not MODULUS_BITS_MIN <= modulus.bit_length() <= MODULUS_BITS_MAX:
        raise IdentityError("the server's key has an even modulus or not 2048 to 8192 bits")
    try:
        return ServerPublicKey(der, modulus)
    except ValueError:
        raise IdentityError("the server's key is refused by OpenSSL") from None


def _element(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return (content, rest) of one DER element (X.690 section 10.1: minimal definite lengths)."""
    if len(data) < 2 or data[0] != tag:
        raise IdentityError("the server's key is not canonical DER")
    first = data[1]
    if first < 0x80:
        start, length = 2, first
    else:
        count = first & 0x7F
        start = 2 + count
        octets = data[2:start]
        if not 1 <= count <= 2 or len(octets) != count or octets[0] == 0:
            raise IdentityError("the server's key is not canonical DER")
        length = int.from_bytes(octets, "big")
        if length < 0x80:
            raise IdentityError("the server's key is not canonical DER")
    if len(data) < start + length:
        raise IdentityError("the server's key is cut off")
    return data[start : start + length], data[start + length :]


def _integer(data: bytes) -> tuple[int, bytes]:
    """Return (value, rest) of a positive DER INTEGER in its minimal form (X.690 section 8.3)."""
    content, rest = _element(data, 0x02)
    padded = len(content) > 1 and content[0] == 0 and content[1] < 0x80
    if not content or content[0] >= 0x80 or padded:
        raise IdentityError("the server's key is not canonical DER")
    return int.from_bytes(content, "big"), rest


def _next_key_proof(secret: bytes, own_hash: bytes, next_hash: bytes) -> bytes:
    return hmac.digest(secret, NEXT_KEY_LABEL + b"\0" + own_hash + next_hash, "sha256")


class PrivateKey:
    """The server's RSA private key. Exists only in the key agent; it has no repr."""

    __slots__ = ("_key", "_random_bytes", "modulus_bytes", "spki")

    def __init__(self, key: rsa.RSAPrivateKey, random_bytes: Callable[[int], bytes]) -> None:
        self._key = key
        self._random_bytes = random_bytes
        self.spki = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.modulus_bytes = (key.key_size + 7) // 8

    def unwrap(self, ciphertext: bytes) -> bytes:
        """Return the 32-byte secret, or 32 random bytes for anything else (implicit rejection).

        The random bytes are created before the decryption, so that neither result, log line nor the
        order of work distinguishes a valid ciphertext from an invalid one.
        """
        return self._unwrap(ciphertext, RSA_LABEL)

    def self_test(self) -> None:
        """Check that the OpenSSL in use implements RSA-OAEP correctly, with this key.

        Raises:
            IdentityError: it does not; there is no fallback.
        """
        secret = self._random_bytes(limits.SESSION_SECRET_BYTES)
        try:
            ok = self.unwrap(parse_spki(self.spki).wrap(secret)) == secret
        except (UnsupportedAlgorithm, ValueError) as error:
            raise IdentityError(f"this OpenSSL lacks what Relay needs: {error}") from None
        if not ok:
            raise IdentityError("this OpenSSL computes wrong results")

    def prove_next(self, challenge: bytes, next_hash: bytes) -> bytes:
        """Return the proof that the key with this SHA-256 of its SPKI follows this one.

        For an invalid challenge it is as random as the secret that replaces it.
        """
        secret = self._unwrap(challenge, NEXT_KEY_LABEL)
        return _next_key_proof(secret, hashlib.sha256(self.spki).digest(), next_hash)

    def _unwrap(self, ciphertext: bytes, label: bytes) -> bytes:
        fake = self._random_bytes(limits.SESSION_SECRET_BYTES)
        try:
            secret = self._key.decrypt(ciphertext, _oaep(label))
        except ValueError:
            return fake
        return secret if len(secret) == limits.SESSION_SECRET_BYTES else fake

    def to_pem(self, passphrase: bytes = b"") -> bytes:
        """Return the key as PKCS#8 PEM, for a file of mode 0600; with a passphrase, encrypted."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase)
            if passphrase
            else serialization.NoEncryption(),
        )


def generate_private_key(
    random_bytes: Callable[[int], bytes], bits: int = KEY_BITS_DEFAULT
) -> PrivateKey:
    """Create a new server key."""
    return PrivateKey(rsa.generate_private_key(EXPONENT, bits), random_bytes)


def load_private_key(
    pem: bytes, random_bytes: Callable[[int], bytes], passphrase: bytes = b""
) -> PrivateKey:
    """Load a server key from PEM. The passphrase is ignored if the key is not encrypted.

    The library would test again that the factors are prime. That takes as long as many handshakes,
    and guards against a key from a stranger; this is the server's own. Damage is found all the
    same: by the equations between the key's numbers, and by ``PrivateKey.self_test``, which a
    factor that is not prime fails.

    Raises:
        IdentityError: not an RSA key that clients accept, or damaged, or its passphrase is missing
            or wrong.
    """
    encrypted = b"ENCRYPTED" in pem
    try:
        key = serialization.load_pem_private_key(
            pem, passphrase if encrypted else None, unsafe_skip_rsa_key_validation=True
        )
    except TypeError:
        raise IdentityError("the key is encrypted, and there is no passphrase for it") from None
    except (ValueError, UnsupportedAlgorithm):
        if encrypted and passphrase:
            raise IdentityError("the passphrase is wrong, or the key is damaged") from None
        if encrypted:
            raise IdentityError("the key is encrypted, and there is no passphrase for it") from None
        raise IdentityError("the file is not a PEM private key") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise IdentityError("the key is not an RSA key")
    private = PrivateKey(key, random_bytes)
    parse_spki(private.spki)
    if not _consistent(key.private_numbers()):
        raise IdentityError("the key is damaged")
    return private


def _consistent(key: rsa.RSAPrivateNumbers) -> bool:
    """Return True if the numbers of a key are computed from its factors (RFC 8017, section 3.2)."""
    p, q, d, public = key.p, key.q, key.d, key.public_numbers
    return (
        min(p, q) > 1
        and p * q == public.n
        and public.e * d % (p - 1) == 1
        and public.e * d % (q - 1) == 1
        and key.dmp1 == d % (p - 1)
        and key.dmq1 == d % (q - 1)
        and key.iqmp < p
        and key.iqmp * q % p == 1
    )


def self_test() -> None:
    """Check that the OpenSSL in use has every primitive of suite 1 except RSA: see ``PrivateKey``.

    Raises:
        IdentityError: one is missing or wrong; there is no fallback.
    """
    try:
        mlkem = MLKEM768PrivateKey.generate()
        shared, ciphertext = mlkem.public_key().encapsulate()
        ok = mlkem.decapsulate(ciphertext) == shared
        one, two = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        ok &= one.exchange(two.public_key()) == two.exchange(one.public_key())
        aead = AESGCM(bytes(32))
        ok &= aead.decrypt(bytes(12), aead.encrypt(bytes(12), b"x", b"y"), b"y") == b"x"
    except (UnsupportedAlgorithm, ValueError) as error:
        raise IdentityError(f"this OpenSSL lacks what Relay needs: {error}") from None
    if not ok:
        raise IdentityError("this OpenSSL computes wrong results")
