"""The server's key: what a client accepts, fingerprints, implicit rejection, loading."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable
from functools import cache
from math import gcd

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from relay.wire import identity
from relay.wire.identity import (
    IdentityError,
    PrivateKey,
    ServerPublicKey,
    fingerprint,
    load_private_key,
    parse_spki,
    self_test,
)
from tests.support.pair import other_key, server_key, stream

RSA_OID = "06092a864886f70d010101"
PSS_OID = "06092a864886f70d01010a"
NULL = "0500"


# --- DER, written by hand so that it can be wrong -----------------------------------------------
def length(size: int) -> bytes:
    if size < 0x80:
        return bytes((size,))
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets


def der(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + length(len(content)) + content


def integer(value: int, zeros: int = 0) -> bytes:
    return der(2, bytes(zeros) + value.to_bytes(value.bit_length() // 8 + 1, "big"))


def spki(
    n: int | None = None,
    e: int = 65537,
    *,
    algorithm: str = RSA_OID + NULL,
    unused_bits: int = 0,
    zeros: int = 0,
    inside: bytes = b"",
    behind: bytes = b"",
) -> bytes:
    """Return a SubjectPublicKeyInfo, valid by default."""
    numbers = integer(modulus() if n is None else n, zeros) + integer(e) + inside
    bits = der(3, bytes((unused_bits,)) + der(0x30, numbers))
    return der(0x30, der(0x30, bytes.fromhex(algorithm)) + bits) + behind


def rebuilt(
    exponent: bytes = b"\x02\x03\x01\x00\x01", numbers_behind: bytes = b"", bits_behind: bytes = b""
) -> bytes:
    """Return the valid key with one element replaced or added, and all lengths around it
    adjusted.
    """
    numbers = der(0x30, integer(modulus()) + exponent) + numbers_behind
    bits = der(3, b"\0" + numbers) + bits_behind
    return der(0x30, der(0x30, bytes.fromhex(RSA_OID + NULL)) + bits)


@cache
def modulus() -> int:
    key = serialization.load_der_public_key(server_key().spki)
    assert isinstance(key, rsa.RSAPublicKey)
    return key.public_numbers().n


def test_the_hand_written_der_is_right() -> None:
    assert spki() == rebuilt() == server_key().spki
    parsed = parse_spki(spki())
    assert parsed.spki == spki()
    assert parsed.modulus_bytes == 256


@pytest.mark.parametrize("bits", [2048, 2049, 3072, 4096, 8192])
def test_sizes_that_are_accepted(bits: int) -> None:
    parsed = parse_spki(spki((1 << bits - 1) + 0x1234567))
    assert parsed.modulus_bytes == (bits + 7) // 8


WRONG = {
    "empty": b"",
    "one byte": b"\x30",
    "512 bits": spki((1 << 511) + 1),
    "1024 bits": spki((1 << 1023) + 1),
    "2047 bits": spki((1 << 2046) + 1),
    "8193 bits": spki((1 << 8192) + 1),
    "16384 bits": spki((1 << 16383) + 1),
    "even modulus": spki(1 << 2047),
    "zero modulus": spki(0),
    "e = 3": spki(e=3),
    "e = 1": spki(e=1),
    "e = 65539": spki(e=65539),
    "no NULL parameters": spki(algorithm=RSA_OID),
    "RSASSA-PSS": spki(algorithm=PSS_OID),
    "RSASSA-PSS with NULL": spki(algorithm=PSS_OID + NULL),
    "unused bits": spki(unused_bits=1),
    "padded modulus": spki(zeros=1),
    "a third integer": spki(inside=integer(1)),
    "byte behind": spki(behind=b"\0"),
    "bytes behind the numbers": rebuilt(numbers_behind=b"\x05\x00"),
    "bytes behind the bit string": rebuilt(bits_behind=b"\x05\x00"),
    "e in the long form": rebuilt(exponent=b"\x02\x81\x03\x01\x00\x01"),
    "e in a longer form": rebuilt(exponent=b"\x02\x82\x00\x03\x01\x00\x01"),
    "e with a zero in front": rebuilt(exponent=b"\x02\x04\x00\x01\x00\x01"),
    "an empty e": rebuilt(exponent=b"\x02\x00"),
    "twice": spki() + spki(),
    "64 KiB": spki(behind=bytes(65_536)),
    "indefinite length": b"\x30\x80" + spki()[4:] + b"\0\0",
    "long form where short would do": b"\x30\x81\x05" + bytes(5),
    "length with a leading zero": b"\x30\x83\x00" + spki()[2:],
    "four length bytes": b"\x30\x84\x00\x00" + spki()[2:],
    "set instead of sequence": b"\x31" + spki()[1:],
    "negative modulus": spki().replace(b"\x02\x82\x01\x01\x00", b"\x02\x82\x01\x00", 1),
    "EC": ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ),
    "Ed25519": ed25519.Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ),
    "PKCS#1": der(0x30, integer((1 << 2047) + 1) + integer(65537)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_keys_that_are_refused(case: str) -> None:
    with pytest.raises(IdentityError):
        parse_spki(WRONG[case])


def test_every_prefix_and_every_flipped_bit() -> None:
    """No exception but IdentityError, and no other encoding of the same key is accepted."""
    good = spki()
    for end in range(len(good)):
        with pytest.raises(IdentityError):
            parse_spki(good[:end])
    accepted = 0
    for index in range(len(good)):
        changed = bytearray(good)
        changed[index] ^= 1 << index % 8
        try:
            parsed = parse_spki(bytes(changed))
        except IdentityError:
            continue
        accepted += 1
        assert parsed.fingerprint != fingerprint(good)
        assert parsed.spki == bytes(changed)
    assert accepted > 200, "another odd modulus is another key, and legal"


@given(st.binary(max_size=400))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    for text in (data, b"\x30" + length(len(data)) + data, spki()[:19] + data):
        with pytest.raises(IdentityError):
            parse_spki(text)


# --- fingerprint ------------------------------------------------------------------------------
def test_fingerprint() -> None:
    assert fingerprint(b"") == "4oymiquy7qobjgx36tejs35zeqt24qpemsnzgtfeswmrw6csxbkq"
    assert re.fullmatch("[a-z2-7]{52}", parse_spki(spki()).fingerprint)


# --- wrap and unwrap --------------------------------------------------------------------------
def test_wrap_and_unwrap() -> None:
    secret = bytes(range(32))
    public = parse_spki(server_key().spki)
    ciphertext = public.wrap(secret)
    assert len(ciphertext) == public.modulus_bytes
    assert server_key().unwrap(ciphertext) == secret
    assert public.wrap(secret) != ciphertext


@pytest.mark.parametrize("size", [0, 31, 33])
def test_only_secrets_of_32_bytes_are_wrapped(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        parse_spki(server_key().spki).wrap(bytes(size))


def oaep(
    digest: hashes.HashAlgorithm, label: bytes | None = b"relay/1 session key"
) -> padding.OAEP:
    return padding.OAEP(mgf=padding.MGF1(digest), algorithm=digest, label=label)


def bad_ciphertexts() -> dict[str, bytes]:
    """Return values that look like ciphertexts and are invalid."""
    key = rsa.RSAPublicNumbers(65537, modulus()).public_key()
    secret = bytes(range(32))
    right = oaep(hashes.SHA256())
    n = modulus()
    return {
        "all zero": bytes(256),
        "one": bytes(255) + b"\1",
        "n - 1": (n - 1).to_bytes(256, "big"),
        "n": n.to_bytes(256, "big"),
        "above n": b"\xff" * 256,
        "31 bytes": key.encrypt(secret[:31], right),
        "33 bytes": key.encrypt(secret + b"\0", right),
        "no bytes": key.encrypt(b"", right),
        "190 bytes": key.encrypt(bytes(190), right),
        "no label": key.encrypt(secret, oaep(hashes.SHA256(), None)),
        "another label": key.encrypt(secret, oaep(hashes.SHA256(), b"relay/2 session key")),
        "SHA-1": key.encrypt(secret, oaep(hashes.SHA1())),  # noqa: S303
        "PKCS#1 v1.5": key.encrypt(secret, padding.PKCS1v15()),
        "another key's": parse_spki(other_key().spki).wrap(secret),
        "too short": bytes(255),
        "too long": bytes(257),
        "empty": b"",
    }


@pytest.mark.parametrize("case", bad_ciphertexts())
def test_implicit_rejection(case: str) -> None:
    """Any other ciphertext yields 32 random bytes, new ones each time, and no error."""
    key, ciphertext = server_key(), bad_ciphertexts()[case]
    found = {key.unwrap(ciphertext) for _ in range(3)}
    assert len(found) == 3
    assert all(len(secret) == 32 for secret in found)
    assert bytes(range(32)) not in found


def test_the_random_bytes_are_drawn_for_a_valid_ciphertext_too() -> None:
    """The order of operations does not depend on validity."""
    drawn: list[int] = []

    def random_bytes(count: int) -> bytes:
        drawn.append(count)
        return bytes(count)

    key = PrivateKey(server_key()._key, random_bytes)
    key.unwrap(parse_spki(key.spki).wrap(bytes(32)))
    key.unwrap(bytes(256))
    assert drawn == [32, 32]


# --- loading ----------------------------------------------------------------------------------
def pem(key: object, password: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(  # type: ignore[attr-defined,no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def test_a_key_survives_its_file() -> None:
    again = load_private_key(server_key().to_pem(), stream("x"))
    assert again.spki == server_key().spki
    assert again.modulus_bytes == 256
    assert again.unwrap(parse_spki(again.spki).wrap(b"s" * 32)) == b"s" * 32


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (lambda: b"", "not a PEM"),
        (lambda: b"garbage", "not a PEM"),
        (lambda: server_key().to_pem()[:300], "not a PEM"),
        (lambda: pem(ed25519.Ed25519PrivateKey.generate()), "not an RSA key"),
        (lambda: pem(rsa.generate_private_key(65537, 1024)), "2048 to 8192"),  # noqa: S505
        (lambda: pem(rsa.generate_private_key(3, 2048)), "65537"),
        (lambda: pem(ed25519.Ed25519PrivateKey.generate(), b"secret"), "encrypted"),
    ],
    ids=itertools.count(),
)
def test_files_that_are_refused(data: Callable[[], bytes], why: str) -> None:
    with pytest.raises(IdentityError, match=why):
        load_private_key(data(), stream("x"))


@pytest.mark.parametrize("number", ["n", "p", "q", "d", "dmp1", "dmq1", "iqmp"])
def test_a_key_with_a_damaged_number_is_refused(number: str) -> None:
    """OpenSSL alone would use most of them, for it repairs wrong results by a slower way."""
    value = _numbers()[number]
    before, after = (one.to_bytes((value.bit_length() + 7) // 8) for one in (value, value ^ 2))
    der = base64.b64decode("".join(server_key().to_pem().decode().splitlines()[1:-1]))
    assert der.count(before) == 1
    text = base64.encodebytes(der.replace(before, after))
    damaged = b"-----BEGIN PRIVATE KEY-----\n" + text + b"-----END PRIVATE KEY-----\n"
    with pytest.raises(IdentityError, match="damaged"):
        load_private_key(damaged, stream("x"))


def test_a_factor_that_is_not_prime_fails_the_self_test() -> None:
    q = _numbers()["q"]
    p = next(
        p
        for p in itertools.count(_numbers()["p"] + 2, 2)
        if pow(2, p - 1, p) != 1 and gcd(p - 1, 65_537) == gcd(p, q) == 1
    )
    d = pow(65_537, -1, (p - 1) * (q - 1))
    key = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(65_537, p * q)
    ).private_key(unsafe_skip_rsa_key_validation=True)
    with pytest.raises(IdentityError, match="wrong results"):
        load_private_key(pem(key), stream("x")).self_test()


def _numbers() -> dict[str, int]:
    key = serialization.load_pem_private_key(server_key().to_pem(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    own = key.private_numbers()
    names = ("p", "q", "d", "dmp1", "dmq1", "iqmp")
    return {name: getattr(own, name) for name in names} | {"n": own.public_numbers.n}


def test_keys_have_no_telling_repr() -> None:
    assert re.fullmatch(r"<relay\.wire\.identity\.PrivateKey object at 0x[0-9a-f]+>",
                        repr(server_key()))  # fmt: skip
    assert "object at" in repr(ServerPublicKey(spki(), modulus()))


def test_this_openssl_has_every_primitive() -> None:
    self_test()
    server_key().self_test()


def test_an_openssl_without_mlkem_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking() -> None:
        raise UnsupportedAlgorithm("ML-KEM-768 is not supported by this OpenSSL")

    monkeypatch.setattr(MLKEM768PrivateKey, "generate", lacking)
    with pytest.raises(IdentityError, match=r"lacks what Relay needs.*ML-KEM"):
        self_test()


def test_an_openssl_that_computes_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        """X25519 whose two sides do not agree."""

        generate = staticmethod(lambda: Wrong())

        def public_key(self) -> Wrong:
            return self

        def exchange(self, other: object) -> object:
            return object()

    monkeypatch.setattr(identity, "X25519PrivateKey", Wrong)
    with pytest.raises(IdentityError, match="wrong results"):
        self_test()


def test_a_key_that_decrypts_wrongly_is_refused() -> None:
    """OpenSSL's result has the wrong length, or is another secret."""

    class Wrong:
        """A key that decrypts to something else."""

        key_size = 2048

        def public_key(self) -> rsa.RSAPublicKey:
            return rsa.RSAPublicNumbers(65537, modulus()).public_key()

        def decrypt(self, ciphertext: bytes, padding: object) -> bytes:
            return bytes(32)

    with pytest.raises(IdentityError, match="wrong results"):
        PrivateKey(Wrong(), stream("x")).self_test()  # type: ignore[arg-type]
