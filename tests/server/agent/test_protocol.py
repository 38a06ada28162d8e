"""The agent's frames: whole, byte by byte, and malformed."""

from __future__ import annotations

import pytest

from relay.server.agent.protocol import (
    CIPHERTEXT_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    SOURCE_BYTES_MAX,
    AgentProtocolError,
    Frame,
    FrameReader,
    Kind,
    pack,
    pack_question,
    unpack_question,
)

FRAMES = [
    Frame(Kind.HELLO, 0, b"spki"),
    Frame(Kind.BUSY, 2**32 - 1, b""),
    Frame(Kind.SECRET, 7, bytes(32)),
    Frame(Kind.HELLO, 0, bytes(PAYLOAD_BYTES_MAX)),
]
STREAM = b"".join(pack(Kind(f.kind), f.request, f.payload) for f in FRAMES)


def test_whole_and_in_pieces() -> None:
    assert FrameReader().feed(STREAM) == FRAMES
    reader = FrameReader()
    assert [frame for byte in STREAM for frame in reader.feed(bytes((byte,)))] == FRAMES
    reader = FrameReader()
    assert reader.feed(STREAM + STREAM[:3]) == FRAMES
    assert reader.feed(STREAM[3:]) == FRAMES


def test_a_kind_of_the_future_is_a_frame_too() -> None:
    assert FrameReader().feed(bytes.fromhex("0006 c8 00000001 ff")) == [Frame(200, 1, b"\xff")]


@pytest.mark.parametrize("length", [0, 4, PAYLOAD_BYTES_MAX + 6, 0xFFFF])
def test_a_length_that_no_frame_has(length: int) -> None:
    with pytest.raises(AgentProtocolError):
        FrameReader().feed(length.to_bytes(2, "big"))


def test_unwrap_round_trip() -> None:
    [frame] = FrameReader().feed(
        pack_question(Kind.UNWRAP, 5, b"c" * CIPHERTEXT_BYTES_MAX, "2001:db8::1")
    )
    assert (frame.kind, frame.request) == (Kind.UNWRAP, 5)
    assert unpack_question(frame.payload) == (b"c" * CIPHERTEXT_BYTES_MAX, "2001:db8::1")
    [frame] = FrameReader().feed(pack_question(Kind.UNWRAP, 5, b"c", "é" * 100))
    assert unpack_question(frame.payload)[0] == b"c"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0",
        b"\x05abc",
        b"\x03abc",
        bytes((SOURCE_BYTES_MAX + 1,)) + bytes(200),
        b"\0" + bytes(CIPHERTEXT_BYTES_MAX + 1),
    ],
)
def test_malformed_unwrap(payload: bytes) -> None:
    with pytest.raises(AgentProtocolError):
        unpack_question(payload)


def test_a_ciphertext_too_long_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="too long"):
        pack_question(Kind.UNWRAP, 1, bytes(CIPHERTEXT_BYTES_MAX + 1), "")
