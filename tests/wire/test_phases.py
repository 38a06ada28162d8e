"""The state table: each phase with each type of frame either advances or ends."""

from __future__ import annotations

import pytest

from relay.wire.frames import FrameType, header
from relay.wire.phases import LEGAL, Phase, Side
from tests.support.pair import in_phase

CLIENT, SERVER = Side.CLIENT, Side.SERVER
NEXT = {
    (Phase.AWAIT_SERVER_HELLO, CLIENT): Phase.AWAIT_SERVER_FINISHED,
    (Phase.PIN_DECISION, CLIENT): None,
    (Phase.WORKING, CLIENT): None,
    (Phase.AWAIT_SERVER_FINISHED, CLIENT): Phase.OPEN,
    (Phase.AWAIT_CLIENT_KEY, SERVER): Phase.AWAIT_CLIENT_FINISHED,
    (Phase.UNWRAPPING, SERVER): None,
    (Phase.AWAIT_CLIENT_FINISHED, SERVER): Phase.OPEN,
    (Phase.OPEN, CLIENT): Phase.OPEN,
    (Phase.OPEN, SERVER): Phase.OPEN,
    (Phase.CLOSING, CLIENT): Phase.CLOSING,
    (Phase.CLOSING, SERVER): Phase.CLOSING,
    (Phase.CLOSED, CLIENT): Phase.CLOSED,
    (Phase.CLOSED, SERVER): Phase.CLOSED,
}
"""The phase after the legal frame; the owner decides at once where it is asked."""
STATES = list(NEXT)
TYPES = [*FrameType, 0, 5, 0x0F, 0x11, 0x80, 0xFF]


def smallest(kind: int) -> bytes:
    length = 17 if kind == FrameType.RECORD else 1
    return header(kind, length) + bytes(length)


def test_every_phase_is_in_the_table() -> None:
    # DRAINING does not read frames: test_connection.
    assert {phase for phase, _ in STATES} | {Phase.DRAINING} == set(Phase) == set(LEGAL)
    assert all(len(frames) <= 1 for frames in LEGAL.values())


@pytest.mark.parametrize(("phase", "side"), STATES)
def test_the_legal_frame_advances(phase: Phase, side: Side) -> None:
    peer, rightful = in_phase(phase, side)
    if not rightful:
        assert LEGAL[phase] == ()
        return
    peer.take(rightful)
    assert peer.phase is NEXT[phase, side]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("phase", "side"), STATES)
def test_any_other_frame_ends(phase: Phase, side: Side, kind: int) -> None:
    peer, _ = in_phase(phase, side)
    events_before = len(peer.events)
    peer.take(smallest(kind))
    assert peer.phase is Phase.CLOSED
    answer = peer.give()
    if phase is Phase.CLOSED:
        assert len(peer.events) == events_before, "nothing is read after the end"
    else:
        peer.closed  # noqa: B018  # exactly one, and the last
    # A close record once there are keys; none before them, for a wrong tag, and after a close.
    told = phase is Phase.OPEN and kind != FrameType.RECORD
    assert bool(answer) is told
    assert not peer.received
    assert not peer.completed or phase in (Phase.OPEN, Phase.CLOSING, Phase.CLOSED)


@pytest.mark.parametrize(("phase", "side"), [state for state in STATES if not LEGAL[state[0]]])
def test_a_single_byte_where_none_is_legal(phase: Phase, side: Side) -> None:
    peer, _ = in_phase(phase, side)
    peer.take(b"\x10")
    assert peer.phase is Phase.CLOSED
    assert peer.give() == b""


@pytest.mark.parametrize(
    ("phase", "side"),
    [s for s in STATES if s[0] not in (Phase.OPEN, Phase.CLOSING, Phase.CLOSED) and NEXT[s]],
)
def test_a_repeat_ends(phase: Phase, side: Side) -> None:
    """The same legal frame twice, in one read and in two."""
    for at_once in (True, False):
        peer, rightful = in_phase(phase, side)
        if at_once:
            peer.take(rightful + rightful)
        else:
            peer.take(rightful)
            peer.give()
            peer.take(rightful)
        assert peer.phase is Phase.CLOSED
        assert not peer.received


@pytest.mark.parametrize(("phase", "side"), STATES)
def test_the_end_of_the_stream_ends(phase: Phase, side: Side) -> None:
    peer, rightful = in_phase(phase, side)
    peer.connection.receive_data(rightful[: len(rightful) // 2], 0.0)
    peer.connection.receive_eof(0.0)
    peer.act()
    closed = peer.closed
    assert not closed.clean
    assert not peer.received
    peer.connection.receive_eof(0.0)
    peer.act()
    assert peer.closed is closed
