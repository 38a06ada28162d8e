"""A malicious server cannot make its client hold more than a bound, in any state."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from typing import get_args

import pytest

from relay import limits
from relay.chat.accounts import answers
from relay.chat.accounts import requests as account_requests
from relay.chat.accounts.account import Account
from relay.chat.entries import Cursor, GapReason
from relay.chat.entries import Kind as EntryKind
from relay.chat.rooms import events as room_events
from relay.chat.rooms import requests as room_requests
from relay.chat.rooms import shown
from relay.chat.rooms.events import Kind, Role
from relay.chat.rooms.state import Room
from relay.client import events
from relay.client.decoding import as_entry
from relay.client.errors import ClientError
from relay.client.event_queue import EVENTS_BYTES_MAX, OVER, EventQueue, _size
from relay.client.events import State
from relay.client.pending_sends import Offer
from relay.client.state import ClientState
from relay.wire import envelopes as wire
from relay.wire import packing
from relay.wire.codes import ErrorCode
from tests.client.peer import Link
from tests.support.held import held_bytes

EPOCH = b"e" * 8
WIDE = "\U0001f600"
ROOM = shown.pack(Room(), "", bytes(8))
ACCOUNT = answers.packed_shown(Account("alice"))
RECORDS = 30
"""Of 60 KB: such rosters take 100 MB in a client that bounds events by their number."""
HELD_MAX = OVER * EVENTS_BYTES_MAX + 4 * 1024 * 1024
"""The hard bound of the queue, one record more, and the client's other state."""


def names(count: int, chars: int) -> list[str]:
    return [f"{n:0{chars}d}"[:chars] for n in range(count)]


def packed(*each: wire.ServerEnvelope) -> bytes:
    """As many of these as fit into a record."""
    one = b"".join(map(packing.pack, each))
    return one * (60_000 // len(one))


def entry(seq: int, body: bytes = b"") -> wire.EntryMessage:
    return wire.EntryMessage(
        "room", EPOCH, seq, seq - 1, 0, "a" * 32, b"k" * 32, b"p" * 8, seq, 0, "x" * 64, body
    )


def entries(body: bytes, count: int) -> Iterator[bytes]:
    seq = 1
    while True:
        yield b"".join(packing.pack(entry(seq + n, body)) for n in range(count))
        seq += count


def changes() -> Iterator[bytes]:
    """Each entry sets the longest topic of a room, in characters that take most memory."""
    body = room_events.pack(room_events.TopicSet(WIDE * (limits.ROOM_TOPIC_BYTES_MAX // 4)))
    for first in itertools.count(1, 100):
        yield b"".join(
            packing.pack(entry(seq, body)._replace(kind=3, content_type=room_events.CONTENT_TYPE))
            for seq in range(first, first + 100)
        )


def strangers() -> Iterator[bytes]:
    """Each entry has another sender, with another key."""
    for first in itertools.count(1, 300):
        yield b"".join(
            packing.pack(entry(seq)._replace(sender=f"s{seq}", key_id=b"%032d" % seq))
            for seq in range(first, first + 300)
        )


def next_keys() -> Iterator[bytes]:
    for first in itertools.count(0, 1500):
        yield b"".join(
            packing.pack(wire.NextKey(b"%032d" % number)) for number in range(first, first + 1500)
        )


def repeated(record: bytes) -> Iterator[bytes]:
    while True:
        yield record


FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "rosters of many short names": lambda: repeated(
        packed(wire.Roster("room", 1, 1, 9, [], names(1000, 2)))
    ),
    "rosters of members": lambda: repeated(
        packed(wire.Roster("room", 1, 1, 9, [[n, ""] for n in names(1000, 2)], []))
    ),
    "rosters of wide display names": lambda: repeated(
        packed(wire.Roster("room", 1, 1, 9, [[n, WIDE * 64] for n in names(200, 32)], []))
    ),
    "rosters of nobody": lambda: repeated(packed(wire.Roster("room", 1, 1, 9, [], []))),
    "live": lambda: repeated(packed(wire.Live("room", EPOCH, 0))),
    "behind": lambda: repeated(packed(wire.Behind("room", EPOCH, 0))),
    "gaps": lambda: repeated(packed(wire.Gap("room", EPOCH, 0, EPOCH, 0, 1))),
    "small entries": lambda: entries(b"", 300),
    "large entries": lambda: entries(bytes(30_000), 2),
    "busy": lambda: repeated(packed(wire.Error(1, int(ErrorCode.BUSY), 60_000, "x"))),
    "unavailable": lambda: repeated(
        packed(wire.Refused("room", 1, int(ErrorCode.UNAVAILABLE), 0, "x" * 500))
    ),
    "unknown": lambda: repeated(b"\x91\x63" * 3_000),
    "changes of the room": changes,
    "entries of strangers": strangers,
    "invitations": lambda: repeated(packed(wire.Invited("other", "bob"))),
    # Each drops another one: with a search from the beginning, a record of them took minutes.
    "invitations behind all that can wait": lambda: itertools.chain(
        itertools.repeat(packed(wire.Live("room", EPOCH, 0)), 20),
        repeated(packed(wire.Invited("other", "bob"))),
    ),
    "keys that follow": next_keys,
    "removals": lambda: repeated(packed(wire.Removed("other", 46, "x" * 500))),
    "answers to nothing": lambda: repeated(packed(wire.Chain(9, "bob", [b"x" * 331] * 100, False))),
}


def joined() -> Link:
    link = Link()
    link.log_in()
    link.state.chat.join("room", Cursor(EPOCH, 0), 0, "join")
    link.run()
    link.send_envelopes(wire.Joined(link.heard(wire.Join).request, "room", EPOCH, 0, EPOCH, 0))
    link.results()
    return link


def idle(link: Link) -> None:
    """No call waits: only what one read brings can come, but it may be any amount."""


def waiting_for_an_answer(link: Link) -> None:
    """A send and a request, so that the client must read on; neither is answered."""
    link.state.chat.send(Offer("room", "", b"x"), "send")
    link.state.chat.who("room", "who")


def reconnected(link: Link) -> None:
    """The logs are being joined again."""
    link.lose()
    link.log_in()


def joining(link: Link) -> None:
    """Another log is being joined."""
    link.state.chat.join("other", None, 0, "other")


CASES = [(waiting_for_an_answer, flood) for flood in FLOODS] + [
    (prepare, flood)
    for prepare in (idle, reconnected, joining)
    for flood in ("rosters of members", "live", "small entries")
]


@pytest.mark.parametrize(("prepare", "flood"), CASES)
def test_what_is_held_is_bounded(prepare: Callable[[Link], None], flood: str) -> None:
    """The program takes nothing, and the server ignores a full inbox and a LEAVE."""
    link = joined()
    prepare(link)
    link.run()
    records = FLOODS[flood]()
    for _ in range(RECORDS):
        if link.condition() is not State.ONLINE:
            break
        link.server.send(next(records), link.now)
        link.state.receive_data(link.server.data_to_send(), link.now)
        link.state.data_to_send(link.now)  # is not read
    assert held_bytes(link.state) < HELD_MAX


CHANGES: list[room_events.Event] = [
    room_events.TopicSet(WIDE * (limits.ROOM_TOPIC_BYTES_MAX // 4)),
    room_events.TitleSet("t" * limits.ROOM_TITLE_BYTES_MAX),
    room_events.Banned("p" * 32, b"r" * 32, 2**63 - 3, WIDE * (limits.ROOM_REASON_BYTES_MAX // 4)),
    room_events.RoleSet("p" * 32, b"r" * 32, Role.MODERATOR),
    room_events.KindSet(Kind.ANNOUNCE, False),
    room_events.KeepSet(2**63 - 4, 2**63 - 5, 2**63 - 6),
]


def changed(change: room_events.Event) -> events.Event:
    """Return the event for an entry that changes a room, as it arrives."""
    sent = wire.EntryMessage(
        "r" * 33, EPOCH, 2**63 - 1, 2**63 - 2, 2**63 - 1, "s" * 32, b"k" * 32, b"p" * 16, 1,
        int(EntryKind.SYSTEM), room_events.CONTENT_TYPE, room_events.pack(change),
    )  # fmt: skip
    return as_entry(packing.unpack_entry(packing.pack(sent)))


def test_a_size_is_never_less_than_what_is_held() -> None:
    """For the largest event of each type."""
    big: list[events.Event] = [
        events.Message("r" * 33, EPOCH, 2**63 - 1, 2**63 - 2, 2**63 - 1, "s" * 32, b"k" * 32,
                       b"p" * 8, 2**63 - 1, 255, WIDE * 16, bytes(32_768)),
        *map(changed, CHANGES),
        events.Gap("r" * 33, Cursor(EPOCH, 2**62), Cursor(bytes(8), 2**63 - 1), GapReason.EPOCH),
        events.Live("r" * 33, 2**63 - 1),
        events.Behind("r" * 33, 2**63 - 1),
        events.RosterChanged(
            "r" * 33, 2**32 - 1,
            tuple(events.Member(name, f"{name}{WIDE * 32}") for name in names(1000, 32)),
            tuple(f"left{name}" for name in names(1000, 28)), 2**63 - 1, 2**63 - 1),
        events.StateChanged(State.WAITING, WIDE * 512, 1.5),
        events.Unfollowed("r" * 33, WIDE * 512),
        events.Invited("r" * 33, "s" * 32),
        events.Postponed("r" * 33, WIDE * 512),
        events.DeviceWarning("r" * 33, "s" * 32, WIDE * 512),
    ]  # fmt: skip
    assert {*map(type, big)} == {
        kind
        for kind in get_args(events.Event)
        if kind is events.Message or not issubclass(kind, events.LogEntry)
    }
    for event in big:
        shared = held_bytes(State.WAITING) + held_bytes(GapReason.EPOCH)
        held = held_bytes(event) - (
            shared if isinstance(event, events.StateChanged | events.Gap) else 0
        )
        assert _size(event) >= held, type(event).__name__
        inbox = EventQueue()
        inbox.put(event)
        inbox.take()
        assert inbox.size == 0


def ask_everything(state: ClientState) -> None:
    """Make every possible request; some are refused at once, depending on earlier ones."""
    for method, args in (
        ("send", (Offer("room", "", b"x"), "send")),
        ("join", ("other", None, 0, "join")),
        ("who", ("room", "who")),
        ("history", ("room", True, 0, 9, "history")),
        ("leave", ("other", "leave")),
        ("search", ("room", "word", 0, 9, "search")),
        ("ask_account", ("", account_requests.Show(), "show", answers.unpack_shown)),
        ("ask_room", ("room", room_requests.Show(""), 0, "state", shown.unpack)),
        ("ask_devices", ("bob", 0, "devices")),
    ):
        with contextlib.suppress(ClientError):
            getattr(state.chat, method)(*args)


def test_legal_envelopes_in_any_order_end_in_no_other_error() -> None:
    """Random envelopes in many runs: the client goes on, or ends with one reason."""
    dice = random.Random(7)
    logs, seqs = ["room", "other", "never"], [0, 1, 2, 7, limits.U63_MAX]

    def some() -> wire.ServerEnvelope:
        log, request, code = dice.choice(logs), dice.randrange(5), dice.randrange(15)
        seq, other = dice.choice(seqs), dice.choice(seqs)
        epoch = dice.choice([EPOCH, bytes(8), b"f" * 8])
        row = entry(dice.randrange(1, 9))._replace(log=log, prev=seq, epoch=epoch)
        envelopes: list[wire.ServerEnvelope] = [
            wire.Welcome("alice", 0, dice.choice([0, 1, 32_768]), dice.choice([0, 1, 9]), ""),
            wire.Joined(request, log, epoch, seq, epoch, other),
            wire.Left(request, log),
            wire.Ack(log, dice.randrange(1, 5), epoch, seq),
            wire.Refused(log, dice.randrange(1, 5), code, other, "why"),
            wire.Error(request, code, other, "why"),
            row,
            wire.Roster(log, 0, 0, 0, [["al", ""]], ["bo"]),
            wire.Members(request, log, 0, 0, 1, [["al", "", 1]]),
            wire.Page(request, log, seq, True, [row]),
            wire.Live(log, epoch, seq),
            wire.Behind(log, epoch, seq),
            wire.Gap(log, epoch, seq, epoch, other, dice.randrange(256)),
            wire.Done(request, dice.choice([b"", b"\x90", ROOM, ACCOUNT])),
            wire.Chain(request, "bob", [], dice.choice([True, False])),
            wire.NextKey(dice.randbytes(32)),
            wire.Removed(log, code, "why"),
            wire.Found(request, log, seq, True, other, [row]),
            wire.Invited(log, "bob"),
        ]
        assert {*map(type, envelopes)} == {one.type for one in packing.SERVER_SHAPES.values()}
        return dice.choice(envelopes)

    for _ in range(60):
        link = joined()
        for number in range(60):
            if link.condition() is State.CLOSED:
                break
            if link.condition() is State.WAITING or not link.state.connected:
                link.log_in()
            if number % 7 == 0:
                ask_everything(link.state)
            link.run()
            if link.server.finished or not link.state.connected:
                continue
            link.send_envelopes(*[some() for _ in range(dice.randrange(1, 4))])
            if number % 5 == 0:
                link.taken()
                link.pass_time(dice.choice([0.0, 0.1, 3.0]))
            link.results()
