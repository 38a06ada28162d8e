"""Any operation of a client that is logged in, with values of which some are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay.chat.accounts.requests import REQUEST_BYTES_MAX
from relay.chat.entries import Kind
from relay.wire import envelopes as wire
from relay.wire.envelopes import ClientEnvelope
from tests.fuzz.chat_attacks import HONEST_ROOM
from tests.fuzz.mutate import mutated
from tests.fuzz.requests import ACCOUNT_SEEDS, ROOM_SEEDS
from tests.fuzz.visitor import Visitor

SHARED: Final = [f"shared-{n}" for n in range(4)]
PEOPLE: Final = ["alice", "bob", "ann", "nobody-has-this"]
BODIES: Final = [
    b"",
    b"x",
    b"lobby",
    b"@alice",
    "\N{THUMBS UP SIGN}".encode(),
    bytes(100),
    bytes(5000),
]


def _join(visitor: Visitor) -> ClientEnvelope:
    chance = visitor.chance
    log = chance.choice([*SHARED, visitor.room, HONEST_ROOM, "@alice"])
    if chance.random() < 0.5:
        return wire.Join(1, log, None, 0, chance.choice([0, 5, 10_001]), _identity(visitor))
    epoch = chance.choice([bytes(8), chance.randbytes(8)])
    return wire.Join(2, log, epoch, chance.randrange(2**40), 0, _identity(visitor))


def _leave(visitor: Visitor) -> ClientEnvelope:
    return wire.Leave(3, _log(visitor))


def _who(visitor: Visitor) -> ClientEnvelope:
    return wire.Who(4, _log(visitor))


def _history(visitor: Visitor) -> ClientEnvelope:
    chance = visitor.chance
    seq, count = chance.choice([0, 1, 100, 2**63 - 1]), chance.choice([0, 1, 1000, 65_535])
    return wire.History(5, _log(visitor), chance.random() < 0.5, seq, count)


def _search(visitor: Visitor) -> ClientEnvelope:
    chance = visitor.chance
    text = chance.choice(["tea", '"', "a" * 256, 'x" OR NEAR(*', "\0"])
    before, count = chance.choice([0, 1, 2**63 - 1]), chance.choice([0, 1, 65_535])
    return wire.Search(6, _log(visitor), text, before, count)


def _send(visitor: Visitor) -> ClientEnvelope:
    """Send a message, an edit, a reaction, a mark, ...: to a room, or to somebody."""
    chance = visitor.chance
    log = chance.choice([*SHARED, *[visitor.room] * 4, *[f"@{name}" for name in PEOPLE]])
    if log == visitor.room:
        visitor.counter += 1
        counter = visitor.counter
    else:
        counter = chance.choice([1, 2, 3, 2**63 - 1])
    kind = chance.choice([*[Kind.MESSAGE] * 4, *Kind, 7, 255])
    content_type = chance.choice(["text/plain", "", "relay/room", "relay/account"])
    about = chance.choice([(b"", 0), (bytes(8), 1), (chance.randbytes(8), 2), (b"", 2**63 - 1)])
    body, identity = chance.choice(BODIES), _identity(visitor)
    return wire.Send(log, counter, int(kind), content_type, body, *about, identity)


def _devices(visitor: Visitor) -> ClientEnvelope:
    chance = visitor.chance
    return wire.Devices(7, chance.choice(PEOPLE), chance.choice([0, 1, 65_535]))


def _prove(visitor: Visitor) -> ClientEnvelope:
    size = visitor.chance.choice([1, 256, 384, 1024])
    return wire.Prove(8, visitor.chance.randbytes(size))


def _content(visitor: Visitor, seeds: list[bytes]) -> bytes:
    """Return a request: a legal one, or a changed one."""
    chance = visitor.chance
    content = chance.choice(seeds) if chance.random() < 0.7 else mutated(chance, seeds)
    return content[:REQUEST_BYTES_MAX] or b"\xc0"


def _account(visitor: Visitor) -> ClientEnvelope:
    name = visitor.chance.choice(["", "", *PEOPLE])
    return wire.Account(9, name, _content(visitor, ACCOUNT_SEEDS))


def _room(visitor: Visitor) -> ClientEnvelope:
    """Ask about rooms: also about one that this visitor owns."""
    log = visitor.chance.choice(["", visitor.room, visitor.room, *SHARED, HONEST_ROOM])
    return wire.Room(10, log, _content(visitor, ROOM_SEEDS), _identity(visitor))


def _identity(visitor: Visitor) -> bytes:
    """Which room of its name is meant: mostly any; the visitor's own, no room's, none of any."""
    chance = visitor.chance
    own = b"" if visitor.stored is None else visitor.stored.epoch
    return chance.choice([*[b""] * 4, own, own, bytes(8), chance.randbytes(8), b"short"])


def _log(visitor: Visitor) -> str:
    return visitor.chance.choice([*SHARED, visitor.room, "@bob"])


MAKERS: Final[dict[type[ClientEnvelope], Callable[[Visitor], ClientEnvelope]]] = {
    wire.Join: _join,
    wire.Leave: _leave,
    wire.Who: _who,
    wire.History: _history,
    wire.Search: _search,
    wire.Send: _send,
    wire.Devices: _devices,
    wire.Prove: _prove,
    wire.Account: _account,
    wire.Room: _room,
}
_ALL: Final = [*MAKERS.values(), *[_send] * 3]


def any_operation(visitor: Visitor) -> ClientEnvelope:
    """Return one at random."""
    return visitor.chance.choice(_ALL)(visitor)
