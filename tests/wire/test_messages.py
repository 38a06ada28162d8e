"""The layouts of the four handshake messages, and the proof of work."""

from __future__ import annotations

import hashlib

import pytest

from relay.errors import RemoteProtocolError
from relay.wire.frames import FrameType, frame
from relay.wire.messages import (
    BEFORE_NONCE_BYTES,
    MLKEM_CT_BYTES,
    MLKEM_EK_BYTES,
    ClientKey,
    ServerFinished,
    ServerHello,
    Work,
    parse_client_finished,
    work_is_done,
)
from tests.support.parsing import parse_every_way

HELLO = ServerHello(1, 2, 3, 4, b"r" * 32, b"spki" * 70, b"ext")
KEY = ClientKey(
    1, 2, b"r" * 32, b"x" * 32, b"m" * MLKEM_EK_BYTES, b"n" * 8, b"c" * 256, b"t" * 9, b"b" * 32
)
FINISHED = ServerFinished(1, b"x" * 32, b"c" * MLKEM_CT_BYTES, b"f" * 32)
HEAD = bytes(4)


@pytest.mark.parametrize("hello", [HELLO, HELLO._replace(ext=b""), HELLO._replace(ext=b"e" * 256)])
def test_server_hello(hello: ServerHello) -> None:
    assert parse_every_way(ServerHello.parse, HEAD, hello.body()) == hello


def test_server_hello_byte_by_byte() -> None:
    assert HELLO.body()[:40] == b"RLY1" + bytes((1, 2, 3, 4)) + b"r" * 32
    assert HELLO.body()[40:42] == (280).to_bytes(2, "big")


def test_server_hello_with_another_magic() -> None:
    with pytest.raises(RemoteProtocolError, match="not a Relay server"):
        ServerHello.parse(HEAD + b"RLY2" + HELLO.body()[4:])


def test_server_hello_with_too_long_an_extension() -> None:
    with pytest.raises(RemoteProtocolError):
        ServerHello.parse(HEAD + HELLO._replace(ext=b"e" * 257).body())


@pytest.mark.parametrize("ticket", [b"t", b"t" * 256])
def test_client_key(ticket: bytes) -> None:
    key = KEY._replace(ticket=ticket)
    assert parse_every_way(lambda whole: ClientKey.parse(whole, 256), HEAD, key.body()) == key


def test_client_key_without_a_ticket() -> None:
    key = KEY._replace(ticket=b"", binder=bytes(32))
    assert parse_every_way(lambda whole: ClientKey.parse(whole, 256), HEAD, key.body()) == key
    with pytest.raises(RemoteProtocolError, match="binder without a ticket"):
        ClientKey.parse(HEAD + key._replace(binder=bytes(31) + b"\1").body(), 256)


def test_client_key_with_too_long_a_ticket() -> None:
    with pytest.raises(RemoteProtocolError):
        ClientKey.parse(HEAD + KEY._replace(ticket=b"t" * 257).body(), 256)


def test_client_key_fits_a_frame_with_the_largest_modulus() -> None:
    key = KEY._replace(rsa_ct=b"c" * 1024, ticket=b"t" * 256)
    assert len(frame(FrameType.CLIENT_KEY, key.body())) < 4100


@pytest.mark.parametrize("modulus_bytes", [255, 257])
def test_client_key_with_a_ciphertext_of_another_length(modulus_bytes: int) -> None:
    key = KEY._replace(ticket=b"", binder=bytes(32))
    with pytest.raises(RemoteProtocolError):
        ClientKey.parse(HEAD + key.body(), modulus_bytes)


def test_server_finished() -> None:
    assert parse_every_way(ServerFinished.parse, HEAD, FINISHED.body()) == FINISHED


def test_client_finished() -> None:
    assert parse_every_way(parse_client_finished, HEAD, b"c" * 32) == b"c" * 32


# --- proof of work ----------------------------------------------------------------------------
def leading_zero_bits(data: bytes) -> int:
    return 8 * len(data) - int.from_bytes(data, "big").bit_length()


@pytest.mark.parametrize("bits", [1, 7, 8, 9, 12])
def test_work_is_what_the_page_says(bits: int) -> None:
    random, covered = b"s" * 32, KEY.before_nonce()
    assert len(covered) == BEFORE_NONCE_BYTES == 1250
    nonce = Work(random, covered, bits).solve()
    digest = hashlib.sha256(
        b"relay/1 pow" + random + hashlib.sha256(covered).digest() + nonce
    ).digest()
    assert leading_zero_bits(digest) >= bits
    assert work_is_done(random, covered, nonce, bits)
    assert not work_is_done(random, covered, nonce, leading_zero_bits(digest) + 1)


def test_any_nonce_is_right_in_calm() -> None:
    assert work_is_done(b"s" * 32, b"", b"anything", 0)


def test_work_is_bound_to_the_server_and_to_the_keys() -> None:
    nonce = Work(b"s" * 32, b"covered", 12).solve()
    assert not work_is_done(b"S" * 32, b"covered", nonce, 12)
    assert not work_is_done(b"s" * 32, b"Covered", nonce, 12)
