"""What a server may not send ends the client with ServerBrokeProtocol, whatever else is in the
record.

Every operation, every field, before and after the login.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

import msgpack
import pytest

from relay import codec
from relay.chat.accounts import requests as account_requests
from relay.chat.entries import Cursor
from relay.chat.rooms import requests as room_requests
from relay.client.answer_check import ANSWERS
from relay.client.chat_state import ChatState
from relay.client.errors import ServerBrokeProtocol
from relay.client.events import State
from relay.client.pending_sends import Offer
from relay.client.trust.lineage import Expected
from relay.wire.codes import CloseCode
from relay.wire.envelopes import (
    Account,
    ClientEnvelope,
    Devices,
    Enrol,
    Hello,
    History,
    Join,
    Joined,
    Leave,
    Op,
    Prove,
    Register,
    Room,
    Search,
    Welcome,
    Who,
)
from relay.wire.identity import fingerprint
from relay.wire.packing import SERVER_SHAPES, pack
from tests.client.peer import Link
from tests.support.pair import server_key

EPOCH = b"e" * 8
OTHER_EPOCH = b"f" * 8
KEY = Expected(fingerprint(server_key().spki))
ENTRY = ["room", EPOCH, 1, 0, 0, "al", b"", b"p" * 8, 1, 0, "", b"", "", EPOCH, 7]
RIGHT: dict[int, list[object]] = {
    Op.WELCOME: ["alice", 0, 32_768, 1024, "", b"r" * 32],
    Op.JOINED: [1, "room", EPOCH, 0, EPOCH, 0, EPOCH],
    Op.LEFT: [1, "room"],
    Op.ACK: ["room", 1, EPOCH, 1, 1],
    Op.REFUSED: ["room", 1, 1, 0, ""],
    Op.ERROR: [1, 1, 0, ""],
    Op.ENTRY: ENTRY,
    Op.ROSTER: ["room", 0, 0, 1, [["al", ""]], ["bo"]],
    Op.MEMBERS: [1, "room", 0, 0, 1, [["al", "", 1]]],
    Op.PAGE: [1, "room", 0, True, [[int(Op.ENTRY), *ENTRY]]],
    Op.FOUND: [1, "room", 0, True, 1, [[int(Op.ENTRY), *ENTRY]]],
    Op.LIVE: ["room", EPOCH, 0],
    Op.BEHIND: ["room", EPOCH, 0],
    Op.GAP: ["room", EPOCH, 0, EPOCH, 1, 1],
    Op.DONE: [1, b""],
    Op.CHAIN: [1, "al", [b"link"], True],
    Op.NEXT_KEY: [b"n" * 32],
    Op.REMOVED: ["room", 40, ""],
    Op.INVITED: ["room", "al"],
}
WRONG: list[object] = [None, True, -1, 2**63, 1.5, "x" * 5000, "", b"y" * 7, b"", [], [[]], {}, [7]]


def malformed() -> Iterator[tuple[str, bytes]]:
    """Contents that no record of a server may have."""
    for op, shape in SERVER_SHAPES.items():
        right = RIGHT[op]
        checks = shape.checks + shape.optional
        assert all(check(value) for check, value in zip(checks, right, strict=True)), op
        names = shape.field_names
        for index, (name, check) in enumerate(zip(names, checks, strict=True)):
            for value in WRONG:
                if not check(value):
                    fields = [*right[:index], value, *right[index + 1 :]]
                    yield (
                        f"{shape.type.__name__}.{name}={value!r:.20}",
                        msgpack.packb([op, *fields]),
                    )
        needed = right[: len(shape.checks)]
        yield f"{shape.type.__name__} short", msgpack.packb([op, *needed[:-1]])
        if len(shape.optional) > 1:
            yield f"{shape.type.__name__} in between", msgpack.packb([op, *right[:-1]])
        yield f"{shape.type.__name__} long", msgpack.packb([op, *right, *range(30)])
        yield f"{shape.type.__name__} cut", codec.pack([op, *right])[:-1]
    yield "WELCOME as a text", msgpack.packb(["WELCOME"])
    yield "no array", msgpack.packb(7)
    yield "nothing", b""
    yield "never msgpack", b"\xc1"
    yield "an operation over 2^32-1", msgpack.packb([2**32])


CASES = dict(malformed())


def broken(link: Link, case: str, told: bool) -> None:
    """Check that the client has ended for this reason, and that all waiting calls raise it.

    The server gets a close, unless it has closed first.
    """
    assert link.condition() is State.CLOSED, case
    error = link.state.error
    assert isinstance(error, ServerBrokeProtocol), case
    assert not link.state.connected
    assert link.state.connect_at is None
    with pytest.raises(ServerBrokeProtocol):
        link.state.chat.send(Offer("room", "", b"x"), "late")
    assert all(result is error for result in link.results().values())
    assert link.close is not None
    assert link.close.code == CloseCode.PROTOCOL or not told, case


def test_there_are_many() -> None:
    """Every field of every operation is among them."""
    fields = {f"{s.type.__name__}.{n}" for s in SERVER_SHAPES.values() for n in s.field_names}
    assert fields <= {case.split("=")[0] for case in CASES}


@pytest.mark.parametrize("welcome", ["never", "before", "after"])
def test_every_malformed_envelope(welcome: str) -> None:
    """Also when a valid WELCOME follows in the same read."""
    for case, content in CASES.items():
        link = Link(expected_key=KEY)
        link.dial()
        hello = link.heard(Hello)
        right = pack(Welcome(hello.name, 0, 32_768, 1024, ""))
        link.state.chat.join("room", Cursor(EPOCH, 0), 0, "join")
        link.state.chat.send(Offer("room", "", b"x"), "send")
        if welcome == "before":
            link.send_raw(right)
        link.server.send(content, link.now)
        if welcome == "after":
            link.server.send(right, link.now)
            link.server.close(CloseCode.GOING_AWAY, link.now)
        link.run()
        broken(link, case, told=welcome != "after")


QUESTIONS: dict[type, tuple[Callable[[ChatState], object], int]] = {
    Join: (lambda chat: chat.join("other", None, 0, "asked"), Op.JOINED),
    Leave: (lambda chat: chat.leave("room", "asked"), Op.LEFT),
    Who: (lambda chat: chat.who("room", "asked"), Op.MEMBERS),
    History: (lambda chat: chat.history("room", False, 9, 2, "asked"), Op.PAGE),
    Search: (lambda chat: chat.search("room", "x", 0, 2, "asked"), Op.FOUND),
    Devices: (lambda chat: chat.ask_devices("al", 0, "asked"), Op.CHAIN),
    Account: (lambda chat: chat.ask_account("", account_requests.Keep(), "asked"), Op.DONE),
    Room: (lambda chat: chat.ask_room("room", room_requests.Close(), 1, "asked"), Op.DONE),
}


def asked(question: type) -> tuple[Link, int]:
    """A client that has made this request; the request's number."""
    link = Link(expected_key=KEY)
    link.log_in()
    link.state.chat.join("room", Cursor(EPOCH, 0), 0, "join")
    link.run()
    link.send_envelopes(Joined(link.heard(Join).request, "room", EPOCH, 0, EPOCH, 0))
    assert link.results()
    QUESTIONS[question][0](link.state.chat)
    link.run()
    return link, link.all_heard(question)[-1].request


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_answer_to_another_question(question: type) -> None:
    """A legal one, but a page of history is no answer to WHO."""
    expected = QUESTIONS[question][1]
    for op in sorted({op for _, op in QUESTIONS.values()}):
        link, number = asked(question)
        about = "other" if question is Join else RIGHT[op][1]
        link.send_raw(codec.pack([op, number, about, *RIGHT[op][2:]]))
        if op == expected:
            assert link.condition() is State.ONLINE
            assert not isinstance(link.results()["asked"], ServerBrokeProtocol)
            continue
        if question is Leave:
            link.results()  # the end of the connection has done what was requested
        broken(link, f"{question} {op}", told=True)


OTHERS = ["other", *ENTRY[1:]]
FURTHER = ["room", EPOCH, 9, *ENTRY[3:]]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (Join, ["room", EPOCH, 0, EPOCH, 0]),
        (Leave, ["other"]),
        (Who, ["other", 0, 0, 1, [["al", "", 1]]]),
        (History, ["other", 0, True, []]),
        (History, ["room", 0, True, [[int(Op.ENTRY), *OTHERS]]]),
        (History, ["room", 0, True, [[int(Op.ENTRY), *ENTRY]] * 2]),
        (History, ["room", 0, True, [[int(Op.ENTRY), *FURTHER], [int(Op.ENTRY), *ENTRY]]]),
        (History, ["room", 0, True, [[int(Op.ENTRY), *FURTHER]]]),
        (Search, ["other", 0, True, 1, []]),
        (Search, ["room", 0, True, 1, [[int(Op.ENTRY), *OTHERS]]]),
        (Search, ["room", 0, True, 1, [[int(Op.ENTRY), *ENTRY]] * 3]),
        (Devices, ["bo", [b"link"], True]),
    ],
)
def test_an_answer_about_something_else(question: type, answer: list[object]) -> None:
    """Another room, another user, entries of another room, more of them, in another order."""
    link, number = asked(question)
    link.send_raw(codec.pack([QUESTIONS[question][1], number, *answer]))
    if question is Leave:
        link.results()  # the end of the connection has done what was requested
    broken(link, f"{question} {answer}", told=True)


def with_inbox() -> Link:
    """A client that follows its own inbox."""
    link = Link(expected_key=KEY)
    link.log_in()
    link.state.chat.join("@me", Cursor(EPOCH, 0), 0, "join")
    link.run()
    link.send_envelopes(Joined(link.heard(Join).request, "@alice", EPOCH, 0, EPOCH, 0))
    assert link.results()
    return link


def entry(log: str, sender: str, to: str, seq: int = 1, prev: int = 0) -> list[object]:
    return [int(Op.ENTRY), log, EPOCH, seq, prev, 0, sender, *ENTRY[6:12], to, EPOCH, 7]


@pytest.mark.parametrize(
    ("log", "sender", "to", "legal"),
    [
        ("@alice", "bo", "alice", True),
        ("@alice", "alice", "bo", True),
        ("@alice", "al", "alice", False),
        ("@alice", "bo", "al", False),
        ("@bo", "bo", "alice", False),
        ("@bo", "alice", "bo", False),
        ("room", "bo", "", False),
        ("room", "bo", "alice", False),
    ],
)
def test_a_page_of_ones_own_inbox(log: str, sender: str, to: str, legal: bool) -> None:
    """One of ``@bo``: its entries are of another log than requested, and of one conversation."""
    link = with_inbox()
    link.state.chat.history("@bo", False, 0, 1, "asked")
    link.run()
    number = link.heard(History).request
    link.send_raw(codec.pack([int(Op.PAGE), number, "@bo", 0, True, [entry(log, sender, to)]]))
    assert (link.condition() is State.ONLINE) is legal
    if not legal:
        broken(link, f"{log} {sender} {to}", told=True)


@pytest.mark.parametrize("question", [History, Search])
@pytest.mark.parametrize(("to", "prev"), [("alice", 0), ("", 1), ("", 7)])
def test_an_entry_of_a_page_that_contradicts_itself(question: type, to: str, prev: int) -> None:
    """A message of a room with a recipient, or one that follows itself or a later one."""
    link, number = asked(question)
    head = ["room", 0, True] if question is History else ["room", 0, True, 1]
    content = [QUESTIONS[question][1], number, *head, [entry("room", "al", to, prev=prev)]]
    link.send_raw(codec.pack(content))
    broken(link, f"{question} {to} {prev}", told=True)


@pytest.mark.parametrize(
    ("log", "sender", "to", "seq", "prev", "legal"),
    [
        ("room", "bo", "", 1, 0, True),
        ("room", "bo", "alice", 1, 0, False),
        ("room", "bo", "carol", 1, 0, False),
        ("room", "bo", "", 3, 3, False),
        ("room", "bo", "", 3, 7, False),
        ("@alice", "bo", "alice", 1, 0, True),
        ("@alice", "alice", "bo", 1, 0, True),
        ("@alice", "bo", "", 1, 0, True),
        ("@alice", "bo", "carol", 1, 0, False),
    ],
)
def test_a_delivered_entry_that_contradicts_itself(
    log: str, sender: str, to: str, seq: int, prev: int, legal: bool
) -> None:
    """Its reply would go to a person instead of the room, or the room be joined for ever."""
    link = with_inbox()
    link.state.chat.join("room", Cursor(EPOCH, 0), 0, "join")
    link.run()
    link.send_envelopes(Joined(link.heard(Join).request, "room", EPOCH, 0, EPOCH, 0))
    link.results()
    link.send_raw(codec.pack(entry(log, sender, to, seq, prev)))
    if legal:
        assert link.condition() is State.ONLINE
    else:
        broken(link, f"{log} {sender} {to} {seq} {prev}", told=True)


@pytest.mark.parametrize(
    ("cursor", "start", "head", "legal"),
    [
        (None, Cursor(EPOCH, 3), 3, True),
        (None, Cursor(EPOCH, 4), 3, False),
        (Cursor(EPOCH, 2), Cursor(EPOCH, 2), 3, True),
        (Cursor(EPOCH, 9), Cursor(EPOCH, 9), 3, True),
        (Cursor(OTHER_EPOCH, 2), Cursor(OTHER_EPOCH, 2), 3, True),
        (Cursor(EPOCH, 2), Cursor(EPOCH, 3), 3, False),
        (Cursor(EPOCH, 2), Cursor(EPOCH, 1), 3, False),
        (Cursor(OTHER_EPOCH, 2), Cursor(EPOCH, 2), 3, False),
    ],
)
def test_where_a_join_starts(cursor: Cursor | None, start: Cursor, head: int, legal: bool) -> None:
    """At the program's cursor: otherwise messages would be skipped without a gap."""
    link = Link(expected_key=KEY)
    link.log_in()
    link.state.chat.join("room", cursor, 0, "join")
    link.run()
    link.send_envelopes(Joined(link.heard(Join).request, "room", *start, EPOCH, head))
    if legal:
        assert link.condition() is State.ONLINE
    else:
        broken(link, f"{cursor} {start} {head}", told=True)


def test_each_request_has_an_answer() -> None:
    """Two are of the login, which handles its answers itself."""
    numbered = {kind for kind in get_args(ClientEnvelope) if "request" in kind._fields}
    numbered -= {Enrol, Register}
    assert set(ANSWERS) == numbered
    assert set(QUESTIONS) == numbered - {Prove}
