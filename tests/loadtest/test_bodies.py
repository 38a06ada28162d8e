from __future__ import annotations

import random

import pytest

from loadtest.bodies import BODY_BYTES_MIN, Body, DamagedBody, pack_body, this_clock, unpack_body
from loadtest.payload import payload_size
from relay.errors import UsageError

BODY = Body(b"instance", 7, 123_456_789, this_clock())


@pytest.mark.parametrize("size", [0, BODY_BYTES_MIN, BODY_BYTES_MIN + 1, 30_000])
def test_a_body_comes_back_as_it_was(size: int) -> None:
    packed = pack_body(BODY, size)
    assert len(packed) == max(size, BODY_BYTES_MIN)
    assert unpack_body(packed) == BODY


def test_a_strangers_message_is_none_of_ours() -> None:
    assert unpack_body(b"hello, swarm") is None
    assert unpack_body(b"") is None


def test_every_changed_byte_is_noticed() -> None:
    packed = pack_body(BODY, 90)
    for place in range(len(packed)):
        changed = bytearray(packed)
        changed[place] ^= 1
        try:
            assert unpack_body(bytes(changed)) is None  # no longer one of ours
        except DamagedBody:
            continue
        assert place < BODY_BYTES_MIN


def test_a_cut_body_is_noticed() -> None:
    packed = pack_body(BODY, 90)
    for length in (BODY_BYTES_MIN - 1, BODY_BYTES_MIN, 89):
        with pytest.raises(DamagedBody):
            unpack_body(packed[:length])


def test_sizes() -> None:
    chance = random.Random(1)
    assert payload_size("fixed:200", chance) == 200
    assert {payload_size("uniform:3:5", chance) for _ in range(100)} == {3, 4, 5}
    typed = [payload_size("typed", chance) for _ in range(1000)]
    assert 1 <= min(typed) < 40 < max(typed) <= 2000


@pytest.mark.parametrize("text", ["", "typed:1", "fixed", "fixed:x", "fixed:99999", "uniform:5:3"])
def test_wrong_sizes_are_a_users_mistake(text: str) -> None:
    with pytest.raises(UsageError, match="--payload"):
        payload_size(text, random.Random(1))
