"""The strict msgpack validator: msgpack that is valid and still refused."""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import codec, limits
from relay.codec import Schema, Shape, Unknown
from relay.errors import EnvelopeError


class Ping(NamedTuple):
    """One field of each kind."""

    number: int
    text: str
    data: bytes
    maybe: int | None
    flag: bool
    pairs: list[list[int | str]]


SCHEMA = Schema(
    {
        1: Shape(
            Ping,
            (
                codec.uint(255, 1),
                codec.text(4, 1),
                codec.binary(0, 4),
                codec.nil_or(codec.uint(7)),
                codec.boolean,
                codec.list_of(codec.tuple_of(codec.uint(9), codec.text(2)), 3),
            ),
        )
    },
    count_max=4,
    array_max=64,
)
GOOD: list[object] = [1, 5, "text", b"data", None, True, [[1, "a"], [2, "b"]]]


def _pack(*values: object) -> bytes:
    return b"".join(msgpack.packb(value) for value in values)


def test_one_and_several() -> None:
    expected = Ping(5, "text", b"data", None, True, [[1, "a"], [2, "b"]])
    assert SCHEMA.unpack(_pack(GOOD)) == [expected]
    assert SCHEMA.unpack(_pack(GOOD) * 4) == [expected] * 4
    with pytest.raises(EnvelopeError):
        SCHEMA.unpack(_pack(GOOD) * 5)


@pytest.mark.parametrize("padding", [0, 600])
def test_every_beginning_of_several_messages(padding: int) -> None:
    """Short contents begin in another way than long ones; whole messages are accepted in both."""
    one = _pack([*GOOD, bytes(padding)])
    content = one * 4
    whole = {len(one) * count: count for count in range(1, 5)}
    for end in range(1, len(content) + 1):
        if count := whole.get(end):
            assert len(SCHEMA.unpack(content[:end])) == count
        else:
            with pytest.raises(EnvelopeError):
                SCHEMA.unpack(content[:end])


@pytest.mark.parametrize("place", range(4))
def test_one_bad_message_refuses_all(place: int) -> None:
    messages = [GOOD] * 4
    messages[place] = [1, 0, *GOOD[2:]]
    with pytest.raises(EnvelopeError, match="bad"):
        SCHEMA.unpack(_pack(*messages))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (1, 0),
        (1, 256),
        (1, -1),
        (1, True),
        (1, 5.0),
        (1, 2**64 - 1),
        (1, "5"),
        (1, None),
        (2, ""),
        (2, "texts"),
        (2, "\U0001f600x"),
        (2, b"text"),
        (3, "data"),
        (3, b"datas"),
        (4, 8),
        (4, False),
        (5, 0),
        (5, 1),
        (5, None),
        (6, [[1, "a"]] * 4),
        (6, [[1]]),
        (6, [[1, "a", 2]]),
        (6, [[1, "abc"]]),
        (6, [1, "a"]),
        (6, "a"),
    ],
)
def test_bad_fields(field: int, value: object) -> None:
    """Exact in type, range, length in bytes and shape; the error has the field's name."""
    changed = [*GOOD[:field], value, *GOOD[field + 1 :]]
    with pytest.raises(EnvelopeError, match=Ping._fields[field - 1]):
        SCHEMA.unpack(_pack(changed))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",  # never used
        b"\x90",  # an empty array
        b"\x80",  # a map
        b"\x05",
        b"\xc0",
        _pack([True]),
        _pack([1.0]),
        _pack(["1"]),
        _pack([-1]),
        _pack([2**32]),
        _pack(GOOD[:-1]),
        _pack(GOOD)[:-1],
        _pack(GOOD) + _pack(GOOD)[:-1],
        _pack(GOOD) + b"\xc1",
        _pack(list(range(200, 200 + limits.ENVELOPE_FIELDS_MAX + 1))),
        b"\xdd\xff\xff\xff\xff",  # claims 4 G items
        b"\xdb\xff\xff\xff\xff",  # a str of 4 G
        b"\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x92\xcc\xc8\xc7\x01\x05\x00",  # an extension type
        b"\x92\xcc\xc8\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\x92\xcc\xc8\x81\xa1a\x01",  # a map inside
        b"\x92\xcc\xc8\xa2\xc3\x28",  # no UTF-8
        b"\x92\xcc\xc8\xa3\xed\xa0\x80",  # a surrogate
        b"\x91" * 60_000,
        b"\x91" * 511 + b"\x01",
        _pack([200, [[[[[[[[[1]]]]]]]]]]),  # deeper than allowed
        _pack([*GOOD, [[[[[[[[[1]]]]]]]]]]),
        _pack([200, [0] * 65]),  # an array of more than array_max
    ],
    ids=lambda content: content[:8].hex(),
)
def test_refused(content: bytes) -> None:
    with pytest.raises(EnvelopeError):
        SCHEMA.unpack(content)


def test_what_a_later_version_may_add() -> None:
    """Trailing fields and unknown operations, as deep as the bound."""
    deep: list[object] = [1]
    for _ in range(limits.ENVELOPE_DEPTH_MAX - 2):
        deep = [deep]
    assert SCHEMA.unpack(_pack([*GOOD, deep]))
    assert SCHEMA.unpack(_pack([200, deep])) == [Unknown(200)]
    assert SCHEMA.unpack(_pack([255])) == [Unknown(255)]
    assert SCHEMA.unpack(_pack([2**32 - 1])) == [Unknown(2**32 - 1)]


def test_nothing_of_the_peer_in_the_error() -> None:
    """The error, which is logged, never quotes the peer."""
    for content in (_pack([1, "secret"]), b"\xa6secret", _pack(GOOD) + b"\xa9secret\xff\xff\xff"):
        with pytest.raises(EnvelopeError) as caught:
            SCHEMA.unpack(content)
        assert "secret" not in repr(caught.value)
        assert caught.value.__cause__ is None


@given(st.binary(max_size=200))
def test_garbage(content: bytes) -> None:
    """A list of legal messages, or EnvelopeError: never another exception."""
    try:
        found = SCHEMA.unpack(content)
    except EnvelopeError:
        return
    assert all(isinstance(message, Ping | Unknown) for message in found)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.text()
        | st.binary(),
        lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=30,
    )
)
def test_any_msgpack(value: object) -> None:
    """Any msgpack value, at the top or as a field."""
    for content in (_pack(value), _pack([1, value]), _pack([*GOOD[:-1], value])):
        try:
            found = SCHEMA.unpack(content)
        except EnvelopeError:
            continue
        assert all(isinstance(message, Ping | Unknown) for message in found)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 65_535])
def test_array_header(count: int) -> None:
    """As msgpack itself writes it."""
    assert codec.array_header(count) == msgpack.Packer().pack_array_header(count)


def test_array_header_of_too_many() -> None:
    with pytest.raises(ValueError, match="too many"):
        codec.array_header(65_536)


def test_floats_are_no_numbers() -> None:
    """Including NaN and infinity."""
    for bits in (0x7FC00000, 0x7F800000, 0x3F800000):
        with pytest.raises(EnvelopeError):
            SCHEMA.unpack(b"\x97\x01\xca" + struct.pack(">I", bits) + _pack(GOOD)[3:])
