"""Every parser test runs whole, byte by byte, and with trailing bytes. One helper for each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

from relay.errors import RemoteProtocolError
from relay.wire.events import ConnectionClosed, Event, SecretWrapped, ServerKeyOffered
from relay.wire.frames import FrameReader, FrameType
from tests.support.pair import Peer, pieces

T = TypeVar("T")
NEVER_LEGAL = bytes((0x7F, 0, 0, 1))
"""A header that no phase allows."""


def parse_every_way(parse: Callable[[bytes], T], header: bytes, body: bytes) -> T:
    """Parse a message's frame: whole; each prefix of its body is refused, and one byte more."""
    result = parse(header + body)
    for length in range(len(body)):
        with pytest.raises(RemoteProtocolError):
            parse(header + body[:length])
    for extra in (b"\0", b"\xff"):
        with pytest.raises(RemoteProtocolError):
            parse(header + body + extra)
    return result


def read_frames(allowed: tuple[FrameType, ...], reads: Iterable[bytes]) -> list[bytes]:
    """All frames of a stream, followed by the error's text if one ended it."""
    reader = FrameReader(allowed)
    found: list[bytes] = []
    try:
        for read in reads:
            reader.feed(read)
            while (item := reader.next()) is not None:
                assert item[0] == item[1][0]
                found.append(item[1])
    except RemoteProtocolError as error:
        found.append(str(error).encode())
    return found


def frames_every_way(allowed: tuple[FrameType, ...], data: bytes) -> list[bytes]:
    """Split a stream whole, byte by byte, and with trailing bytes; the frames must be the same."""
    whole = read_frames(allowed, [data])
    assert read_frames(allowed, pieces(data, 1)) == whole
    if sum(map(len, whole)) == len(data):  # nothing refused, nothing left over
        trailing = read_frames(allowed, [data + NEVER_LEGAL])
        assert trailing[:-1] == whole
        assert b"not legal" in trailing[-1]
        # An incomplete header behind it changes nothing.
        assert read_frames(allowed, [data + NEVER_LEGAL[:3]]) == whole
    return whole


WITHHELD: tuple[type[Event], ...] = (ServerKeyOffered, SecretWrapped)
"""Events that ask for a decision: not for a peer that has broken the protocol already."""


def receive_every_way(
    make: Callable[[], Peer], data: bytes, withheld: tuple[type[Event], ...] = WITHHELD
) -> list[Event]:
    """Feed a connection whole, byte by byte, and with trailing bytes; return the whole's events.

    Args:
        make: a peer in the phase under test, the same each time (fixed randomness).
        data: what it receives.
        withheld: events of the whole that do not come when bytes follow in the same read.
    """
    whole, single, trailing = make(), make(), make()
    whole.take(data)
    for piece in pieces(data, 1):
        single.take(piece)
    assert single.events == whole.events
    assert single.phase is whole.phase
    trailing.take(data + NEVER_LEGAL)
    if whole.connection.finished:
        assert trailing.closed.code == whole.closed.code
        assert trailing.events[:-1] == whole.events[:-1]
    else:  # bytes behind it end the connection, after the events that they follow
        assert isinstance(trailing.events[-1], ConnectionClosed)
        assert trailing.events[:-1] == [
            event for event in whole.events if not isinstance(event, withheld)
        ]
    return whole.events
