"""Record protection of one direction: padding, sequence, limits, key updates."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import limits
from relay.errors import LocalProtocolError, RemoteProtocolError
from relay.wire.cipher import (
    RECORDS_AT_FIRST,
    RECORDS_AT_REST,
    SEQUENCE_MAX,
    AuthenticationFailed,
    Padded,
    ReceiveCipher,
    RecordLimits,
    RecordType,
    SendCipher,
    new_aead,
    padded_size,
)
from relay.wire.key_schedule import next_traffic_secret, traffic_keys

SECRET = bytes(range(32))
FEW = RecordLimits(
    records_max=3, receive_records_max=6, key_update_records_min=2, key_update_interval_s_min=60.0
)


def ciphers(bounds: RecordLimits | None = None) -> tuple[SendCipher, ReceiveCipher]:
    bounds = bounds or RecordLimits()
    return SendCipher(SECRET, bounds, 0.0), ReceiveCipher(SECRET, bounds, 0.0)


def sealed(inner: bytes, sequence: int = 0) -> bytes:
    """Return a frame around any inner plaintext, legal or not, under SECRET."""
    key, iv = traffic_keys(SECRET)
    nonce = (int.from_bytes(iv, "big") ^ sequence).to_bytes(12, "big")
    head = bytes((0x10,)) + (len(inner) + 16).to_bytes(3, "big")
    return head + new_aead(key).encrypt(nonce, inner, head)


# --- content and padding ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("inner", "padded"),
    [
        (1, 64), (63, 64), (64, 64), (65, 128), (128, 128), (129, 256), (256, 256), (257, 512),
        (512, 512), (513, 1024), (1024, 1024), (1025, 2048), (2048, 2048), (2049, 3072),
        (65_536, 65_536), (65_537, 66_560),
    ],
)  # fmt: skip
def test_padding(inner: int, padded: int) -> None:
    assert padded_size(inner) == padded
    send, _ = ciphers()
    assert len(send.seal(RecordType.APP, bytes(inner - 1))) == 4 + padded + 16


def test_padding_reaches_from_every_step_to_the_next() -> None:
    """The longest padding, which a type byte's tail must cover."""
    assert max(padded_size(n) - n for n in range(1, 65_538)) <= 1024


@given(
    kind=st.sampled_from(list(RecordType)),
    content=st.one_of(
        st.binary(max_size=3000),
        st.integers(0, 65_536).map(bytes),
        st.binary(max_size=40).map(lambda text: text + bytes(30)),
    ),
)
def test_what_is_sealed_opens(kind: RecordType, content: bytes) -> None:
    send, receive = ciphers()
    for _ in range(2):
        assert receive.open(send.seal(kind, content)) == (kind, content)


def test_content_at_its_limit() -> None:
    send, receive = ciphers()
    largest = bytes(limits.RECORD_CONTENT_BYTES_MAX)
    assert receive.open(send.seal(RecordType.APP, largest)) == (1, largest)
    with pytest.raises(LocalProtocolError):
        send.seal(RecordType.APP, largest + b"\0")
    assert send.sequence == 1, "a refused record uses no nonce"


def test_any_padding_is_accepted() -> None:
    for zeros in (0, 1, 62, 63, 64, 5000):
        _, receive = ciphers()
        assert receive.open(sealed(b"text\x01" + bytes(zeros))) == (1, b"text")


def test_the_longest_padding_of_the_longest_record() -> None:
    _, receive = ciphers()
    inner = b"c" * 65_536 + b"\1" + bytes(limits.RECORD_INNER_BYTES_MAX - 65_537)
    assert receive.open(sealed(inner)) == (1, b"c" * 65_536)
    with pytest.raises(RemoteProtocolError, match="too long"):
        receive.open(sealed(b"c" * 65_537 + b"\1", sequence=1))


@pytest.mark.parametrize("inner", [b"\0", bytes(64), bytes(1024)])
def test_nothing_but_padding(inner: bytes) -> None:
    _, receive = ciphers()
    with pytest.raises(RemoteProtocolError, match="without a type"):
        receive.open(sealed(inner))


# --- authentication ---------------------------------------------------------------------------
def test_a_flipped_bit_anywhere() -> None:
    send, _ = ciphers()
    whole = send.seal(RecordType.APP, b"secret")
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= 1 << index % 8
        _, receive = ciphers()
        with pytest.raises(AuthenticationFailed) as caught:
            receive.open(bytes(changed))
        assert receive.sequence == 0
        assert b"secret" not in repr(caught.value).encode()


def test_a_byte_removed_with_the_length_adjusted() -> None:
    send, receive = ciphers()
    whole = send.seal(RecordType.APP, b"secret")
    shorter = bytes((0x10,)) + (len(whole) - 5).to_bytes(3, "big") + whole[4:-1]
    with pytest.raises(AuthenticationFailed):
        receive.open(shorter)


@pytest.mark.parametrize("order", [[0, 0], [1], [1, 0], [0, 2], [0, 1, 0]])
def test_replay_reorder_and_omission(order: list[int]) -> None:
    send, receive = ciphers()
    records = [send.seal(RecordType.APP, bytes((n,))) for n in range(3)]
    for index in order[:-1]:
        if index != receive.sequence:
            break
        receive.open(records[index])
    with pytest.raises(AuthenticationFailed):
        receive.open(records[order[-1] if order[0] == 0 else order[0]])


def test_directions_do_not_mix() -> None:
    send = SendCipher(SECRET, FEW, 0.0)
    receive = ReceiveCipher(bytes(32), FEW, 0.0)
    with pytest.raises(AuthenticationFailed):
        receive.open(send.seal(RecordType.APP, b"mine"))


def test_equal_contents_never_look_equal() -> None:
    send, _ = ciphers()
    assert len({send.seal(RecordType.APP, b"same") for _ in range(100)}) == 100


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_only_keys_of_32_bytes(length: int) -> None:
    """The library silently accepts 16 and 24."""
    with pytest.raises(LocalProtocolError):
        new_aead(bytes(length))


# --- limits and updates -----------------------------------------------------------------------
def test_the_sender_updates_after_so_many_records() -> None:
    send, _ = ciphers(FEW)
    for _ in range(3):
        assert not send.update_due(0.0)
        send.seal(RecordType.APP, b"")
    assert send.update_due(0.0)
    assert send.seal_padded(Padded(b""), 0.0) == b""
    send.update(5.0)
    assert send.seal_padded(Padded(b""), 5.0)
    send.update(5.0)
    assert not send.update_due(5.0)
    assert send.sequence == 0


def test_the_sender_updates_after_so_many_bytes_of_frames() -> None:
    send, _ = ciphers(RecordLimits(bytes_max=200))
    for _ in range(3):
        assert not send.update_due(0.0)
        send.seal(RecordType.APP, b"")  # 4 + 64 + 16
    assert send.bytes_used == 252
    assert send.update_due(0.0)
    assert send.seal_padded(Padded(b""), 0.0) == b""


def test_the_sender_updates_after_an_hour() -> None:
    send, _ = ciphers()
    assert not send.update_due(3599.9)
    assert send.seal_padded(Padded(b""), 3599.9)
    assert send.update_due(3600.0)
    assert send.seal_padded(Padded(b""), 3600.0) == b""
    send.update(3600.0)
    assert not send.update_due(7199.9)


def test_the_receiver_refuses_more_records_than_a_key_may_have() -> None:
    send, receive = ciphers(FEW)
    for _ in range(6):
        receive.open(send.seal(RecordType.APP, b""))
    with pytest.raises(RemoteProtocolError, match="beyond its limit"):
        receive.open(send.seal(RecordType.APP, b""))


def test_the_receiver_refuses_more_bytes_than_a_key_may_have() -> None:
    send, receive = ciphers(RecordLimits(receive_bytes_max=168))
    for _ in range(2):
        receive.open(send.seal(RecordType.APP, b""))
    with pytest.raises(RemoteProtocolError, match="beyond its limit"):
        receive.open(send.seal(RecordType.APP, b""))


def test_an_update_goes_to_the_next_generation_from_sequence_0() -> None:
    send, receive = ciphers(FEW)
    old = send.seal(RecordType.KEY_UPDATE, b"")
    assert receive.open(old) == (RecordType.KEY_UPDATE, b"")
    send.update(1.0)
    receive.accept_update(1.0)
    assert receive.open(send.seal(RecordType.APP, b"new")) == (1, b"new")
    fresh = ReceiveCipher(next_traffic_secret(SECRET), FEW, 0.0)
    assert fresh.open(SendCipher(next_traffic_secret(SECRET), FEW, 0.0).seal(1, b"x")) == (1, b"x")
    with pytest.raises(AuthenticationFailed):  # replayed from the previous generation
        receive.open(old)


def test_the_first_update_is_always_legal_and_the_next_not_too_soon() -> None:
    _, receive = ciphers(FEW)
    receive.accept_update(0.0)
    with pytest.raises(RemoteProtocolError, match="too often"):
        receive.accept_update(59.9)


def test_an_update_is_legal_after_enough_time_or_enough_records() -> None:
    _, receive = ciphers(FEW)
    receive.accept_update(0.0)
    receive.accept_update(60.0)
    receive.sequence = 2
    receive.accept_update(60.0)
    with pytest.raises(RemoteProtocolError, match="too often"):
        receive.accept_update(60.0)


def test_the_sequence_never_wraps() -> None:
    bounds = replace(RecordLimits(), records_max=2**60, receive_records_max=2**60)
    send, receive = ciphers(bounds)
    send.sequence = receive.sequence = SEQUENCE_MAX
    assert receive.open(send.seal(RecordType.APP, b"last")) == (1, b"last")
    with pytest.raises(LocalProtocolError, match="used up"):
        send.seal(RecordType.APP, b"one more")


def test_default_limits_are_those_of_the_page() -> None:
    bounds = RecordLimits()
    assert (bounds.records_max, bounds.bytes_max, bounds.age_s_max) == (2**22, 2**34, 3600)
    assert (bounds.receive_records_max, bounds.receive_bytes_max) == (2**23, 2**35)
    assert bounds.receive_records_max < 2**24.5
    assert (bounds.key_update_records_min, bounds.key_update_interval_s_min) == (256, 60)


# --- what many connections seal, and keys at rest -------------------------------------------------
@given(st.lists(st.binary(max_size=3000), max_size=12))
def test_what_is_padded_once_is_sealed_as_ever(contents: list[bytes]) -> None:
    """The same bytes, whichever way each record takes; in one sequence."""
    usual, _ = ciphers()
    send, receive = ciphers()
    for number, content in enumerate(contents):
        expected = usual.seal(RecordType.APP, content)
        if number % 2:
            frame = send.seal_padded(Padded(content), 0.0)
        else:
            frame = send.seal(RecordType.APP, content)
        assert frame == expected
        assert (send.sequence, send.bytes_used) == (usual.sequence, usual.bytes_used)
        assert receive.open(frame) == (RecordType.APP, content)


def test_what_is_padded_once_has_the_bounds_of_a_record() -> None:
    most = bytes(limits.RECORD_CONTENT_BYTES_MAX)
    assert len(Padded(most).inner) == padded_size(len(most) + 1)
    with pytest.raises(LocalProtocolError, match="record of"):
        Padded(most + b"x")
    send, _ = ciphers()
    send.sequence = SEQUENCE_MAX + 1
    with pytest.raises(LocalProtocolError, match="used up"):
        send.seal(RecordType.APP, b"")
    assert send.seal_padded(Padded(b""), 0.0) == b"", "a new key is due long before"


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_a_direction_at_rest_goes_on_where_it_was(rests: list[bool]) -> None:
    """No nonce is reused, and nothing is lost, wherever ``rest`` is called."""
    usual, _ = ciphers()
    send, receive = ciphers()
    for rest in rests:
        if rest:
            send.rest()
            receive.rest()
        frame = send.seal(RecordType.APP, b"x")
        assert frame == usual.seal(RecordType.APP, b"x")
        assert receive.open(frame) == (RecordType.APP, b"x")


def test_a_direction_that_is_hardly_used_keeps_its_key_alone() -> None:
    """The library's key object takes 2.4 KiB: busy connections keep it until they are idle."""
    send, receive = ciphers()
    for _ in range(RECORDS_AT_FIRST):
        receive.open(send.seal(RecordType.APP, b"x"))
    assert send._aead is receive._aead is None
    receive.open(send.seal(RecordType.APP, b"x"))
    assert send._aead is not None
    assert receive._aead is not None
    for _ in range(2):  # it counts as busy the first time, and not the second
        kept = send._aead
        send.rest()
        receive.rest()
    assert kept is not None
    assert send._aead is receive._aead is None
    for _ in range(RECORDS_AT_REST + 1):
        assert send._aead is receive._aead is None
        receive.open(send.seal(RecordType.APP, b"x"))
    assert send._aead is not None
