"""The vectors of rooms: events, requests, and the state that a log of events gives."""

from __future__ import annotations

from typing import Any

import msgpack

from relay.chat.rooms import events, requests
from relay.chat.rooms import state as states
from relay.chat.rooms.events import Kind, Role
from relay.server.worker.home.rooms.entries import place

Vector = dict[str, Any]
ANN, BOB, CAT, EVE = b"\xaa" * 32, b"\xbb" * 32, b"\xcc" * 32, b"\xee" * 32
LOG: tuple[tuple[int, str, events.Event], ...] = (
    (1, "ann", events.Created(Kind.PUBLIC, True, ANN)),
    (4, "ann", events.TopicSet("tea, and ☕")),
    (5, "ann", events.TitleSet("The Lobby")),
    (6, "bob", events.Entered(BOB)),
    (9, "ann", events.RoleSet("bob", BOB, Role.MODERATOR)),
    (10, "ann", events.RoleSet("eve", EVE, Role.MODERATOR)),
    (11, "eve", events.Entered(EVE)),
    (12, "bob", events.Invited("cat", CAT)),
    (13, "bob", events.Kicked("dan", "spam")),
    (14, "bob", events.Banned("dan", b"\xdd" * 32, 1_767_225_600_000, "more spam")),
    (15, "bob", events.Muted("~guest-1", b"", 0, "")),
    (20, "relay", events.Freed("dan")),
    (21, "ann", events.KindSet(Kind.ANNOUNCE, False)),
    (22, "ann", events.Closed(True)),
    (23, "cat", events.Left()),
    (24, "ann", events.KeepSet(2_592_000, 1000, 0)),
)
REQUESTS: tuple[tuple[requests.Request, int], ...] = (
    (requests.Create(Kind.PRIVATE, False), requests.ANYTHING_SEEN),
    (requests.SetTopic("tea"), 4),
    (requests.SetTitle("The Lobby"), 5),
    (requests.SetKind(Kind.ANNOUNCE, True), 6),
    (requests.SetRole("bob", Role.OWNER), 9),
    (requests.Invite("cat"), 9),
    (requests.Kick("dan", "spam"), 9),
    (requests.Ban("dan", 600, "spam"), 9),
    (requests.Unban("dan"), 14),
    (requests.Mute("dan", 0, ""), 14),
    (requests.Unmute("dan"), 14),
    (requests.Close(), 14),
    (requests.Reopen(), 14),
    (requests.Enter(), 14),
    (requests.Leave(), 14),
    (requests.Redact(7, ""), 14),
    (requests.Delete("no more"), 14),
    (requests.SetKeep(2_592_000, 1000, 0), 14),
    (requests.Show("ann"), 0),
    (requests.List(15, "lobby"), 0),
    (requests.Mine("lobby"), 0),
)


def rooms() -> Vector:
    """Return all of them."""
    room = states.Room()
    made = []
    for seq, sender, event in LOG:
        producer = place("lobby", room.version)
        room = states.applied(room, event, sender, seq)
        body = events.pack(event)
        made.append(
            {
                "seq": seq,
                "sender": sender,
                "producer": producer.hex(),
                "name": type(event).__name__,
                "fields": _plain(msgpack.unpackb(body)),
                "body": body.hex(),
            }
        )
    return {
        "log": "lobby",
        "events": made,
        "state": {
            "kind": int(room.kind),
            "listed": room.listed,
            "title": room.title,
            "topic": room.topic,
            "closed": room.closed,
            "people": {
                handle: {"role": int(one.role), "muted": one.muted, "banned": one.banned}
                for handle, one in sorted(room.people.items())
                if one.matters
            },
        },
        "requests": [
            {
                "name": type(request).__name__,
                "fields": _plain(msgpack.unpackb(requests.pack(request, seen))),
                "packed": requests.pack(request, seen).hex(),
            }
            for request, seen in REQUESTS
        ],
    }


def _plain(fields: list[Any]) -> list[Any]:
    """Return bytes as hexadecimal digits, and numbers that a parser might round as digits."""
    return [
        one.hex() if isinstance(one, bytes) else str(one) if _is_large(one) else one
        for one in fields
    ]


def _is_large(one: object) -> bool:
    return isinstance(one, int) and one > 2**53 - 1
