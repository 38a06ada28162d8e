"""Every request of both clients, at a server that holds its key and lies.

Each lie ends in an answer, a typed error, or a timeout of the program: never in another exception,
in a wait that its timeout does not end, or in connections without a pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest

from relay.chat.accounts.invitation import token_text
from relay.client.closes import ClosedByServer, Kicked, ProtocolViolation
from relay.client.devices.device_key import DeviceKey, public_text
from relay.client.errors import ClientError, ServerBrokeProtocol, TimedOut
from relay.client.events import State
from relay.client.refusals import Refused, Unavailable
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.next_key import PROOFS_MAX
from relay.client.trust.policy import KeyPolicy
from relay.wire import envelopes as wire
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.identity import fingerprint_of
from tests.client.faces.adapters import WAIT_S, Face
from tests.client.faces.test_arguments import call
from tests.support.fake_server import FakeServer
from tests.support.lying_server import (
    FRIEND,
    HOSTILE,
    OWNER,
    Lie,
    Lies,
    announces,
    answers_another,
    answers_honestly,
    closes,
    exaggerates,
    gives,
    hangs_up,
    lying,
    says_nothing,
    sends,
    then,
    ticket,
)

Connect = Callable[..., Face]
PATIENCE_S = 0.1
"""Of a program that gets no answer."""
CONNECTIONS_MAX = 8
"""In that time, by a client that pauses between its attempts."""
U63 = 2**63 - 1

REQUESTS: dict[str, tuple[type[Any], tuple[object, ...]]] = {
    "join": (wire.Join, ("room",)),
    "leave": (wire.Leave, ("room",)),
    "who": (wire.Who, ("room",)),
    "history": (wire.History, ("room",)),
    "search": (wire.Search, ("room", "hello")),
    "rooms": (wire.Room, ()),
    "room_info": (wire.Room, ("room",)),
    "create_room": (wire.Room, ("room",)),
    "change_room": (wire.Room, ("room", "close")),
    "devices": (wire.Devices, ("bob",)),
    "rename_device": (wire.Account, (public_text(FRIEND.public), "phone")),
    "invite": (wire.Account, ()),
    "invitations": (wire.Account, ()),
    "user": (wire.Account, ("bob",)),
    "users": (wire.Account, ()),
    "last_seen": (wire.Account, ("bob",)),
    "preferences": (wire.Account, ()),
    "block": (wire.Account, ("bob",)),
    "read_marks": (wire.Account, ()),
}
OF_JOINED = ("leave", "who", "history", "search")
"""Requests about a room that was joined before."""


def nested(depth: int) -> object:
    return [] if not depth else [nested(depth - 1)]


def error(code: int) -> Lie:
    return sends(lambda asked: wire.Error(asked.request, code, U63, HOSTILE * 15))


def raw(*value: object) -> Lie:
    """The same for each request: an envelope that none may be."""
    return sends(lambda _: msgpack.packb(list(value)))


BREAKS: dict[str, Lie] = {
    "an extension type": raw(99, msgpack.ExtType(5, b"x")),
    "a time": raw(99, msgpack.Timestamp(1)),
    "a map": raw(99, {"a": 1}),
    "deep": raw(99, nested(200)),
    "wide": raw(99, [0] * 1001),
    "a retry that is no number": raw(38, 1, 11, float("nan"), ""),
    "a retry in the past": raw(38, 1, 11, -1, ""),
    "an operation that is a text": raw("DONE"),
    "never msgpack": sends(lambda _: b"\xc1"),
}
"""Whatever was asked: tried with one request."""
ENDS: dict[str, tuple[Lie, type[ClientError]]] = {
    "another answer": (
        sends(lambda asked: wire.Left(asked.request, "other")), ServerBrokeProtocol,
    ),
    "violated": (closes(CloseCode.PROTOCOL), ProtocolViolation),
    "kicked": (closes(CloseCode.KICKED, 65_535), Kicked),
    "no code": (closes(65_000), ClosedByServer),
}  # fmt: skip
REFUSALS: dict[str, tuple[Lie, type[Refused]]] = {
    "not allowed": (error(ErrorCode.NOT_ALLOWED), Refused),
    "an unknown code": (error(60_000), Refused),
    "unavailable for ever": (error(ErrorCode.UNAVAILABLE), Unavailable),
}
WAITS: dict[str, Lie] = {
    "never": says_nothing,
    "another number": answers_another,
    "hangs up": hangs_up,
    "going away": closes(CloseCode.GOING_AWAY),
    "overloaded for ever": closes(CloseCode.OVERLOADED, 65_535),
    "busy for ever": error(ErrorCode.BUSY),
}


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RELAY_KEYS", str(tmp_path / "keys"))


@contextmanager
def asking(
    face: Connect, name: str, lies: Lies, timeout: float = WAIT_S
) -> Iterator[tuple[FakeServer, Face, Callable[[], object]]]:
    """A server with lies, a client connected to it, and the call that makes a request."""
    with FakeServer(lying(lies)) as server:
        one = face(server.address, "alice", key=DeviceKey(OWNER.seed))
        one.connect()
        try:
            if name in OF_JOINED:
                one.join("room")
            args = REQUESTS[name][1]
            yield server, one, lambda: call(one, name, *args, timeout=timeout)
        finally:
            with suppress(ClientError):
                call(one, "close", 0)


@pytest.mark.parametrize("lie", BREAKS)
def test_no_envelope(face: Connect, lie: str) -> None:
    with asking(face, "last_seen", {wire.Account: BREAKS[lie]}) as (server, one, ask):
        for _ in range(2):
            with pytest.raises(ServerBrokeProtocol):
                ask()
        assert one.client.state is State.CLOSED
    assert server.accepted == 1


@pytest.mark.parametrize("name", REQUESTS)
def test_an_answer_that_ends_the_client(face: Connect, name: str) -> None:
    """A room is left whatever happens to the connection."""
    for lie, expected in ENDS.values():
        with asking(face, name, {REQUESTS[name][0]: lie}) as (server, one, ask):
            if name == "leave":
                ask()
            else:
                with pytest.raises(expected):
                    ask()
            assert one.client.state is State.CLOSED
        assert server.accepted == 1


@pytest.mark.parametrize("name", REQUESTS)
def test_a_refusal(face: Connect, name: str) -> None:
    """One line, whatever its text; the connection continues."""
    for lie, expected in REFUSALS.values():
        with asking(face, name, {REQUESTS[name][0]: lie}) as (_, one, ask):
            with pytest.raises(expected) as caught:
                ask()
            assert str(caught.value).isprintable()
            assert one.client.state is State.ONLINE


@pytest.mark.parametrize("name", REQUESTS)
def test_no_answer(face: Connect, name: str) -> None:
    """The program's timeout ends the wait; the client pauses before it connects again."""
    for label, lie in WAITS.items():
        with asking(face, name, {REQUESTS[name][0]: lie}, PATIENCE_S) as (server, one, ask):
            if name == "leave" and label in ("hangs up", "going away", "overloaded for ever"):
                ask()
            else:
                with pytest.raises(TimedOut):
                    ask()
            assert one.client.state is not State.CLOSED
            assert server.accepted <= CONNECTIONS_MAX


def test_exaggerated_answers(face: Connect) -> None:
    """Hostile texts and the greatest numbers, in each field that may have any: they are data."""
    kinds = (wire.Hello, wire.Who, wire.History, wire.Search)
    with asking(face, "who", dict.fromkeys(kinds, exaggerates)) as (_, one, _):
        for name in ("who", "history", "search"):
            answer = call(one, name, *REQUESTS[name][1], timeout=WAIT_S)
            assert HOSTILE[:32] in repr(answer).encode().decode("unicode_escape")


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (ErrorCode.BUSY, TimedOut),
        (ErrorCode.UNAVAILABLE, TimedOut),
        (ErrorCode.EXPECTED, TimedOut),
        (ErrorCode.UNKNOWN_OUTCOME, TimedOut),
        (ErrorCode.NOT_ALLOWED, Refused),
        (60_000, Refused),
    ],
)
def test_a_send_that_is_refused_again_and_again(
    face: Connect, refusal: int, expected: type[ClientError]
) -> None:
    """Without a pause between the attempts it would be a flood: of the client's making."""
    tried = []

    def refuse(asked: wire.Send) -> wire.Refused:
        tried.append(asked.counter)
        return wire.Refused(asked.log, asked.counter, refusal, U63, HOSTILE)

    with asking(face, "join", {wire.Send: sends(refuse)}) as (_, one, _):
        with pytest.raises(expected) as caught:
            call(one, "send", "room", "x", timeout=PATIENCE_S)
        assert str(caught.value).isprintable()
        assert one.client.state is State.ONLINE
        assert len(tried) <= 64


# --- what a server sends unasked ------------------------------------------------------------------
PROOFS: dict[str, Lie] = {
    "nothing": sends(lambda asked: wire.Done(asked.request, b"")),
    "of the right size": sends(lambda asked: wire.Done(asked.request, b"p" * 32)),
    "too long": sends(lambda asked: wire.Done(asked.request, b"p" * 32_768)),
    "refused": error(ErrorCode.NOT_ALLOWED),
    "busy for ever": error(ErrorCode.BUSY),
    "never": says_nothing,
}


@pytest.mark.parametrize("lie", PROOFS)
def test_next_keys_that_are_not_proved(face: Connect, tmp_path: Path, lie: str) -> None:
    """However many are announced: few proofs are requested, none is believed, and all else goes
    on.
    """
    asked = []

    def prove(connection: Any, request: wire.Prove) -> None:  # noqa: ANN401
        asked.append(request)
        PROOFS[lie](connection, request)

    hashes = [number.to_bytes(32, "big") for number in range(100)]
    known = tmp_path / "known"
    lies = {wire.Hello: announces(*hashes), wire.Prove: prove}
    with FakeServer(lying(lies)) as server:
        policy = KeyPolicy(KnownServers(known))
        one = face(server.address, "alice", key=DeviceKey(OWNER.seed), key_policy=policy)
        one.connect()
        for _ in range(3):
            call(one, "last_seen", "bob", timeout=WAIT_S)
        assert one.client.state is State.ONLINE
        assert 1 <= len(asked) <= PROOFS_MAX
        assert server.accepted == 1
        call(one, "close", 0)
    kept = known.read_text() if known.exists() else ""
    assert not any(fingerprint_of(one) in kept for one in hashes)


@pytest.mark.parametrize(
    "tickets",
    [
        [ticket(1)], [ticket(256)], [ticket(256, 0)], [ticket(256, 2**32 - 1)],
        [ticket(1), ticket(256)],
    ],
    ids=["short", "long", "over at once", "for ever", "two"],
)  # fmt: skip
def test_tickets_that_nobody_can_open(face: Connect, tickets: list[bytes]) -> None:
    """The client offers one, and gets a full handshake."""
    lies: Lies = {
        wire.Hello: then(gives(*tickets), answers_honestly),
        wire.Account: then(hangs_up, answers_honestly),
    }
    with asking(face, "last_seen", lies) as (server, one, ask):
        ask()
        assert one.client.state is State.ONLINE
        assert one.client.statistics["resumptions"] == 0
        assert server.accepted == 2


def is_read(one: Face) -> None:
    """Connect, and read another answer: then all that was sent before it is read as well."""
    one.connect()
    call(one, "last_seen", "bob", timeout=WAIT_S)


@pytest.mark.parametrize(
    "tickets",
    [
        [b""], [ticket(1)[:13]], [ticket(0)], [ticket(257)], [ticket(5, length=4)],
        [ticket(5, length=6)], [ticket(9)] * 3,
    ],
    ids=["empty", "cut", "none", "too long", "longer", "shorter", "too many"],
)  # fmt: skip
def test_no_tickets(face: Connect, tickets: list[bytes]) -> None:
    with FakeServer(lying({wire.Hello: gives(*tickets)})) as server:
        one = face(server.address, "alice", key=DeviceKey(OWNER.seed))
        with pytest.raises(ServerBrokeProtocol):
            is_read(one)
        assert one.client.state is State.CLOSED
        assert server.accepted == 1


def test_a_registration_is_repeated_as_it_was(face: Connect) -> None:
    """A server that cannot decide now ends the connection: the invitation may be used by then, for
    this name and key alone.
    """
    asked: list[wire.Register] = []

    def note(connection: Any, request: wire.Register) -> None:  # noqa: ANN401
        asked.append(request)
        if len(asked) == 1:
            closes(CloseCode.LOGIN_UNAVAILABLE)(connection, request)
            hangs_up(connection, request)  # what follows in the record is not answered
        connection.send_envelopes(wire.Done(request.request, b""))

    with FakeServer(lying({wire.Register: note})) as server:
        one = face(
            server.address, "alice", key=DeviceKey(OWNER.seed), register=True,
            invitation=token_text(b"t" * 32),
        )  # fmt: skip
        one.connect()
        assert one.client.state is State.ONLINE
        call(one, "close", 0)
    first, again = [request._replace(signature=b"") for request in asked]
    assert first == again
    assert first.token == b"t" * 32
    assert server.accepted == 2
