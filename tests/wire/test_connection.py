"""The open phase: records, key updates, pings, close, deadlines; and what must end it."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import limits
from relay.errors import LocalProtocolError
from relay.wire.cipher import RecordLimits, RecordType, new_aead
from relay.wire.codes import CloseCode
from relay.wire.events import ApplicationData, ConnectionClosed, PongReceived, TicketReceived
from relay.wire.frames import FrameType, frame, header
from relay.wire.phases import Phase, Side
from relay.wire.timing import Timing
from tests.support.pair import Pair, Peer, client, established, pieces, server
from tests.support.parsing import receive_every_way
from tests.wire.test_handshake import fixed_pair

FEW = RecordLimits(
    records_max=3,
    receive_records_max=8,
    key_update_records_min=3,
    key_update_interval_s_min=60.0,
)
BOTH = pytest.mark.parametrize("side", list(Side), ids=lambda side: side.value)


def ends(side: Side, limits: RecordLimits | None = None) -> tuple[Peer, Peer]:
    """Return (the peer under test, the misbehaving one) of an open connection."""
    pair = established(limits or RecordLimits())
    return (pair.client, pair.server) if side is Side.CLIENT else (pair.server, pair.client)


def record(source: Peer, kind: int, content: bytes = b"") -> bytes:
    """Return a record that only a misbehaving peer would send; no key update goes before it."""
    return source.connection._send.seal(kind, content)


def close_code_in(data: bytes, reader: Peer) -> int:
    """Return the code of the close record that is all of ``data``."""
    kind, content = reader.connection._receive.open(data)
    assert kind == RecordType.CLOSE
    assert len(content) == 4
    return int.from_bytes(content[:2], "big")


def refuses(peer: Peer, other: Peer, data: bytes) -> None:
    """Check that the peer ends the connection with a close record PROTOCOL."""
    peer.take(data)
    assert peer.closed.code == CloseCode.PROTOCOL
    assert not peer.closed.clean
    assert not peer.closed.remote
    assert close_code_in(peer.give(), other) == CloseCode.PROTOCOL


def drops(peer: Peer, data: bytes) -> None:
    """Check that the peer ends the connection without a close record."""
    peer.take(data)
    assert peer.closed.code is None
    assert peer.give() == b""


# --- records ----------------------------------------------------------------------------------
@BOTH
def test_records_every_way(side: Side) -> None:
    """Whole, byte by byte, with trailing bytes: the same contents."""
    source = fixed_pair()
    source.run()
    other = source.server if side is Side.CLIENT else source.client
    data = b"".join(other.connection.seal(bytes((n,)) * n, 0.0) for n in range(1, 40))

    def make() -> Peer:
        pair = fixed_pair()
        pair.run()
        peer = pair.client if side is Side.CLIENT else pair.server
        peer.events.clear()
        return peer

    events = receive_every_way(make, data)
    assert events == [ApplicationData(bytes((n,)) * n) for n in range(1, 40)]


@given(
    contents=st.lists(st.binary(max_size=300), max_size=6),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60)
def test_random_splits_give_identical_events(contents: list[bytes], seed: int) -> None:
    """A whole connection, split at random positions in both directions."""
    cuts = random.Random(seed)
    whole, split = fixed_pair(), fixed_pair()
    for pair, random_cuts in ((whole, None), (split, cuts)):
        carry(pair, random_cuts)
        for content in contents:
            pair.client.connection.send(content, 0.0)
            pair.server.connection.send(content[::-1], 0.0)
        pair.client.connection.ping(b"?", 0.0)
        carry(pair, random_cuts)
        pair.client.connection.close(CloseCode.NORMAL, 0.0)
        carry(pair, random_cuts)
    assert split.client.events == whole.client.events
    assert split.server.events == whole.server.events
    assert whole.server.received == contents
    assert whole.client.received == [content[::-1] for content in contents]
    assert whole.server.closed.clean
    assert whole.client.closed.clean


def carry(pair: Pair, cuts: random.Random | None) -> None:
    while (down := pair.server.give()) + (up := pair.client.give()):
        for data, target in ((down, pair.client), (up, pair.server)):
            while data:
                size = cuts.randint(1, len(data)) if cuts else len(data)
                target.take(data[:size])
                data = data[size:]


@given(data=st.binary(max_size=2000), phase=st.sampled_from(range(4)))
@settings(max_examples=150)
def test_random_bytes_never_escape(data: bytes, phase: int) -> None:
    """Alone, and after the header of a legal frame: events, never an exception."""
    kinds = (FrameType.SERVER_HELLO, FrameType.CLIENT_KEY, FrameType.SERVER_FINISHED, 0x10)
    length = max(1, min(len(data), 4096))
    for text in (data, header(kinds[phase], length) + data):
        if phase == 0:
            peer = client()
        elif phase == 1:
            peer = server()
        else:
            pair = fixed_pair()
            pair.client.take(pair.server.give())
            if phase == 3:
                pair.run()
            peer = pair.client
        before = peer.completed
        peer.take(text)
        peer.at(1000.0)
        peer.at(2000.0)
        assert peer.completed == before
        assert not peer.received


@BOTH
def test_a_flipped_bit_in_a_record(side: Side) -> None:
    """In each byte: no event, nothing is sent, the connection has ended."""
    whole = len(record(ends(side)[1], 1, b"secret"))
    for index in range(0, whole, 3 if side is Side.CLIENT else 1):
        pair = fixed_pair()
        pair.run()
        peer, other = (
            (pair.client, pair.server) if side is Side.CLIENT else (pair.server, pair.client)
        )
        data = bytearray(record(other, 1, b"secret"))
        data[index] ^= 1 << index % 8
        peer.take(bytes(data))
        if 1 <= index < 4 and not peer.connection.finished:
            peer.take(bytes(70_000))  # a longer length was claimed: send that many bytes
        assert peer.connection.finished
        assert not peer.received
        # A header that is illegal by itself is a violation, and gets a close; a wrong tag does not.
        assert peer.closed.code in (None, CloseCode.PROTOCOL)
        assert (peer.closed.code is None) == (peer.give() == b"")


@BOTH
def test_replayed_reordered_dropped_and_reflected_records(side: Side) -> None:
    def attempt(arrange: str) -> Peer:
        peer, other = ends(side)
        one, two, three = (record(other, 1, bytes((n,))) for n in (1, 2, 3))
        mine = peer.connection.seal(b"mine", 0.0)
        drops(
            peer,
            {
                "replay": one + one,
                "swap": two + one,
                "omit": one + three,
                "reflect": one + mine,
                "late replay": one + two + three + one,
            }[arrange],
        )
        return peer

    assert attempt("replay").received == [b"\1"]
    assert attempt("swap").received == []
    assert attempt("omit").received == [b"\1"]
    assert attempt("reflect").received == [b"\1"]
    assert attempt("late replay").received == [b"\1", b"\2", b"\3"]


@BOTH
def test_a_record_of_another_connection(side: Side) -> None:
    peer, _ = ends(side)
    drops(peer, record(ends(side)[1], 1, b"x"))


@BOTH
@pytest.mark.parametrize("kind", [0, 7, 8, 0x10, 0x80, 0xFF])
def test_unknown_types_of_record(side: Side, kind: int) -> None:
    peer, other = ends(side)
    send = other.connection._send
    head = bytes((0x10, 0, 0, 64 + 16))
    inner = b"content" + bytes((kind,)) + bytes(56)
    if kind == 0:
        inner = bytes(64)
    sealed = new_aead(send._key).encrypt(send._iv.to_bytes(12, "big"), inner, head) \
        if send.sequence == 0 else b""  # fmt: skip
    assert sealed
    refuses(peer, other, head + sealed)


@BOTH
def test_an_empty_app_record_reaches_the_envelopes(side: Side) -> None:
    """17 bytes, type only: legal as a record; that it has no envelope is detected later."""
    peer, other = ends(side)
    send = other.connection._send
    head = bytes((0x10, 0, 0, 17))
    peer.take(head + new_aead(send._key).encrypt(send._iv.to_bytes(12, "big"), b"\1", head))
    assert peer.received == [b""]


@BOTH
@pytest.mark.parametrize("length", [0, 1, 15, 16, 69_649, 0xFFFFFF])
def test_lengths_that_no_record_has(side: Side, length: int) -> None:
    peer, other = ends(side)
    refuses(peer, other, header(FrameType.RECORD, length))


@BOTH
def test_the_largest_record(side: Side) -> None:
    peer, other = ends(side)
    other.connection.send(bytes(65_536), 0.0)
    peer.take(other.give())
    assert peer.received == [bytes(65_536)]
    with pytest.raises(LocalProtocolError):
        other.connection.send(bytes(65_537), 0.0)


def test_a_violation_costs_no_memory() -> None:
    """A claimed length, a flood of refused starts: nothing is buffered."""
    peers = [ends(Side.SERVER)[0] for _ in range(4)]
    tracemalloc.start()
    try:
        for peer in peers:
            peer.take(b"\x10\x01\x10\x10")  # the largest record's header, and no more
        assert tracemalloc.get_traced_memory()[1] < 65_536
    finally:
        tracemalloc.stop()


# --- sending ----------------------------------------------------------------------------------
def test_sends_queue_in_order_behind_what_waits() -> None:
    """Client: the first send may come while ClientFinished is queued, and so may a sealed
    record.
    """
    pair = fixed_pair()
    pair.client.take(pair.server.give())
    pair.server.take(pair.client.give())
    pair.client.take(pair.server.give())
    for n in range(3):
        pair.client.connection.send(bytes((n,)), 0.0)
    pair.server.take(pair.client.connection.seal(b"sealed", 0.0))
    pair.run()
    assert pair.server.received == [b"\0", b"\1", b"\2", b"sealed"]


@pytest.mark.parametrize("peer", [client(), server()])
def test_nothing_is_sent_before_the_handshake_is_complete(peer: Peer) -> None:
    waiting = peer.give()
    for call in (
        lambda: peer.connection.send(b"x", 0.0),
        lambda: peer.connection.seal(b"x", 0.0),
        lambda: peer.connection.ping(b"x", 0.0),
    ):
        with pytest.raises(LocalProtocolError):
            call()
    assert peer.give() == b""
    assert waiting == b"" or waiting[0] == FrameType.SERVER_HELLO


def _be_pinged(mine: Peer, theirs: Peer) -> None:
    theirs.connection.ping(b"?", 0.0)
    mine.connection.receive_data(theirs.give(), 0.0)


def _be_closed(mine: Peer, theirs: Peer) -> None:
    theirs.connection.close(CloseCode.NORMAL, 0.0)
    mine.connection.receive_data(theirs.give(), 0.0)


def _get_a_wrong_tag(mine: Peer, _: Peer) -> None:
    mine.connection.receive_data(record(ends(Side.CLIENT)[1], 1, b"x"), 0.0)


_MOVES: dict[str, Callable[[Peer, Peer], object]] = {
    "send": lambda mine, _: mine.connection.send(b"mine", 0.0),
    "seal": lambda mine, _: mine.connection.seal(b"mine", 0.0),
    "give": lambda mine, theirs: theirs.take(mine.give()),
    "ping": lambda mine, _: mine.connection.ping(b"?", 0.0),
    "be pinged": _be_pinged,
    "deadline": lambda mine, _: mine.connection.handle_deadline(1e9),
    "close": lambda mine, _: mine.connection.close(CloseCode.NORMAL, 0.0),
    "be closed": _be_closed,
    "shed": lambda mine, _: mine.connection.shed(CloseCode.OVERLOADED, 0.0, 1, "full"),
    "abort": lambda mine, _: mine.connection.abort("enough"),
    "garbage": lambda mine, _: mine.connection.receive_data(b"\xff" * 100, 0.0),
    "wrong tag": _get_a_wrong_tag,
    "end": lambda mine, _: mine.connection.receive_eof(0.0),
}


@BOTH
@given(moves=st.lists(st.sampled_from(sorted(_MOVES)), max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_cipher_seals_directly_only_if_nothing_is_to_be_sent_before(
    side: Side, moves: list[str]
) -> None:
    """Otherwise a record would overtake the one before it in the sequence, or follow a close."""
    mine, theirs = ends(side, FEW)
    for move in ["", *moves]:
        if move:
            with contextlib.suppress(LocalProtocolError):
                _MOVES[move](mine, theirs)
        connection = mine.connection
        free = connection.phase is Phase.OPEN and not connection.out
        assert connection.send_cipher.direct == free, move


@BOTH
def test_nothing_is_sent_after_a_close(side: Side) -> None:
    peer, _ = ends(side)
    peer.connection.close(CloseCode.NORMAL, 0.0)
    peer.give()
    with pytest.raises(LocalProtocolError):
        peer.connection.send(b"x", 0.0)
    with pytest.raises(LocalProtocolError):
        peer.connection.seal(b"x", 0.0)


# --- key updates ------------------------------------------------------------------------------
def test_updates_both_ways_under_traffic() -> None:
    """A threshold of 3 records, 40 messages each way: many generations, nothing lost."""
    pair = established(FEW)
    sent = [bytes((n,)) for n in range(40)]
    for content in sent:
        pair.client.connection.send(content, 0.0)
        pair.server.connection.send(content, 0.0)
        pair.run()
    assert pair.server.received == sent
    assert pair.client.received == sent
    assert pair.client.connection._send.sequence <= 3


def test_seal_puts_the_update_in_front() -> None:
    pair = established(FEW)
    for n in range(10):
        pair.server.take(pair.client.connection.seal(bytes((n,)), 0.0))
    assert pair.server.received == [bytes((n,)) for n in range(10)]


def test_an_update_after_an_hour() -> None:
    pair = established()
    pair.client.connection.send(b"before", 3599.0)
    pair.client.connection.send(b"after", 3600.0)
    data = pair.client.give()
    assert len(data) == 3 * 84
    pair.server.take(data)
    assert pair.server.received == [b"before", b"after"]
    assert pair.server.connection._receive.sequence == 1


@BOTH
def test_an_update_with_a_content(side: Side) -> None:
    peer, other = ends(side)
    refuses(peer, other, record(other, RecordType.KEY_UPDATE, b"\0"))


@BOTH
def test_two_updates_in_a_row(side: Side) -> None:
    peer, other = ends(side, FEW)
    first = record(other, RecordType.KEY_UPDATE)
    other.connection._send.update(0.0)
    peer.take(first)
    assert peer.phase is Phase.OPEN
    refuses(peer, other, record(other, RecordType.KEY_UPDATE))


@BOTH
def test_a_burst_of_updates(side: Side) -> None:
    """10,000 in one read end at the second, and cost no more than that."""
    peer, other = ends(side)
    send = other.connection._send
    burst = bytearray()
    for _ in range(10_000):
        burst += send.seal(RecordType.KEY_UPDATE, b"")
        send.update(0.0)
    data = bytes(burst)
    tracemalloc.start()
    try:
        peer.take(data)
        assert tracemalloc.get_traced_memory()[1] < 65_536
    finally:
        tracemalloc.stop()
    assert peer.closed.code == CloseCode.PROTOCOL


@BOTH
def test_an_old_key_after_an_update(side: Side) -> None:
    """The sender announces an update and continues with the old key."""
    peer, other = ends(side)
    drops(peer, record(other, RecordType.KEY_UPDATE) + record(other, 1, b"old"))
    assert not peer.received


@BOTH
def test_an_update_that_does_not_come(side: Side) -> None:
    peer, other = ends(side, FEW)
    data = b"".join(record(other, 1, bytes((n,))) for n in range(9))
    refuses(peer, other, data)
    assert len(peer.received) == 8


# --- ping and pong ----------------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("payload", [b"", b"?", b"p" * 64])
def test_a_ping_is_answered(side: Side, payload: bytes) -> None:
    peer, other = ends(side)
    other.connection.ping(payload, 0.0)
    peer.take(other.give())
    other.take(peer.give())
    assert other.events == [PongReceived(payload)]
    assert peer.events == []


@BOTH
def test_pings_and_pongs_that_are_too_long(side: Side) -> None:
    for kind in (RecordType.PING, RecordType.PONG):
        peer, other = ends(side)
        refuses(peer, other, record(other, kind, bytes(65)))
    with pytest.raises(LocalProtocolError):
        ends(side)[0].connection.ping(bytes(65), 0.0)


@BOTH
def test_a_flood_of_pings_is_answered_once_a_second(side: Side) -> None:
    peer, other = ends(side)
    data = b"".join(record(other, RecordType.PING, b"p" * 64) for _ in range(1000))
    peer.take(data)
    assert len(peer.give()) == 4 + 128 + 16
    peer.now = 0.99
    peer.take(record(other, RecordType.PING))
    assert peer.give() == b""
    peer.now = 1.0
    peer.take(record(other, RecordType.PING))
    assert len(peer.give()) == 4 + 64 + 16
    assert peer.phase is Phase.OPEN


@BOTH
def test_a_pong_that_nobody_asked_for(side: Side) -> None:
    peer, other = ends(side)
    peer.take(record(other, RecordType.PONG, b"unasked"))
    assert peer.phase is Phase.OPEN


@BOTH
def test_silence_has_an_end(side: Side) -> None:
    """A ping after 30 s, another after 60 s, the end after 90 s: IDLE, with a close record."""
    peer, other = ends(side)
    assert peer.connection.next_deadline() == 30.0
    peer.at(29.9)
    assert peer.give() == b""
    for due in (30.0, 60.0):
        peer.at(due)
        assert len(peer.give()) == 84
        assert peer.connection.next_deadline() == due + 30.0
    peer.at(90.0)
    assert peer.closed.code == CloseCode.IDLE
    assert not peer.closed.remote
    for _ in range(2):
        other.connection._receive.sequence += 1  # the two pings, which it never got
    assert close_code_in(peer.give(), other) == CloseCode.IDLE
    assert peer.connection.next_deadline() is None


@BOTH
def test_any_record_breaks_the_silence(side: Side) -> None:
    pair = established()
    peer = pair.client if side is Side.CLIENT else pair.server
    for due in (30.0, 60.0, 90.0, 120.0, 150.0):
        pair.at(due)
    assert pair.client.phase is pair.server.phase is Phase.OPEN
    assert peer.connection.next_deadline() == 180.0
    assert pair.client.events == pair.server.events == [], "the keepalive is no event"


@BOTH
def test_garbage_does_not_break_the_silence(side: Side) -> None:
    """Half a record that arrives slowly does not count as traffic."""
    peer, other = ends(side)
    whole = record(other, 1, bytes(1000))
    trickle = list(pieces(whole[:-1], 13))
    assert 60 < len(trickle) < 90
    for second, piece in enumerate(trickle):
        peer.at(float(second))
        peer.take(piece)
    peer.at(90.0)
    assert peer.closed.code == CloseCode.IDLE


# --- close ------------------------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("code", [*CloseCode, 0, 999, 3000, 65_535])
def test_a_close_is_answered_and_clean_on_both_sides(side: Side, code: int) -> None:
    peer, other = ends(side)
    peer.connection.close(code, 0.0, retry_after_s=7)
    peer.act()
    assert peer.phase is Phase.CLOSING
    other.take(peer.give())
    assert (other.closed.code, other.closed.retry_after_s) == (code, 7)
    assert other.closed.clean
    assert other.closed.remote
    answer = other.give()
    peer.take(answer)
    assert peer.closed.code == code
    assert peer.closed.clean
    assert not peer.closed.remote
    assert peer.give() == b""


def test_a_retry_that_does_not_fit_is_cut() -> None:
    pair = established()
    pair.server.connection.close(CloseCode.OVERLOADED, 0.0, retry_after_s=100_000)
    pair.run()
    assert pair.client.closed.retry_after_s == 65_535


def test_both_close_at_once() -> None:
    pair = established()
    pair.client.connection.close(CloseCode.NORMAL, 0.0)
    pair.server.connection.close(CloseCode.GOING_AWAY, 0.0)
    pair.run()
    assert pair.client.closed.code == CloseCode.NORMAL
    assert pair.server.closed.code == CloseCode.GOING_AWAY
    assert pair.client.closed.clean
    assert pair.server.closed.clean


@BOTH
def test_nothing_behind_a_close_is_read(side: Side) -> None:
    peer, other = ends(side)
    close = record(other, RecordType.CLOSE, b"\x07\xd0\0\0")
    peer.take(close + record(other, 1, b"ghost") + b"\xff" * 100)
    assert peer.closed.clean
    assert not peer.received
    peer.take(record(other, 1, b"ghost"))
    assert not peer.received


@BOTH
@pytest.mark.parametrize("content", [b"", b"\x07", b"\x07\xd0", b"\x07\xd0\0", b"\x07\xd0\0\0\0"])
def test_malformed_closes(side: Side, content: bytes) -> None:
    peer, other = ends(side)
    refuses(peer, other, record(other, RecordType.CLOSE, content))


@BOTH
def test_what_arrives_while_closing_is_dropped(side: Side) -> None:
    peer, other = ends(side)
    peer.connection.close(CloseCode.NORMAL, 0.0)
    peer.give()
    peer.take(record(other, 1, b"late") + record(other, RecordType.PING, b"?"))
    assert peer.give() == b""
    assert not peer.received
    assert peer.phase is Phase.CLOSING


@BOTH
def test_a_close_that_nobody_answers(side: Side) -> None:
    peer, _ = ends(side)
    peer.connection.close(CloseCode.KICKED, 5.0)
    assert peer.connection.next_deadline() == 7.0
    peer.at(7.0)
    assert peer.closed.code == CloseCode.KICKED
    assert not peer.closed.clean


@BOTH
def test_a_violation_while_closing_keeps_the_code(side: Side) -> None:
    peer, other = ends(side)
    peer.connection.close(CloseCode.KICKED, 0.0)
    peer.give()
    peer.take(record(other, RecordType.PING, bytes(65)))
    assert peer.closed.code == CloseCode.KICKED
    assert peer.give() == b""


@BOTH
def test_the_end_of_the_stream_is_a_lost_connection(side: Side) -> None:
    peer, other = ends(side)
    peer.take(record(other, 1, b"whole") + record(other, 1, b"half a message")[:30])
    peer.connection.receive_eof(0.0)
    peer.act()
    assert peer.received == [b"whole"]
    assert peer.closed.code is None
    assert not peer.closed.clean
    assert peer.closed.remote


@BOTH
def test_closing_twice_and_aborting_after_the_end(side: Side) -> None:
    peer, _ = ends(side)
    peer.connection.close(CloseCode.NORMAL, 0.0)
    data = peer.give()
    peer.connection.close(CloseCode.KICKED, 0.0)
    assert data
    assert peer.give() == b""
    peer.connection.abort("enough")
    peer.connection.abort("enough, I said")
    peer.connection.close(CloseCode.NORMAL, 0.0)
    peer.act()
    assert peer.closed.detail == "enough"


@pytest.mark.parametrize("peer", [client(), server()])
def test_a_close_before_there_are_keys_is_silent(peer: Peer) -> None:
    peer.give()
    peer.connection.close(CloseCode.GOING_AWAY, 0.0)
    peer.act()
    assert peer.give() == b""
    assert peer.closed.code is None


# --- tickets (reserved) -----------------------------------------------------------------------
def ticket(length: int, extra: bytes = b"") -> bytes:
    return bytes(12) + length.to_bytes(2, "big") + bytes(length) + extra


def test_two_tickets_are_taken_and_the_third_ends() -> None:
    peer, other = ends(Side.CLIENT)
    peer.take(b"".join(record(other, RecordType.TICKET, ticket(n)) for n in (1, 256)))
    assert peer.phase is Phase.OPEN
    assert [type(event) for event in peer.events] == [TicketReceived, TicketReceived]
    refuses(peer, other, record(other, RecordType.TICKET, ticket(1)))


@pytest.mark.parametrize("content", [b"", bytes(13), ticket(0), ticket(257), ticket(9, b"\0")])
def test_malformed_tickets(content: bytes) -> None:
    peer, other = ends(Side.CLIENT)
    refuses(peer, other, record(other, RecordType.TICKET, content))


def test_a_ticket_from_a_client() -> None:
    peer, other = ends(Side.SERVER)
    refuses(peer, other, record(other, RecordType.TICKET, ticket(16)))


# --- deadlines of the handshake ---------------------------------------------------------------
def test_deadlines_are_absolute() -> None:
    """Ten seconds for ClientKey, fifteen for the whole handshake, however slowly the bytes
    arrive.
    """
    peer = server()
    peer.give()
    for second in range(10):
        peer.at(float(second))
        peer.take(b"\x02\x00\x06\x0c"[second : second + 1] or b"k")
        assert peer.connection.next_deadline() == 10.0
    peer.at(10.0)
    assert peer.closed.code is None
    assert peer.give() == b""


def test_the_servers_whole_handshake_has_fifteen_seconds() -> None:
    pair = fixed_pair()
    pair.client.take(pair.server.give())
    pair.server.now = 9.0
    pair.server.take(pair.client.give())
    assert pair.server.connection.next_deadline() == 15.0
    pair.server.at(14.9)
    assert not pair.server.connection.finished
    pair.server.at(15.0)
    assert "too long" in pair.server.closed.detail


def test_the_client_waits_fifteen_seconds_for_the_server() -> None:
    for steps in (0, 1):
        pair = fixed_pair()
        if steps:
            pair.client.take(pair.server.give())
        assert pair.client.connection.next_deadline() == 15.0
        pair.client.at(14.9)
        assert not pair.client.connection.finished
        pair.client.at(15.0)
        assert "too long" in pair.client.closed.detail


def test_timing_is_a_parameter() -> None:
    timing = Timing(client_key_s=1.0, handshake_s=2.0, ping_after_s=3.0, close_wait_s=4.0)
    pair = Pair(client(timing=timing), server(timing=timing))
    assert pair.server.connection.next_deadline() == 1.0
    assert pair.client.connection.next_deadline() == 2.0
    pair.run()
    assert pair.server.connection.next_deadline() == 3.0
    pair.server.connection.close(CloseCode.NORMAL, 0.5)
    assert pair.server.connection.next_deadline() == 4.5


def test_who_is_pinged_twice_keeps_the_keys_alone() -> None:
    """The library's key objects are most of an idle connection's memory."""
    pair = established()
    for number in range(10):
        pair.client.connection.send(b"from the client", float(number))
        pair.server.connection.send(b"from the server", float(number))
        pair.run()
    ends = [end.connection for end in (pair.client, pair.server)]
    ciphers = [cipher for end in ends for cipher in (end._send, end._receive)]
    assert all(cipher._aead is not None for cipher in ciphers), "they are in use"
    for now in (100.0, 200.0):
        pair.at(now)
    assert all(cipher._aead is None for cipher in ciphers)
    pair.client.connection.send(b"and on", 201.0)
    pair.run()
    assert pair.server.received[-1] == b"and on"


def test_a_frame_type_of_the_handshake_in_the_open_phase() -> None:
    for kind in (1, 2, 3, 4):
        peer, other = ends(Side.SERVER)
        refuses(peer, other, frame(FrameType(kind), b"x"))


# --- after a violation ------------------------------------------------------------------------
WAITING = Timing(violation_wait_s=2.0)


def violated() -> tuple[Peer, Peer]:
    """A server that waits for the end of the stream after a violation, and its client."""
    pair = established(timing=WAITING)
    pair.server.take(record(pair.client, RecordType.PING, bytes(65)))
    assert pair.server.phase is Phase.DRAINING
    return pair.server, pair.client


@pytest.mark.parametrize("violation", [b"\x7f\0\0\1", b""])
def test_after_a_violation_the_server_reads_on(violation: bytes) -> None:
    """Section 5: the close was sent, the owner has its event, and what follows is discarded."""
    pair = established(timing=WAITING)
    pair.server.take(violation or record(pair.client, RecordType.PING, bytes(65)))
    told = [event for event in pair.server.events if isinstance(event, ConnectionClosed)]
    assert [event.code for event in told] == [CloseCode.PROTOCOL]
    assert close_code_in(pair.server.give(), pair.client) == CloseCode.PROTOCOL
    for _ in range(3):
        pair.server.take(record(pair.client, RecordType.APP, b"late") + bytes(100_000))
    assert not pair.server.connection.finished
    assert pair.server.give() == b""
    pair.server.connection.receive_eof(0.0)
    pair.server.act()
    assert pair.server.connection.finished
    assert pair.server.events == told, "reported once"


def test_the_wait_after_a_violation_is_bounded_in_time() -> None:
    server_end, _ = violated()
    assert server_end.connection.next_deadline() == 2.0
    server_end.at(1.9)
    assert not server_end.connection.finished
    server_end.at(2.0)
    assert server_end.connection.finished
    assert server_end.connection.next_deadline() is None


def test_what_is_read_after_our_close_is_bounded() -> None:
    server_end, _ = violated()
    for _ in range(256):
        server_end.take(bytes(65_536))
        assert not server_end.connection.finished
    server_end.take(b"\0")
    assert server_end.connection.finished
    for peer, other in (ends(Side.SERVER), ends(Side.CLIENT)):
        peer.connection.close(CloseCode.GOING_AWAY, 0.0)
        whole = (record(other, RecordType.APP, bytes(60_000)) for _ in range(300))
        for data in whole:
            peer.take(data)
            if peer.connection.finished:
                break
        assert peer.closed.code == CloseCode.GOING_AWAY


def test_nothing_can_be_said_during_the_wait() -> None:
    server_end, _ = violated()
    server_end.give()
    server_end.connection.close(CloseCode.NORMAL, 0.0)
    with pytest.raises(LocalProtocolError):
        server_end.connection.send(b"x", 0.0)
    assert server_end.give() == b""
    server_end.connection.abort("enough")
    server_end.act()
    assert server_end.connection.finished
    assert len([e for e in server_end.events if isinstance(e, ConnectionClosed)]) == 1


def test_a_client_does_not_wait_after_a_violation() -> None:
    pair = established(timing=WAITING)
    pair.client.take(b"\x7f\0\0\1")
    assert pair.client.connection.finished
    assert close_code_in(pair.client.give(), pair.server) == CloseCode.PROTOCOL


def test_a_wrong_tag_ends_at_once_and_silently() -> None:
    pair = established(timing=WAITING)
    data = bytearray(record(pair.client, RecordType.APP, b"x"))
    data[-1] ^= 1
    drops(pair.server, bytes(data))


# --- what an owner bounds -----------------------------------------------------------------------
@pytest.mark.parametrize("over", [0, 1])
def test_an_owner_may_refuse_long_records(over: int) -> None:
    """A header that announces more is refused before a byte of the body is buffered."""
    pair = fixed_pair()
    pair.run()
    source, sink = pair.client, pair.server
    data = source.connection.seal(bytes(1000), 0.0)
    sink.connection.limit_records(len(data) - limits.FRAME_HEADER_BYTES - over)
    if over:
        refuses(sink, source, data[: limits.FRAME_HEADER_BYTES])
        assert sink.connection.reader.pending == 0
    else:
        sink.take(data)
        assert sink.received == [bytes(1000)]


def test_shedding_forgets_what_was_received_and_says_why() -> None:
    """The close record is sent, half a record is discarded, and what still comes as well."""
    timing = Timing(violation_wait_s=2.0)
    pair = Pair(client(), server(timing=timing))
    pair.run()
    half = pair.client.connection.seal(bytes(60_000), 0.0)[:50_000]
    pair.server.take(half)
    assert pair.server.connection.reader.pending == len(half)
    pair.server.connection.shed(CloseCode.OVERLOADED, 0.0, 7, "too much")
    assert pair.server.connection.reader.pending == 0
    pair.server.take(bytes(100_000))
    assert pair.server.connection.reader.pending == 0
    assert not pair.server.connection.finished
    pair.client.take(pair.server.give())
    assert pair.client.closed.code == CloseCode.OVERLOADED
    assert pair.client.closed.retry_after_s == 7


def test_shedding_before_there_are_keys_is_silent() -> None:
    peer = server()
    peer.give()
    peer.connection.shed(CloseCode.OVERLOADED, 0.0, 7, "too much")
    assert peer.give() == b""
    assert peer.connection.finished
