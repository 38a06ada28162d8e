"""Framing: what is refused, when, and how little is buffered."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import limits
from relay.errors import RemoteProtocolError
from relay.wire.frames import FrameReader, FrameType, frame, header
from tests.support.pair import pieces
from tests.support.parsing import frames_every_way, read_frames

ALL = tuple(FrameType)
HANDSHAKE = [kind for kind in FrameType if kind is not FrameType.RECORD]


def refused(allowed: tuple[FrameType, ...], head: bytes) -> None:
    """The fourth byte of a header decides, not the third, and no byte of a body is needed."""
    reader = FrameReader(allowed)
    reader.feed(head[:3])
    assert reader.next() is None
    reader.feed(head[3:4])
    with pytest.raises(RemoteProtocolError):
        reader.next()


def test_layout() -> None:
    assert frame(FrameType.CLIENT_KEY, b"abc") == b"\x02\x00\x00\x03abc"
    assert header(FrameType.RECORD, 0x010203) == b"\x10\x01\x02\x03"


@pytest.mark.parametrize("kind", ALL)
def test_smallest_and_largest_body(kind: FrameType) -> None:
    low, high = (17, 69_648) if kind is FrameType.RECORD else (1, 4096)
    for length in (low, high):
        whole = frame(kind, b"b" * length)
        assert frames_every_way((kind,), whole) == [whole]
    refused((kind,), header(kind, low - 1))
    refused((kind,), header(kind, high + 1))
    refused((kind,), header(kind, 0))
    refused((kind,), header(kind, 0xFFFFFF))


def test_several_frames_in_one_read() -> None:
    frames = [frame(FrameType.RECORD, bytes((n,)) * (17 + n)) for n in range(20)]
    assert frames_every_way(ALL, b"".join(frames)) == frames


@pytest.mark.parametrize("number", sorted(set(range(256)) - {int(kind) for kind in FrameType}))
def test_unknown_types(number: int) -> None:
    refused(ALL, header(number, 32))


@pytest.mark.parametrize(
    "greeting",
    [
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"SSH-2.0-OpenSSH",
        b"PROXY TCP4 ",
        bytes(65_536),
        b"\xff" * 65_536,
    ],
)
def test_other_protocols_are_refused_within_one_header(greeting: bytes) -> None:
    refused(ALL, greeting)


def test_a_type_is_judged_when_it_is_read() -> None:
    """``allowed`` may change between two frames of one read."""
    reader = FrameReader((FrameType.CLIENT_KEY,))
    reader.feed(frame(FrameType.CLIENT_KEY, b"k") + frame(FrameType.RECORD, bytes(17)))
    assert reader.next() == (FrameType.CLIENT_KEY, frame(FrameType.CLIENT_KEY, b"k"))
    assert reader.pending == 21
    reader.allowed = (FrameType.RECORD,)
    assert reader.next() == (FrameType.RECORD, frame(FrameType.RECORD, bytes(17)))
    assert reader.pending == 0


def test_frames_are_bytes_however_they_came() -> None:
    whole = frame(FrameType.RECORD, b"r" * 100)
    for cut in (1, 7, 104):
        reader = FrameReader(ALL)
        for piece in pieces(whole, cut):
            reader.feed(piece)
        found = reader.next()
        assert found is not None
        assert type(found[1]) is bytes


def test_a_claimed_length_reserves_nothing() -> None:
    readers = [FrameReader(ALL) for _ in range(100)]
    head = header(FrameType.RECORD, limits.RECORD_BODY_BYTES_MAX)
    tracemalloc.start()
    try:
        for reader in readers:
            reader.feed(head)
            assert reader.next() is None
        assert tracemalloc.get_traced_memory()[1] < 65_536
    finally:
        tracemalloc.stop()


def test_a_frame_in_many_pieces_is_held_once() -> None:
    """Small pieces of one frame are appended, not copied each time."""
    whole = frame(FrameType.RECORD, bytes(limits.RECORD_BODY_BYTES_MAX))
    reads = list(pieces(whole, 16))
    tracemalloc.start()
    try:
        assert read_frames(ALL, reads) == [whole]
        assert tracemalloc.get_traced_memory()[1] < 4 * len(whole)
    finally:
        tracemalloc.stop()


@given(
    bodies=st.lists(st.binary(min_size=17, max_size=200), max_size=8),
    cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=12),
)
def test_random_splits_give_the_same_frames(bodies: list[bytes], cuts: list[int]) -> None:
    frames = [frame(FrameType.RECORD, body) for body in bodies]
    data = b"".join(frames)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reads = [data[a:b] for a, b in pairwise(edges)]
    assert read_frames(ALL, reads) == frames
