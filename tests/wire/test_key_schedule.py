"""HKDF and labels: published values, and separation of every value from every other."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.secret import Secret
from relay.wire.key_schedule import (
    EMPTY_HASH,
    ZEROS,
    SessionSecrets,
    confirmation,
    early_secret,
    expand,
    expand_label,
    extract,
    handshake_secret,
    login_binding,
    next_traffic_secret,
    resumption_secret,
    session_secrets,
    traffic_keys,
)

TLS = b"tls13 "


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def test_expand_label_has_the_structure_of_tls() -> None:
    """RFC 8448 section 3, with the prefix of TLS: the published values of its key schedule."""
    early = early_secret()
    assert early == unhex("33ad0a1c607ec03b09e6cd9893680ce210adf300aa1f2660e1b22e10f170f92a")
    derived = expand_label(early, "derived", EMPTY_HASH, 32, prefix=TLS)
    assert derived == unhex("6f2615a108c702c5678f54fc9dbab69716c076189c48250cebeac3576c3611ba")
    shared = unhex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d")
    handshake = extract(derived, shared)
    assert handshake == unhex("1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac")
    hello = unhex("860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8")
    client = expand_label(handshake, "c hs traffic", hello, 32, prefix=TLS)
    assert client == unhex("b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21")
    server = expand_label(handshake, "s hs traffic", hello, 32, prefix=TLS)
    assert server == unhex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")
    assert expand_label(server, "key", b"", 16, prefix=TLS) == unhex(
        "3fce516009c21727d0f2e4e86ee403bc"
    )
    assert expand_label(server, "iv", b"", 12, prefix=TLS) == unhex("5d313eb2671276ee13000b30")


def test_expand_label_byte_by_byte() -> None:
    info = b"\x00\x20" + b"\x0brelay1 c ap" + b"\x03ctx"
    assert expand_label(b"s" * 32, "c ap", b"ctx", 32) == expand(b"s" * 32, info, 32)


@given(
    salt=st.binary(max_size=100),
    ikm=st.binary(max_size=100),
    info=st.binary(max_size=100),
    length=st.integers(1, 255),
)
def test_hkdf_against_the_text_of_rfc_5869(
    salt: bytes, ikm: bytes, info: bytes, length: int
) -> None:
    prk = hmac.new(salt, ikm, hashlib.sha256).digest()
    assert extract(salt, ikm) == prk
    okm, block = b"", b""
    for counter in range(1, 10):
        block = hmac.new(prk, block + info + bytes((counter,)), hashlib.sha256).digest()
        okm += block
    assert expand(prk, info, length) == okm[:length]


def test_every_derived_value_differs() -> None:
    """One secret and one transcript: no value is used for two purposes."""
    hs, t = b"h" * 32, b"t" * 32
    secrets = session_secrets(hs, t)
    values = [
        confirmation(hs, "s confirm", t),
        confirmation(hs, "c confirm", t),
        secrets.client,
        secrets.server,
        secrets.exporter,
        resumption_secret(hs, t),
        next_traffic_secret(secrets.client),
        traffic_keys(secrets.client)[0],
        traffic_keys(secrets.server)[0],
        login_binding(secrets.exporter, b"spki"),
        login_binding(secrets.exporter, b"spki of another server"),
    ]
    assert len(set(values)) == len(values)
    assert all(len(value) == 32 for value in values)


@pytest.mark.parametrize("changed", range(3))
def test_each_of_the_three_secrets_counts(changed: int) -> None:
    parts = [b"a" * 32, b"b" * 32, b"c" * 32]
    before = handshake_secret(early_secret(), *parts)
    parts[changed] = b"d" * 32
    assert handshake_secret(early_secret(), *parts) != before


def test_a_psk_counts() -> None:
    parts = (b"a" * 32, b"b" * 32, b"c" * 32)
    assert early_secret(b"p" * 32) != early_secret(ZEROS) == early_secret()
    assert handshake_secret(early_secret(b"p" * 32), *parts) != handshake_secret(
        early_secret(), *parts
    )


def test_secrets_have_no_repr() -> None:
    secret = Secret(b"do not print me, I am a secret..")
    shown = repr(SessionSecrets(secret, secret, secret))
    assert "print" not in shown
