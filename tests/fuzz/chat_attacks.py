"""Attacks with ordinary user actions, repeated without end: ``attacks`` lists them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from relay import limits
from relay.chat.accounts import requests as account_requests
from relay.chat.entries import Kind
from relay.chat.partition import PARTITIONS
from relay.chat.rooms import requests
from relay.wire.envelopes import (
    Account,
    Ack,
    ClientEnvelope,
    Devices,
    History,
    Join,
    Leave,
    Room,
    Search,
    Send,
    Welcome,
    Who,
)
from relay.wire.events import TicketReceived
from tests.fuzz.visitor import Visitor

HONEST_ROOM: Final = "honest"
"""Attackers may follow it, and not read; only the honest pair sends into it."""
RESUMED: Final = 1000
"""How often a connection is resumed, one after the other."""


async def searches(visitor: Visitor) -> None:
    """Search, and turn pages, in a room of one's own with a thousand messages."""
    room = visitor.room
    if not visitor.counter:
        visitor.counter = 1000
        sends = [Send(room, n, 0, "text/plain", b"tea and cake") for n in range(1, 1001)]
        await visitor.send_envelopes(*sends)
    await visitor.send_envelopes(
        *[
            Search(1, room, "tea cake", 0, 100) if n % 2 else History(2, room, True, 0, 1000)
            for n in range(100)
        ]
    )


async def directs(visitor: Visitor) -> None:
    """Write to users, and to handles that do not exist."""
    chance = visitor.chance
    names = ["alice", "bob", *[f"x{chance.getrandbits(60):x}" for _ in range(300)]]
    first = visitor.counter + 1
    visitor.counter += len(names)
    await visitor.send_envelopes(
        *[Send(f"@{name}", first + n, 0, "text/plain", b"hi") for n, name in enumerate(names)]
    )


async def presence(visitor: Visitor) -> None:
    """Join and leave the pair's room, so that all members are notified, and send WHO."""
    again: list[ClientEnvelope] = [
        Join(1, HONEST_ROOM, None, 0, 0),
        Who(2, HONEST_ROOM),
        Leave(3, HONEST_ROOM),
    ]
    await visitor.send_envelopes(*again * 100)


async def reactions(visitor: Visitor) -> None:
    """Edit a message of one's own, and react to it."""
    room = visitor.room
    if not visitor.counter:
        await visitor.record(visitor.hello())
        await visitor.listen(Welcome)
        await visitor.send_envelopes(Send(room, 1, 0, "text/plain", b"x"))
        (visitor.stored,) = await visitor.listen(Ack)
        visitor.counter = 1
        visitor.read_on()
    assert visitor.stored is not None
    epoch, seq = visitor.stored.epoch, visitor.stored.seq
    first = visitor.counter + 1
    visitor.counter += 500
    await visitor.send_envelopes(
        *[
            Send(room, first + n, Kind.REACTION if n % 2 else Kind.EDIT, "", b"x", epoch, seq)
            for n in range(500)
        ]
    )


async def moderation(visitor: Visitor) -> None:
    """Create rooms, change everything that can be changed, and delete them."""

    def asked() -> Iterator[ClientEnvelope]:
        topic = "t" * limits.ROOM_TOPIC_BYTES_MAX
        for _ in range(20):
            log = f"m{visitor.chance.getrandbits(80):x}"
            changes: tuple[requests.Request, ...] = (
                requests.Create(),
                *[requests.SetTopic(topic)] * 5,
                requests.Invite("alice"),
                requests.Ban("bob"),
                requests.Unban("bob"),
                requests.Close(),
                requests.Delete(),
            )
            for request in changes:
                yield Room(1, log, requests.pack(request, requests.ANYTHING_SEEN))

    await visitor.send_envelopes(*asked())


async def lists(visitor: Visitor) -> None:
    """Request lists: of rooms, of the members of one, of devices."""
    room = visitor.chance.randrange(PARTITIONS)
    await visitor.send_envelopes(
        *[
            Devices(1, "alice", 0)
            if n % 3 == 0
            else Room(2, HONEST_ROOM, requests.pack(requests.Show(), requests.ANYTHING_SEEN))
            if n % 3 == 1
            else Room(3, "", requests.pack(requests.List(room, ""), requests.ANYTHING_SEEN))
            for n in range(300)
        ]
    )


async def refused(visitor: Visitor) -> None:
    """Request what is refused: each reason that needs no state of one's own, all at once."""
    chance = visitor.chance
    away, nobody = f"a{chance.getrandbits(60):x}", f"x{chance.getrandbits(60):x}"
    pack_room, pack_account = requests.pack, account_requests.pack
    seen = requests.ANYTHING_SEEN
    first = visitor.counter + 1
    visitor.counter = 0  # a refused send has not used its counter
    about = (bytes(8), 2**40)
    envelopes: tuple[ClientEnvelope, ...] = (
        Leave(1, away),
        Who(2, away),
        History(3, away, False, 0, 1000),
        Search(4, away, "tea", 0, 100),
        Join(5, "@bob", None, 0, 0),
        Join(6, "not a name", None, 0, 0),
        Join(7, away, None, 0, 2**32 - 1),
        Join(8, f"@{nobody}", bytes(8), 2**40, 0),
        *[
            Send(HONEST_ROOM, first, kind, "", body, *about)
            for kind in (*Kind, 255)
            if kind != Kind.MESSAGE
            for body in (b"", b"x")
        ],
        Send("not a name", first, 0, "", b""),
        Send(f"@{nobody}", first, 0, "", b""),
        Send(f"@{nobody}", 2**63 - 1, 0, "", b""),
        Devices(9, nobody, 65_535),
        Account(10, "", b"\x91\x63"),
        Account(11, "", b"\xc1"),
        Account(12, nobody, pack_account(account_requests.LastSeen())),
        Account(13, "bob", pack_account(account_requests.Remove())),
        Account(14, "", pack_account(account_requests.Block(nobody, bytes(32)))),
        Account(15, "", pack_account(account_requests.Extend(b"x" * 331))),
        Room(16, away, b"\x92\x63\x00"),
        Room(17, away, pack_room(requests.SetTopic("x"), seen)),
        Room(18, HONEST_ROOM, pack_room(requests.Delete(), seen)),
        Room(19, HONEST_ROOM, pack_room(requests.Ban("alice"), seen)),
        Room(20, HONEST_ROOM, pack_room(requests.Invite(nobody), seen)),
    )
    await visitor.send_envelopes(*envelopes * 25)


async def resumes(visitor: Visitor) -> None:
    """Reconnect by ticket repeatedly, from one address, with a login each time."""
    hello = visitor.hello(f"resumes-{visitor.room}")
    for _ in range(RESUMED):
        await visitor.record(hello)
        _, received = await visitor.listen(Welcome, TicketReceived)
        visitor.close()
        await visitor.open()
        await visitor.shake(received.ticket)
        hello = visitor.hello(f"resumes-{visitor.room}")
