"""Statements of docs/protocol.md about a server's behaviour, each tested against a real server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from types import ModuleType
from typing import TypeVar, cast

import msgpack
import pytest

from relay.chat.accounts import requests as account_requests
from relay.chat.entries import NO_EPOCH, GapReason
from relay.chat.rooms import requests as room_requests
from relay.wire import envelopes as wire
from relay.wire import packing
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Op
from relay.wire.events import ApplicationData, ConnectionClosed
from tests.support.cluster import Relay
from tests.support.raw import RawClient

Envelope = TypeVar("Envelope")
LARGEST = 2**32 - 1


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one relay for all tests."""
    with Relay(tmp_path_factory.mktemp("page") / "data") as running:
        yield running.port


@pytest.fixture
def raw(port: int) -> Iterator[RawClient]:
    """A logged-in client."""
    client = RawClient("127.0.0.1", port, f"raw-{secrets.token_hex(4)}")
    yield client
    client.close()


@pytest.fixture
def room() -> str:
    return f"room-{secrets.token_hex(4)}"


def next_of(raw: RawClient, kind: type[Envelope]) -> Envelope:
    """Return the next envelope of a kind, skipping others."""
    return cast("Envelope", raw.wait(lambda envelope: isinstance(envelope, kind)))


def refusal(raw: RawClient) -> tuple[int, int, int]:
    """Return (request, code, arg) of the next ERROR."""
    error = next_of(raw, wire.Error)
    return error.request, error.code, error.arg


def send_fields(raw: RawClient, *fields: object) -> None:
    raw.send_content(msgpack.packb(list(fields)))


def ends_with(raw: RawClient, code: CloseCode) -> None:
    with pytest.raises(ConnectionError, match=f"closed with {code.value}:"):
        raw.wait(lambda _: False)


# --- section 6: the rules for all envelopes -------------------------------------------------------
@pytest.mark.parametrize("op", [0, 11, 33, 39, 45, 255, 256, 65_536, LARGEST])
def test_an_unknown_operation_is_answered(raw: RawClient, room: str, op: int) -> None:
    """Operations that only a server sends as well; the connection stays open."""
    send_fields(raw, op, "whatever", [1, [2]])
    assert refusal(raw) == (0, ErrorCode.UNKNOWN_OPERATION, op)
    raw.join(room)


@pytest.mark.parametrize(
    "fields",
    [
        (Op.JOIN, 0, "lobby", None, 0, 0),
        (Op.LEAVE, 0, "lobby"),
        (Op.WHO, 0, "lobby"),
        (Op.HISTORY, 0, "lobby", False, 0, 1),
        (Op.HELLO, "again", b"s" * 16, "", "", b"", b""),
        (Op.REGISTER, 1, "again", b"k" * 32, b"s" * 64, b"l", b""),
        (Op.ENROL, 1, "again", b"k" * 32, b"s" * 64, b""),
        (2**32,),
        (-1,),
        (11, *range(24)),
        (11, {}),
    ],
)
def test_a_violation(raw: RawClient, fields: tuple[object, ...]) -> None:
    send_fields(raw, *fields)
    ends_with(raw, CloseCode.PROTOCOL)


def test_a_bad_envelope_ends_the_connection_and_a_repeat_settles_the_rest(
    port: int, room: str
) -> None:
    """Whether or not the SEND before it was committed, a repeat is stored once."""
    secret = secrets.token_bytes(16)
    send = wire.Send(room, 1, 0, "text/plain", b"once")
    name = f"raw-{secrets.token_hex(4)}"
    raw = RawClient("127.0.0.1", port, name, secret)
    raw.send_content(packing.pack(send) + msgpack.packb([Op.WHO, 0, room]))
    ends_with(raw, CloseCode.PROTOCOL)
    raw.close()
    again = RawClient("127.0.0.1", port, name, secret)
    again.send_envelopes(send)
    assert next_of(again, wire.Ack).seq == 2
    again.send_envelopes(wire.Join(1, room, None, 0, 1))
    assert next_of(again, wire.EntryMessage).body == b"once"
    assert next_of(again, wire.Live).seq == 2
    again.close()


# --- names ----------------------------------------------------------------------------------------
BAD_DISPLAYS = ["x" * 65, " x", "x\x1b[2J", "e" + "\u0301" * 5, "\u0301e", "\ue000", "\u3164"]


@pytest.mark.parametrize(
    ("name", "display"),
    [("root", ""), ("~root", ""), ("a", ""), *(("ann-x", text) for text in BAD_DISPLAYS)],
)
def test_a_bad_name_or_display_name(port: int, name: str, display: str) -> None:
    """NAME_INVALID with request 0, and a close NAME_REFUSED."""
    seen: list[wire.ServerEnvelope] = []

    class LoggingIn(RawClient):
        def send_envelopes(self, *envelopes: wire.ClientEnvelope) -> None:
            *_, hello = envelopes
            assert isinstance(hello, wire.Hello)
            super().send_envelopes(hello._replace(display=display))

        def _contents(self) -> list[bytes]:
            events = self.connection.events()
            for event in events:
                if isinstance(event, ApplicationData):
                    seen.extend(packing.unpack_server(event.content))
            for event in events:
                if isinstance(event, ConnectionClosed):
                    raise ConnectionError(f"closed with {event.code}")
            return []

    with pytest.raises(ConnectionError, match=f"closed with {CloseCode.NAME_REFUSED.value}"):
        LoggingIn("127.0.0.1", port, name)
    (error,) = seen
    assert isinstance(error, wire.Error)
    assert (error.request, error.code) == (0, ErrorCode.NAME_INVALID)


@pytest.mark.parametrize("log", ["x", "UPPER CASE", "a/b", "../etc", "@a", "ä" * 16])
def test_invalid_names_of_logs(raw: RawClient, log: str) -> None:
    """JOIN and SEND check the name; other requests check whether such a log is joined."""
    raw.send_envelopes(wire.Join(1, log, None, 0, 0))
    assert refusal(raw) == (1, ErrorCode.NAME_INVALID, 0)
    raw.send_envelopes(wire.Leave(2, log))
    assert refusal(raw) == (2, ErrorCode.NOT_A_MEMBER, 0)
    raw.send_envelopes(wire.Who(3, log))
    assert refusal(raw) == (3, ErrorCode.NOT_A_MEMBER, 0)
    raw.send_envelopes(wire.History(4, log, False, 0, 1))
    assert refusal(raw) == (4, ErrorCode.NOT_A_MEMBER, 0)
    raw.send_envelopes(wire.Search(5, log, "word", 0, 1))
    assert refusal(raw) == (5, ErrorCode.NOT_A_MEMBER, 0)
    raw.send_envelopes(wire.Room(6, log, room_requests.pack(room_requests.Show(""), 0)))
    assert refusal(raw) == (6, ErrorCode.NAME_INVALID, 0)
    raw.send_envelopes(wire.Send(log, 1, 0, "", b""))
    assert next_of(raw, wire.Refused).code == ErrorCode.NAME_INVALID


def test_inboxes_are_their_owners(raw: RawClient) -> None:
    raw.send_envelopes(wire.Join(1, "@somebody-else", None, 0, 0))
    assert refusal(raw)[1] == ErrorCode.NOT_ALLOWED
    raw.send_envelopes(wire.Send("@nobody-has-this", 1, 0, "", b""))
    refused = next_of(raw, wire.Refused)
    assert (refused.log, refused.code) == (f"@{raw.name}", ErrorCode.NOT_REGISTERED)


@pytest.mark.parametrize(
    ("requests", "numbers"),
    [(account_requests, [0, *range(21, 34), 255]), (room_requests, [0, *range(19, 24), 27, 255])],
    ids=["ACCOUNT", "ROOM"],
)
def test_a_request_that_is_not_in_the_table(
    raw: RawClient, room: str, requests: ModuleType, numbers: list[int]
) -> None:
    """Those that only workers make of each other included."""
    assert not set(numbers) & requests.OF_CLIENTS.keys()
    assert requests.SHAPES.keys() <= {*numbers, *requests.OF_CLIENTS}
    for count, number in enumerate(numbers, 1):
        shape = requests.SHAPES.get(number)
        seen = [0] if requests is room_requests else []
        values = (b"l", b"k" * 32, b"", "bob", 0, True)
        fields = [] if shape is None else [
            next(one for one in values if check(one)) for check in shape.checks[len(seen) :]
        ]  # fmt: skip
        content = msgpack.packb([number, *seen, *fields])
        if shape is not None:
            requests.unpack(content)
        raw.send_envelopes(
            wire.Room(count, room, content)
            if requests is room_requests
            else wire.Account(count, "", content)
        )
        assert refusal(raw) == (count, ErrorCode.BAD_REQUEST, 0)


# --- joins, gaps, history -------------------------------------------------------------------------
@pytest.mark.parametrize("epoch", [None, b"whatever"])
def test_a_join_of_too_many(raw: RawClient, room: str, epoch: bytes | None) -> None:
    raw.send_envelopes(wire.Join(5, room, epoch, 0, 10_001))
    assert refusal(raw) == (5, ErrorCode.BAD_REQUEST, 10_000)
    raw.send_envelopes(wire.Join(6, room, None, 0, 10_000))
    assert next_of(raw, wire.Joined).request == 6


def fill(raw: RawClient, room: str, count: int) -> bytes:
    """Store entries; return the epoch."""
    raw.send_envelopes(
        *(wire.Send(room, n, 0, "text/plain", b"%d" % n) for n in range(1, count + 1))
    )
    while (ack := next_of(raw, wire.Ack)).counter < count:
        pass
    return ack.epoch


def test_a_page_of_too_many(raw: RawClient, room: str) -> None:
    """A limit above 1000 counts as 1000; 0 is refused."""
    fill(raw, room, 1001)
    raw.join(room)
    raw.send_envelopes(wire.History(7, room, False, 0, 65_535))
    page = next_of(raw, wire.Page)
    assert 0 < len(page.entries) <= 1000
    assert page.entries[-1].seq == 1002
    assert not page.end
    raw.send_envelopes(wire.History(8, room, False, 0, 0))
    assert refusal(raw)[:2] == (8, ErrorCode.BAD_REQUEST)


def place(raw: RawClient, room: str, epoch: bytes, seq: int) -> tuple[wire.Joined, wire.Gap | None]:
    """Join from a cursor; return JOINED, and the GAP if one comes before LIVE."""
    raw.send_envelopes(wire.Join(1, room, epoch, seq, 0))
    joined = next_of(raw, wire.Joined)
    gap = raw.wait(lambda envelope: isinstance(envelope, wire.Gap | wire.Live))
    if isinstance(gap, wire.Gap):
        return joined, gap
    return joined, None


def test_start_is_the_cursor_of_the_join_and_the_gap_says_the_rest(
    raw: RawClient, room: str
) -> None:
    epoch = fill(raw, room, 3)
    forged = b"forged.."
    for cursor, to, reason in (
        ((epoch, 2), None, None),
        ((NO_EPOCH, 1), None, None),
        ((epoch, 99), (epoch, 4), GapReason.AHEAD),
        ((forged, 99), (NO_EPOCH, 0), GapReason.EPOCH),
        ((forged, 1), (NO_EPOCH, 0), GapReason.EPOCH),
    ):
        joined, gap = place(raw, room, *cursor)
        assert (joined.start_epoch, joined.start_seq) == cursor
        if to is None:
            assert gap is None
        else:
            assert gap is not None
            assert (gap.from_epoch, gap.from_seq) == cursor
            assert (gap.to_epoch, gap.to_seq) == to
            assert gap.reason == reason
            if to[1] < 4:
                entry = next_of(raw, wire.EntryMessage)
                assert (entry.prev, entry.seq) == (to[1], to[1] + 1)
            next_of(raw, wire.Live)
        raw.send_envelopes(wire.Leave(2, room))
        next_of(raw, wire.Left)


def test_a_log_without_entries_has_a_gap_to_nothing(raw: RawClient, room: str) -> None:
    joined, gap = place(raw, room, b"forged..", 7)
    assert (joined.head_epoch, joined.head_seq) == (NO_EPOCH, 0)
    assert gap is not None
    assert (gap.to_epoch, gap.to_seq) == (NO_EPOCH, 0)


# --- sending --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "about", "body", "code"),
    [
        (3, 0, b"", ErrorCode.NOT_SUPPORTED),
        (6, 1, b"", ErrorCode.NOT_SUPPORTED),
        (255, 1, b"", ErrorCode.NOT_SUPPORTED),
        (1, 0, b"x", ErrorCode.NO_SUCH_ENTRY),
        (2, 0, b"", ErrorCode.NO_SUCH_ENTRY),
        (4, 0, b"+1", ErrorCode.NO_SUCH_ENTRY),
        (4, 1, b"", ErrorCode.BAD_REQUEST),
        (4, 1, b"x" * 33, ErrorCode.BAD_REQUEST),
        (4, 1, b"\xff", ErrorCode.BAD_REQUEST),
        (4, 1, b"a\x1fb", ErrorCode.BAD_REQUEST),
        (4, 1, b"\x7f", ErrorCode.BAD_REQUEST),
        (4, 1, "\x9b31m".encode(), ErrorCode.BAD_REQUEST),
        (5, 1, b"lobby", ErrorCode.BAD_REQUEST),
    ],
)
def test_what_no_client_sends_and_what_its_kind_cannot_be(
    raw: RawClient, room: str, kind: int, about: int, body: bytes, code: ErrorCode
) -> None:
    raw.send_envelopes(wire.Send(room, 1, kind, "", body, NO_EPOCH, about))
    refused = next_of(raw, wire.Refused)
    assert (refused.code, refused.arg) == (code, kind if code == ErrorCode.NOT_SUPPORTED else 0)
    assert fill(raw, room, 1), "its counter was used up"


@pytest.mark.parametrize(
    ("to", "code"),
    [
        ("@Vic", ErrorCode.NAME_INVALID),
        ("@v", ErrorCode.NAME_INVALID),
        ("@~guest", ErrorCode.NOT_ALLOWED),
        ("@nobody-here", ErrorCode.NOT_REGISTERED),
    ],
)
def test_a_refused_direct_message_is_refused_in_the_senders_inbox(
    raw: RawClient, to: str, code: ErrorCode
) -> None:
    raw.send_envelopes(wire.Send(to, 1, 0, "", b"x"))
    refused = next_of(raw, wire.Refused)
    assert (refused.log, refused.counter, refused.code) == (f"@{raw.name}", 1, code)


def test_a_content_type_is_relayed_as_it_is(raw: RawClient, room: str) -> None:
    text = "\x1b[2J\0\r\n"
    raw.join(room)
    raw.send_envelopes(wire.Send(room, 1, 0, text, b""))
    begun, entry = (next_of(raw, wire.EntryMessage) for _ in range(2))
    assert (begun.kind, begun.content_type) == (3, "relay/room")
    assert entry.content_type == text
