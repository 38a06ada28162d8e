"""A server that answers as an honest one does, except for its lies.

The real handshake with the real key, over a real socket: everything that a compromised server can
send. A lie replaces the answer to one type of request.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from relay import codec
from relay.chat.accounts import answers, chain, links
from relay.chat.accounts import requests as account_requests
from relay.chat.rooms import requests as room_requests
from relay.chat.rooms import shown
from relay.chat.rooms.events import Kind, Role
from relay.wire import envelopes as wire
from relay.wire.cipher import RecordType
from relay.wire.device_keys import PrivateDeviceKey
from relay.wire.envelopes import ClientEnvelope, ServerEnvelope
from relay.wire.packing import SERVER_SHAPES, pack
from relay.wire.tickets import TICKET_NONCE_BYTES
from tests.support.fake_server import FakeConnection
from tests.support.pair import server_key
from tests.vectors.accounts import key, signed

EPOCH: Final = b"epoch..8"
NOW_MS: Final = 1_760_000_000_000
OWNER: Final = key("a")
"""The device of the account that connects."""
FRIEND: Final = key("b")
"""The device of everybody else."""
Lie: TypeAlias = Callable[[FakeConnection, Any], None]
"""Answers a request; the second argument is its envelope."""
Lies: TypeAlias = Mapping[type[ClientEnvelope], Lie]


def begun(device: PrivateDeviceKey, name: str) -> list[bytes]:
    """Return the chain of an account with one device."""
    server_id = hashlib.sha256(server_key().spki).digest()
    return [signed(chain.root_body(server_id, name, b"n" * 16, device.public), device)]


def chain_of(name: str, key: bytes = OWNER.public) -> list[bytes]:
    """Return the chain that the server shows for a name."""
    return begun(OWNER if name == "alice" and key == OWNER.public else FRIEND, name)


def entry(log: str, seq: int = 1, **fields: Any) -> wire.EntryMessage:  # noqa: ANN401
    """Return a message of bob's, whose predecessor is the number before it."""
    to = "alice" if log.startswith("@") else ""
    made = wire.EntryMessage(
        log, EPOCH, seq, seq - 1, NOW_MS, "bob", links.key_id(FRIEND.public), b"p" * 16, seq, 0,
        "text/plain", b"hello", to,
    )  # fmt: skip
    return made._replace(**fields)


def of_account(content: bytes) -> bytes:
    """Return the content of the honest answer to a request about an account."""
    match account_requests.unpack(content):
        case account_requests.Show():
            device = [OWNER.public, "phone", 0]
            return codec.pack(("active", True, 0, 1, [device], b""))
        case account_requests.Preferences():
            return codec.pack((0, 1, ["mallory"]))
        case account_requests.Keep():
            return codec.pack((0, 0, 0))
        case account_requests.ListNames(partition=partition, after=after):
            return codec.pack(["bob"] if partition == 0 and not after else [])
        case account_requests.ListInvitations(partition=partition):
            some = (answers.Invitation(b"h" * 32, NOW_MS, False, "bob"),) if not partition else ()
            return answers.packed_invitations(answers.Invitations(some, ""))
        case account_requests.Marks():
            return codec.pack(([["room", EPOCH, 1]], True))
        case account_requests.LastSeen():
            return answers.packed_seen(answers.Seen(False, NOW_MS))
        case _:
            return b""


LISTED: Final = shown.Listed("room", Kind.PUBLIC, "", "a topic", False, Role.MEMBER, 2, 1, 1)
STATE: Final = (1, 1, 0, True, "a title", "a topic", False, False, 1, 1, 1, 1, 0)
PEOPLE: Final = [["bob", b"r" * 32, 2, False, False, 0, 1]]


def of_room(content: bytes) -> bytes:
    """Return the content of the honest answer to a request about a room."""
    match room_requests.unpack(content).request:
        case room_requests.Show():
            return codec.pack((*STATE, PEOPLE, True, 0, (0, 0, 0), EPOCH))
        case room_requests.List(partition=partition):
            return shown.pack_list([LISTED] if not partition else [], "", True)
        case room_requests.Mine():
            return shown.pack_own([shown.Own(LISTED, bytes(8), 0, 1)], "", True)
        case room_requests.Create() | room_requests.Enter():
            return shown.pack_identity(EPOCH)
        case _:
            return b""


def honest(asked: ClientEnvelope) -> list[ServerEnvelope]:
    """Return the answer of an honest server."""
    match asked:
        case wire.Hello(name=name, key=key):
            root = links.hash_of(chain_of(name, key)[0]) if key else b""
            return [wire.Welcome(name, NOW_MS, 32_768, 1024, "relay", root)]
        case wire.Join(request=number, log=log, epoch=epoch, seq=seq, last=last):
            start = min(last, 1) ^ 1 if epoch is None else min(seq, 1)
            joined = wire.Joined(number, log, EPOCH, start, EPOCH, 1)
            return [joined, *[entry(log)][start:], wire.Live(log, EPOCH, 1)]
        case wire.Leave(request=number, log=log):
            return [wire.Left(number, log)]
        case wire.Send(log=log, counter=counter):
            return [wire.Ack("@alice" if log.startswith("@") else log, counter, EPOCH, 2)]
        case wire.Who(request=number, log=log):
            return [wire.Members(number, log, 1, 1, 1, [["bob", "Bob", 1]])]
        case wire.History(request=number, log=log):
            return [wire.Page(number, log, 0, True, [entry(log)])]
        case wire.Search(request=number, log=log):
            return [wire.Found(number, log, 0, True, 1, [entry(log)])]
        case wire.Devices(request=number, name=name):
            return [wire.Chain(number, name, chain_of(name), True)]
        case wire.Account(request=number, content=content):
            return [wire.Done(number, of_account(content))]
        case wire.Room(request=number, content=content):
            return [wire.Done(number, of_room(content))]
        case _:
            raise AssertionError(f"no answer to {asked}")


def answers_honestly(connection: FakeConnection, asked: ClientEnvelope) -> None:
    """The answer of an honest server, as a lie."""
    connection.send_envelopes(*honest(asked))


def lying(lies: Lies) -> Callable[[FakeConnection], None]:
    """Return the script of a server with these lies."""

    def run(connection: FakeConnection) -> None:
        connection.flush()
        with contextlib.suppress(OSError):
            while True:
                heard, connection.heard = connection.heard, []
                for asked in heard:
                    lies.get(type(asked), answers_honestly)(connection, asked)
                if not connection.read():
                    return

    return run


# --- kinds of lies --------------------------------------------------------------------------------
def sends(make: Callable[[Any], ServerEnvelope | bytes]) -> Lie:
    """Instead of the answer, what ``make`` returns for the request."""

    def lie(connection: FakeConnection, asked: ClientEnvelope) -> None:
        made = make(asked)
        connection.send_raw(made if isinstance(made, bytes) else pack(made))

    return lie


def closes(code: int, retry_after_s: int = 0) -> Lie:
    """Instead of the answer, a close record."""

    def lie(connection: FakeConnection, asked: ClientEnvelope) -> None:
        connection.wire.close(code, time.monotonic(), retry_after_s)
        connection.flush()

    return lie


def hangs_up(connection: FakeConnection, asked: ClientEnvelope) -> None:
    """Instead of the answer, the end of the stream."""
    raise ConnectionError("as this test wants it")


def then(*lies: Lie) -> Lie:
    """One lie after the other, for one request after the other; the last one again and again."""
    left = list(lies)

    def lie(connection: FakeConnection, asked: ClientEnvelope) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(connection, asked)

    return lie


def announces(*hashes: bytes) -> Lie:
    """The honest answer, and announcements of next keys."""

    def lie(connection: FakeConnection, asked: ClientEnvelope) -> None:
        connection.send_envelopes(*honest(asked), *map(wire.NextKey, hashes))

    return lie


def ticket(size: int, lifetime_s: int = 3600, length: int | None = None) -> bytes:
    """Return the content of a TICKET record; ``length``: what it claims its ticket to have."""
    head = bytes(TICKET_NONCE_BYTES) + lifetime_s.to_bytes(4, "big")
    return head + (size if length is None else length).to_bytes(2, "big") + b"t" * size


def gives(*tickets: bytes) -> Lie:
    """The honest answer, and records with these tickets."""

    def lie(connection: FakeConnection, asked: ClientEnvelope) -> None:
        connection.send_envelopes(*honest(asked))
        for content in tickets:
            connection.wire._put(RecordType.TICKET, content, time.monotonic())
        connection.flush()

    return lie


def says_nothing(connection: FakeConnection, asked: ClientEnvelope) -> None:
    """No answer; pings are answered."""


def answers_another(connection: FakeConnection, asked: ClientEnvelope) -> None:
    """The right answer, to a request that was not made."""
    for one in honest(asked):
        number = getattr(one, "request", None)
        another: dict[str, Any] = {} if number is None else {"request": number + 7}
        connection.send_envelopes(one._replace(**another))


HOSTILE: Final = 'x\x1b]0;t\x07\x1b[2J\u202e\0\r\n-!- bob" left'
"""What a terminal obeys, hides, or takes for a line of ours."""
TEXT_BYTES_MAX: Final = 512
_KEPT: Final = frozenset(
    {"request", "log", "name", "counter", "seq", "prev", "to", "next", "start_seq", "head_seq"}
)
"""Fields without which an envelope is no answer, or contradicts itself."""


def exaggerated(one: Any) -> Any:  # noqa: ANN401  # of any type, as it is given
    """Return an envelope with hostile texts and the greatest numbers in all fields that may be."""
    shape = next(shape for shape in SERVER_SHAPES.values() if shape.type is type(one))
    checks = (*shape.checks, *shape.optional)
    changed: dict[str, Any] = {}
    for name, check, value in zip(shape.field_names, checks, one, strict=True):
        if name == "entries":
            changed[name] = [exaggerated(entry)._replace(kind=0) for entry in value]
        elif name not in _KEPT:
            others = (other for other in _others(value) if check(other))
            changed[name] = next(others, value)
    return one._replace(**changed)


def _others(value: object) -> Iterator[object]:
    match value:
        case bool():
            pass
        case int():
            yield from (2**63 - 1, 2**32 - 1, 2**16 - 1, 2**8 - 1)
        case str():
            text = HOSTILE * 20
            yield from (text[:length] for length in range(TEXT_BYTES_MAX, 0, -1))
        case [str(), str(), *rest]:  # of somebody who is here
            yield [HOSTILE[:32], HOSTILE, *[2**32 - 1 for _ in rest]]
        case list():
            yield [next(_others(one), one) for one in value]
        case _:
            pass


def exaggerates(connection: FakeConnection, asked: ClientEnvelope) -> None:
    """The honest answer, exaggerated."""
    connection.send_envelopes(*map(exaggerated, honest(asked)))


def exaggerated_account(content: bytes) -> bytes:
    """Return the content of an exaggerated answer to a request about an account."""
    name, most = HOSTILE[:32], 2**63 - 1
    match account_requests.unpack(content):
        case account_requests.Show():
            device = [OWNER.public, HOSTILE, most]
            return codec.pack((HOSTILE[:10], True, most, most, [device], FRIEND.public))
        case account_requests.Preferences():
            return codec.pack((0, 1, [name]))
        case account_requests.Keep():
            return codec.pack((most, most, most))
        case account_requests.ListNames(partition=partition, after=after):
            return codec.pack(["bob"] if partition == 0 and not after else [])
        case account_requests.ListInvitations(partition=partition):
            some = (answers.Invitation(b"h" * 32, most, True, name),) if not partition else ()
            return answers.packed_invitations(answers.Invitations(some, ""))
        case account_requests.Marks():
            return codec.pack(([[name, EPOCH, most]], True))
        case account_requests.LastSeen():
            return answers.packed_seen(answers.Seen(False, most))
        case _:
            return HOSTILE.encode()


def exaggerated_room(content: bytes) -> bytes:
    """Return the content of an exaggerated answer to a request about a room."""
    name, most = HOSTILE[:32], 2**63 - 1
    listed = shown.Listed("room", Kind.PRIVATE, HOSTILE, HOSTILE, True, Role.OWNER, *[most] * 3)
    match room_requests.unpack(content).request:
        case room_requests.Show():
            people = [[name, b"r" * 32, 4, True, True, most, most]]
            state = (most, most, 1, False, HOSTILE, HOSTILE, True, True, *[most] * 5)
            return codec.pack((*state, people, True, most, (most, most, most), EPOCH))
        case room_requests.List(partition=partition):
            return shown.pack_list([listed] if not partition else [], "", True)
        case room_requests.Mine():
            return shown.pack_own([shown.Own(listed, EPOCH, most, most)], "", True)
        case room_requests.Create() | room_requests.Enter():
            return shown.pack_identity(b"\xff" * 8)
        case _:
            return HOSTILE.encode()


EXAGGERATIONS: Final[Lies] = {
    **dict.fromkeys(
        (wire.Hello, wire.Join, wire.Who, wire.History, wire.Search, wire.Send), exaggerates
    ),
    wire.Account: sends(lambda asked: wire.Done(asked.request, exaggerated_account(asked.content))),
    wire.Room: sends(lambda asked: wire.Done(asked.request, exaggerated_room(asked.content))),
}
