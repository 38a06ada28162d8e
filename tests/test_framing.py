"""The common splitter of streams, for each of the three frame headers."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.bus import messages as bus
from relay.bus import packing as bus_packing
from relay.errors import RemoteProtocolError
from relay.server.agent import protocol as agent
from relay.wire import frames as wire

HEADER = 4
"""The bus's header: a length, which does not count itself."""


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(min(place, len(data)) for place in [0, *cuts, len(data)])
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(
    bodies=st.lists(st.binary(min_size=1, max_size=300), max_size=12),
    cuts=st.lists(st.integers(0, 3000), max_size=30),
    skip=st.sampled_from([0, HEADER]),
)
def test_any_cutting_of_the_stream_gives_the_same_frames(
    bodies: list[bytes], cuts: list[int], skip: int
) -> None:
    frames = [len(body).to_bytes(HEADER, "big") + body for body in bodies]
    splitter = bus_packing.MessageReader()
    found: list[bytes] = []
    for piece in cut(b"".join(frames) + b"\x00", cuts):
        splitter.feed_bytes(piece)
        while (frame := splitter.next_frame(skip)) is not None:
            found.append(frame)
    assert found == [frame[skip:] for frame in frames]
    assert all(type(frame) is bytes for frame in found)
    assert splitter.pending == 1


def test_a_bad_header_is_refused_before_anything_behind_it() -> None:
    splitter = bus_packing.MessageReader()
    splitter.feed_bytes(b"\x00\x00\x00\x03abc\x00\x00\x00")
    assert splitter.next_frame() == b"\x00\x00\x00\x03abc"
    splitter.feed_bytes(b"\x00")
    with pytest.raises(RemoteProtocolError, match="a bus message of 0 bytes"):
        splitter.next_frame()


def test_a_read_of_one_frame_is_not_copied() -> None:
    whole = b"\x00\x00\x00\x03abc"
    splitter = bus_packing.MessageReader()
    splitter.feed_bytes(whole)
    assert splitter.next_frame() is whole


def wire_frames(pieces: list[bytes]) -> list[bytes]:
    reader = wire.FrameReader((wire.FrameType.RECORD,))
    found: list[bytes] = []
    for piece in pieces:
        reader.feed(piece)
        while (frame := reader.next()) is not None:
            found.append(frame[1])
    return found


def bus_messages(pieces: list[bytes]) -> list[object]:
    reader = bus_packing.MessageReader()
    return [message for piece in pieces for message in reader.feed(piece)]


def agent_frames(pieces: list[bytes]) -> list[object]:
    reader = agent.FrameReader()
    return [frame for piece in pieces for frame in reader.feed(piece)]


@pytest.mark.parametrize(
    ("whole", "split"),
    [
        (wire.frame(wire.FrameType.RECORD, bytes(65_000)), wire_frames),
        (bus_packing.pack(bus.Batch("lobby", 0, b"epoch...", 1, 1, bytes(65_000))), bus_messages),
        (agent.pack(agent.Kind.UNWRAP, 1, bytes(2000)), agent_frames),
    ],
    ids=["wire", "bus", "agent"],
)
def test_a_frame_in_many_pieces_is_held_about_once(
    whole: bytes, split: Callable[[list[bytes]], list[object]]
) -> None:
    """Small pieces of one frame are appended: neither copied each time nor held several times."""
    pieces = [whole[at : at + 16] for at in range(0, len(whole), 16)]
    tracemalloc.start()
    try:
        assert len(split(pieces)) == 1
        assert tracemalloc.get_traced_memory()[1] < 4 * len(whole) + 4096
    finally:
        tracemalloc.stop()
