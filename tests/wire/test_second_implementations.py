"""The same operations with other implementations: pycryptodome and kyber-py."""

from __future__ import annotations

from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.Hash import SHA256
from Crypto.PublicKey import RSA
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from kyber_py.ml_kem import ML_KEM_768

from relay.wire.cipher import ReceiveCipher, RecordLimits, RecordType, SendCipher
from relay.wire.handshake import OPENSSL
from relay.wire.identity import parse_spki
from relay.wire.key_schedule import traffic_keys
from tests.support.pair import server_key

LABEL = b"relay/1 session key"
SECRET = bytes(range(32))


def test_rsa_oaep_both_ways() -> None:
    theirs = PKCS1_OAEP.new(RSA.import_key(server_key().to_pem()), hashAlgo=SHA256, label=LABEL)
    assert theirs.decrypt(parse_spki(server_key().spki).wrap(SECRET)) == SECRET
    assert server_key().unwrap(theirs.encrypt(SECRET)) == SECRET


@settings(max_examples=5, deadline=None)
@given(seed=st.binary(min_size=64, max_size=64))
def test_mlkem_both_ways(seed: bytes) -> None:
    ek, dk = ML_KEM_768.key_derive(seed)
    ours = MLKEM768PrivateKey.from_seed_bytes(seed)
    assert ours.public_key().public_bytes_raw() == ek
    shared, ciphertext = OPENSSL.encapsulate(ek)
    assert ML_KEM_768.decaps(dk, ciphertext) == shared
    shared, ciphertext = ML_KEM_768.encaps(ek)
    assert ours.decapsulate(ciphertext) == shared
    garbage = bytes(1088)
    assert ours.decapsulate(garbage) == ML_KEM_768.decaps(dk, garbage), "implicit rejection too"


@given(secret=st.binary(min_size=32, max_size=32), content=st.binary(max_size=2000))
def test_records_both_ways(secret: bytes, content: bytes) -> None:
    key, iv = traffic_keys(secret)
    frame = SendCipher(secret, RecordLimits(), 0.0).seal(RecordType.APP, content)
    theirs = AES.new(key, AES.MODE_GCM, nonce=iv)
    theirs.update(frame[:4])
    inner = theirs.decrypt_and_verify(frame[4:-16], frame[-16:])
    assert inner.rstrip(b"\0") == content + b"\1"
    again = AES.new(key, AES.MODE_GCM, nonce=iv)
    again.update(frame[:4])
    sealed, tag = again.encrypt_and_digest(inner)
    opened = ReceiveCipher(secret, RecordLimits(), 0.0).open(frame[:4] + sealed + tag)
    assert opened == (1, content)
