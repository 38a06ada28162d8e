"""The attacks of hostile connections: each alone, or all mixed at random.

An attack is a step of a visitor that has got as far as the attack's stage. The runner repeats it
until the server ends the connection, and then comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgpack

from relay import limits
from relay.wire.cipher import RecordType, padded_size
from relay.wire.envelopes import History, Join, Leave, Send, Who
from relay.wire.frames import FrameType, header
from relay.wire.packing import pack
from tests.fuzz import chat_attacks
from tests.fuzz.chat_attacks import HONEST_ROOM
from tests.fuzz.operations import any_operation
from tests.fuzz.visitor import Visitor

BURST_BYTES: Final = 262_144


class Stage(IntEnum):
    """How far a visitor gets before it attacks."""

    SOCKET = 0
    HANDSHAKE = 1
    LOGIN = 2


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to hurt a server."""

    name: str
    stage: Stage
    step: Callable[[Visitor], Awaitable[None]]
    what: str
    """A short description for a table."""
    again: bool = True
    """False: a new connection for each step."""


def _burst(visitor: Visitor, content: bytes) -> Awaitable[None]:
    size = padded_size(len(content) + 1) + limits.FRAME_HEADER_BYTES + limits.TAG_BYTES
    return visitor.record(*[content] * max(1, BURST_BYTES // size))


# --- envelopes ------------------------------------------------------------------------------------
async def _garbage(visitor: Visitor) -> None:
    await _burst(visitor, b"\x91\x63" * 1023)


async def _nested(visitor: Visitor) -> None:
    """As many arrays in arrays as a record takes."""
    envelope = msgpack.packb([99, *[[[[[[[[]]]]]]]] * 23])
    await _burst(visitor, envelope * (limits.RECORD_CONTENT_BYTES_MAX // len(envelope)))


async def _old_counters(visitor: Visitor) -> None:
    """Use counters, and then repeat them: old ones are the most expensive to look up."""
    if not visitor.counter:
        for start in range(1, 3001, 600):
            sends = [Send(visitor.room, n, 0, "", b"x") for n in range(start, start + 600)]
            await visitor.send_envelopes(*sends)
        visitor.counter = 3000
    chance = visitor.chance
    for _ in range(4):
        first = chance.randrange(1, 2000)
        await visitor.send_envelopes(
            *[Send(visitor.room, first + n, 0, "", b"x") for n in range(1000)]
        )


async def _joins(visitor: Visitor) -> None:
    logs = [f"j{visitor.chance.getrandbits(70):x}" for _ in range(1000)]
    await visitor.send_envelopes(*[Join(n + 1, log, None, 0, 0) for n, log in enumerate(logs)])
    await visitor.send_envelopes(*[Leave(n + 1, log) for n, log in enumerate(logs)])


async def _batches(visitor: Visitor) -> None:
    """As many sends as a record takes, small and large in turn."""
    first = visitor.counter + 1
    visitor.counter += 1002
    await visitor.send_envelopes(*[Send(visitor.room, first + n, 0, "", b"") for n in range(1000)])
    for n in (1000, 1001):
        await visitor.send_envelopes(
            Send(visitor.room, first + n, 0, "", bytes(limits.BODY_BYTES_MAX))
        )


async def _rooms(visitor: Visitor) -> None:
    logs = [f"n{visitor.chance.getrandbits(100):x}" for _ in range(500)]
    await visitor.send_envelopes(*[Send(log, 1, 0, "", b"x") for log in logs])


async def _requests(visitor: Visitor) -> None:
    """Request a lot, and read none of it."""
    if not visitor.counter:
        visitor.counter = 1000
        await visitor.send_envelopes(
            *[Send(visitor.room, n, 0, "", bytes(40)) for n in range(1, 1001)]
        )
        await visitor.send_envelopes(Join(1, visitor.room, None, 0, 0))
        visitor.stop_reading()
    room = visitor.room
    asked = [Who(2, room) if n % 4 else History(3, room, False, 0, 1000) for n in range(1000)]
    await visitor.send_envelopes(*asked)


async def _unread(visitor: Visitor) -> None:
    """Follow the honest pair with all of its history, and never read."""
    visitor.stop_reading()
    await visitor.send_envelopes(Join(1, HONEST_ROOM, None, 0, 10_000))
    await asyncio.sleep(5.0)


async def _control(visitor: Visitor) -> None:
    pings = [(RecordType.PING, b"p" * 64)] * 500
    await visitor.raw_records(*pings, *[(RecordType.PONG, b"")] * 500)


# --- connections ----------------------------------------------------------------------------------
async def _silent(visitor: Visitor) -> None:
    await visitor.ended(30.0)


async def _half(visitor: Visitor) -> None:
    """Send nearly all of a record, and then nothing."""
    await visitor.write(header(FrameType.RECORD, limits.RECORD_BODY_BYTES_MAX) + bytes(69_000))
    await visitor.ended(30.0)


async def _half_key(visitor: Visitor) -> None:
    await visitor.write(header(FrameType.CLIENT_KEY, 4096) + bytes(4000))
    await visitor.ended(30.0)


async def _slow_login(visitor: Visitor) -> None:
    for byte in visitor.connection.seal(visitor.hello(), 0.0):
        await visitor.write(bytes((byte,)))
        await asyncio.sleep(0.5)


async def _names(visitor: Visitor) -> None:
    """A handshake and a login with a new name; nothing more."""
    await visitor.log_in()


async def _ghosts(visitor: Visitor) -> None:
    """Logins of eight instances, each of which replaces its own connection repeatedly."""
    number = visitor.chance.randrange(8)
    await visitor.log_in(visitor.hello(f"ghost-{number}", bytes(16)))
    await visitor.ended(2.0)


async def _rubbish(visitor: Visitor) -> None:
    await visitor.write(visitor.chance.randbytes(visitor.chance.randrange(1, 70_000)))
    await visitor.ended(0.2)


# --- at random ------------------------------------------------------------------------------------
async def _operations(visitor: Visitor) -> None:
    """Legal ones, some with values that are refused."""
    count = visitor.chance.choice([1, 1, 10, 200])
    await visitor.send_envelopes(*[any_operation(visitor) for _ in range(count)])
    await asyncio.sleep(visitor.chance.choice([0, 0.01, 0.1]))


async def _damaged(visitor: Visitor) -> None:
    """An illegal operation after legal ones."""
    good = [any_operation(visitor) for _ in range(visitor.chance.randrange(20))]
    bad = bytearray(pack(any_operation(visitor)))
    for _ in range(visitor.chance.randrange(1, 4)):
        bad[visitor.chance.randrange(len(bad))] = visitor.chance.randrange(256)
    await visitor.record(b"".join(map(pack, good)) + bytes(bad))
    await visitor.ended(0.2)


ATTACKS: Final = {
    attack.name: attack
    for attack in (
        Attack("garbage", Stage.LOGIN, _garbage, "records of 1,023 unknown operations"),
        Attack("nested", Stage.LOGIN, _nested, "unknown operations full of nested arrays"),
        Attack("old-counters", Stage.LOGIN, _old_counters, "sends that are stored long since"),
        Attack("joins", Stage.LOGIN, _joins, "joining and leaving 1,000 rooms"),
        Attack("batches", Stage.LOGIN, _batches, "records full of sends"),
        Attack("rooms", Stage.LOGIN, _rooms, "a new room with each send"),
        Attack("requests", Stage.LOGIN, _requests, "1,000 requests a record, nothing read"),
        Attack("unread", Stage.LOGIN, _unread, "members that never read", again=False),
        Attack("searches", Stage.LOGIN, chat_attacks.searches, "searches, and pages of history"),
        Attack("directs", Stage.LOGIN, chat_attacks.directs, "direct messages to many"),
        Attack("presence", Stage.LOGIN, chat_attacks.presence, "coming into the pair's room"),
        Attack("reactions", Stage.HANDSHAKE, chat_attacks.reactions, "edits and reactions"),
        Attack("moderation", Stage.LOGIN, chat_attacks.moderation, "rooms, begun and ended"),
        Attack("lists", Stage.LOGIN, chat_attacks.lists, "asking for lists"),
        Attack("refused", Stage.LOGIN, chat_attacks.refused, "requests refused for every reason"),
        Attack("resumes", Stage.HANDSHAKE, chat_attacks.resumes, "returns by ticket", again=False),
        Attack("control", Stage.LOGIN, _control, "pings and pongs"),
        Attack("silent", Stage.SOCKET, _silent, "silent sockets", again=False),
        Attack("half-records", Stage.HANDSHAKE, _half, "records without their end", again=False),
        Attack("half-keys", Stage.SOCKET, _half_key, "handshakes without their end", again=False),
        Attack("slow-logins", Stage.HANDSHAKE, _slow_login, "a login byte by byte", again=False),
        Attack("names", Stage.HANDSHAKE, _names, "logins, each with a new name", again=False),
        Attack(
            "ghosts", Stage.HANDSHAKE, _ghosts, "instances that replace themselves", again=False
        ),
        Attack("rubbish", Stage.SOCKET, _rubbish, "random bytes", again=False),
        Attack("operations", Stage.LOGIN, _operations, "random operations"),
        Attack("damaged", Stage.LOGIN, _damaged, "random illegal operations", again=False),
    )
}
