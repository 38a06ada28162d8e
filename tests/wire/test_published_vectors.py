"""Wycheproof, NIST and RFC vectors through the functions of the handshake and the records.

The number of cases is pinned: a file that was moved or truncated fails.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from relay.errors import LocalProtocolError, RemoteProtocolError
from relay.wire import identity
from relay.wire.cipher import new_aead
from relay.wire.handshake import OPENSSL, _exchange
from relay.wire.key_schedule import expand, extract
from tests.support.published import nist, unhex, wycheproof

FAKE = b"implicit rejection's 32 bytes..."


# --- AES-256-GCM ------------------------------------------------------------------------------
def test_wycheproof_aes_gcm() -> None:
    counts: Counter[str] = Counter()
    for group, case in wycheproof("Cipher/wycheproof/aes_gcm_test.json"):
        key, iv, aad, msg, ct, tag = unhex(case, "key", "iv", "aad", "msg", "ct", "tag")
        if len(key) != 32:
            with pytest.raises(LocalProtocolError):
                new_aead(key)
            counts["another key size"] += 1
        elif (group["ivSize"], group["tagSize"]) != (96, 128):
            counts["another nonce size"] += 1  # the cipher makes its own nonces, of 12 bytes
        elif case["result"] == "valid":
            assert new_aead(key).decrypt(iv, ct + tag, aad) == msg
            assert new_aead(key).encrypt(iv, msg, aad) == ct + tag
            counts["valid"] += 1
        else:
            with pytest.raises(InvalidTag):
                new_aead(key).decrypt(iv, ct + tag, aad)
            counts["invalid"] += 1
    assert sum(counts.values()) == 316
    assert counts == {"valid": 39, "invalid": 27, "another key size": 211, "another nonce size": 39}


def test_nist_gcm_decrypt_256() -> None:
    counts: Counter[str] = Counter()
    for case in nist("ciphers/AES/GCM/gcmDecrypt256.rsp"):
        if (case["ivlen"], case["taglen"]) != ("96", "128"):
            continue
        key, iv, ct, aad, tag = unhex(case, "key", "iv", "ct", "aad", "tag")
        if "fail" in case:
            with pytest.raises(InvalidTag):
                new_aead(key).decrypt(iv, ct + tag, aad)
            counts["invalid"] += 1
        else:
            assert new_aead(key).decrypt(iv, ct + tag, aad).hex() == case["pt"]
            counts["valid"] += 1
    assert counts == {"valid": 184, "invalid": 191}


# --- HKDF and HMAC ----------------------------------------------------------------------------
def test_wycheproof_hkdf() -> None:
    counts: Counter[str] = Counter()
    for _, case in wycheproof("Protocol/wycheproof/hkdf_sha256_test.json"):
        ikm, salt, info, okm = unhex(case, "ikm", "salt", "info", "okm")
        counts[case["result"]] += 1
        if case["result"] == "valid":
            assert expand(extract(salt, ikm), info, case["size"]) == okm
        else:  # longer than HKDF allows
            with pytest.raises(ValueError, match="8160"):
                expand(extract(salt, ikm), info, case["size"])
    assert counts == {"valid": 83, "invalid": 3}


def test_rfc_5869() -> None:
    cases = nist("KDF/rfc-5869-HKDF-SHA256.txt")
    for case in cases:
        ikm, salt, info, prk, okm = unhex(case, "ikm", "salt", "info", "prk", "okm")
        assert extract(salt, ikm) == prk
        assert expand(prk, info, int(case["l"])) == okm
    assert len(cases) == 3


def test_rfc_4231_hmac() -> None:
    """HKDF-Extract is HMAC of the input with the salt as the key."""
    cases = nist("HMAC/rfc-4231-sha256.txt")
    for case in cases:
        key, message, digest = unhex(case, "key", "msg", "md")
        assert extract(key, message)[: len(digest)] == digest
    assert len(cases) == 6


# --- X25519 -----------------------------------------------------------------------------------
def test_wycheproof_x25519() -> None:
    """A zero result is refused; non-canonical encodings are accepted (RFC 7748)."""
    counts: Counter[str] = Counter()
    for _, case in wycheproof("Protocol/wycheproof/x25519_test.json"):
        private, public, shared = unhex(case, "private", "public", "shared")
        key = X25519PrivateKey.from_private_bytes(private)
        if "ZeroSharedSecret" in case["flags"]:
            assert shared == bytes(32)
            with pytest.raises(RemoteProtocolError):
                _exchange(key, public)
            counts["zero"] += 1
        else:
            assert _exchange(key, public) == shared
            counts[case["result"]] += 1
    assert sum(counts.values()) == 518
    assert counts == {"valid": 264, "acceptable": 223, "zero": 31}


def test_rfc_7748() -> None:
    cases = nist("asymmetric/X25519/rfc7748.txt")
    done = 0
    for case in cases:
        if "output_u" in case:
            scalar, point, out = unhex(case, "input_scalar", "input_u", "output_u")
            assert _exchange(X25519PrivateKey.from_private_bytes(scalar), point) == out
            done += 1
    assert done == 3


# --- ML-KEM-768 -------------------------------------------------------------------------------
def test_wycheproof_mlkem_keys_from_seeds() -> None:
    count = 0
    for _, case in wycheproof("Protocol/wycheproof/mlkem_768_keygen_seed_test.json"):
        seed, ek = unhex(case, "seed", "ek")
        assert MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw() == ek
        count += 1
    assert count == 100


def test_wycheproof_mlkem_decapsulation() -> None:
    """Valid, implicitly rejected and of a wrong length."""
    counts: Counter[str] = Counter()
    for _, case in wycheproof("Protocol/wycheproof/mlkem_768_test.json"):
        seed, ciphertext, shared = unhex(case, "seed", "c", "K")
        counts[case["result"]] += 1
        if case["result"] == "valid":
            key = MLKEM768PrivateKey.from_seed_bytes(seed)
            assert key.decapsulate(ciphertext) == shared
        else:
            with pytest.raises(ValueError, match=r"\S"):
                MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)
    assert counts == {"valid": 161, "invalid": 40}


def test_wycheproof_mlkem_encapsulation() -> None:
    """The modulus check of FIPS 203 section 7.2, and the length, with the server's own function."""
    counts: Counter[str] = Counter()
    for _, case in wycheproof("Protocol/wycheproof/mlkem_768_encaps_test.json"):
        (ek,) = unhex(case, "ek")
        counts[case["result"]] += 1
        if case["result"] == "valid":
            shared, ciphertext = OPENSSL.encapsulate(ek)
            assert (len(shared), len(ciphertext)) == (32, 1088)
        else:
            with pytest.raises(ValueError, match=r"\S"):
                OPENSSL.encapsulate(ek)
    assert counts == {"valid": 133, "invalid": 132}


def test_nist_mlkem_known_answers() -> None:
    cases = nist("asymmetric/MLKEM/kat_MLKEM_768.rsp")
    for case in cases:
        d, z, pk, ct, ss, ct_n, ss_n = unhex(case, "d", "z", "pk", "ct", "ss", "ct_n", "ss_n")
        key = MLKEM768PrivateKey.from_seed_bytes(d + z)
        assert key.public_key().public_bytes_raw() == pk
        assert key.decapsulate(ct) == ss
        assert key.decapsulate(ct_n) == ss_n
    assert len(cases) == 1000


# --- RSA-OAEP ---------------------------------------------------------------------------------
OAEP_FILES: dict[str, dict[str, int]] = {
    "rsa_oaep_3072_sha256_mgf1sha256_test.json": {
        "a secret": 1,
        "of another length": 17,
        "rejected": 19,
    },
    "rsa_oaep_4096_sha256_mgf1sha256_test.json": {
        "a secret": 1,
        "of another length": 17,
        "rejected": 19,
    },
    "rsa_oaep_misc_test.json": {
        "another hash or a small key": 367,
        "of another length": 26,
        "rejected": 2,
    },
}


@cache
def fixed_fake(pem: str) -> identity.PrivateKey:
    """A key whose implicit rejection is always FAKE. Validation of the published key is skipped."""
    loaded = serialization.load_pem_private_key(
        pem.encode(), None, unsafe_skip_rsa_key_validation=True
    )
    assert isinstance(loaded, rsa.RSAPrivateKey)
    return identity.PrivateKey(loaded, lambda count: FAKE[:count])


@pytest.mark.parametrize("name", OAEP_FILES)
def test_wycheproof_oaep(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their label instead of ours: 32 bytes decrypt, everything else is implicitly
    rejected.
    """
    counts: Counter[str] = Counter()
    for group, case in wycheproof(f"Cipher/wycheproof/{name}"):
        if (group["sha"], group["mgfSha"]) != ("SHA-256", "SHA-256") or group["keySize"] < 2048:
            counts["another hash or a small key"] += 1
            continue
        message, ciphertext, label = unhex(case, "msg", "ct", "label")
        key = fixed_fake(group["privateKeyPem"])
        monkeypatch.setattr(identity, "RSA_LABEL", b"relay/1 session key")
        assert key.unwrap(ciphertext) == FAKE, "never with our own label"
        monkeypatch.setattr(identity, "RSA_LABEL", label)
        found = key.unwrap(ciphertext)
        if case["result"] == "valid" and len(message) == 32:
            assert found == message
            counts["a secret"] += 1
        else:
            assert found == FAKE
            counts["of another length" if case["result"] == "valid" else "rejected"] += 1
    assert counts == OAEP_FILES[name]
