"""Targets inside envelopes, entries and local sockets: requests, events, chains, searches."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import apsw
from hypothesis import strategies as st

from relay.chat.accounts import answers, chain, decide_request, invitation
from relay.chat.accounts import events as account_events
from relay.chat.accounts import refusal as account_refusal
from relay.chat.accounts import requests as account_requests
from relay.chat.accounts.account import Account
from relay.chat.accounts.account import applied as account_after
from relay.chat.accounts.decide import Policy
from relay.chat.accounts.links import Kind, LinkError
from relay.chat.partition import PARTITIONS
from relay.chat.rooms import decide as room_decide
from relay.chat.rooms import events as room_events
from relay.chat.rooms import refusal as room_refusal
from relay.chat.rooms import requests as room_requests
from relay.chat.rooms import rights, shown
from relay.chat.rooms import state as room_states
from relay.errors import EnvelopeError
from relay.server.line_server import LineServer, Question, number_of, text_of
from relay.server.supervisor.request_line import RequestLine
from relay.store.search.words import match_of
from relay.wire.device_keys import PrivateDeviceKey, verify
from tests.fuzz.inputs import contents, corpus_of, edited, edits, values
from tests.fuzz.target import Target
from tests.vectors.accounts import key, signed
from tests.vectors.rooms import LOG
from tests.vectors.rooms import REQUESTS as ROOM_REQUESTS

A, B, C = (key(label) for label in "abc")
SERVER_ID: Final = bytes(range(32))
HASH: Final = invitation.hash_of(b"t" * 32)
NOW_MS: Final = 1_000_000
LATER_MS: Final = 2**62


# --- device chains --------------------------------------------------------------------------------
def _whole_chain() -> list[bytes]:
    """Return the links of a chain with every kind of link."""
    packed = [signed(chain.root_body(SERVER_ID, "ann", b"n" * 16, A.public), A)]

    def add(kind: Kind, subject: PrivateDeviceKey, *by: PrivateDeviceKey) -> None:
        last = chain.read(packed, verify)[-1]
        packed.append(signed(last.next_body(kind, subject.public, by[0].public), *by))

    add(Kind.ADD, B, A, B)
    add(Kind.ADD, C, B, C)
    add(Kind.REMOVE, A, C)
    return packed


LINKS: Final = _whole_chain()
CHAINS: Final = chain.read(LINKS, verify)
CHAIN_SEEDS: Final = [b"".join(LINKS), *LINKS, *corpus_of("device_chains")]


def _check_chain(packed: list[bytes]) -> None:
    """A chain is read only if it is a beginning of the one that its devices have signed."""
    try:
        read = chain.read(packed, verify)
    except LinkError as error:
        assert len(str(error)) < 200
        return
    assert packed == LINKS[: len(packed)]
    assert read == CHAINS[: len(packed)]


def _as_links(data: bytes) -> list[bytes]:
    """Cut changed bytes where the links of the whole chain ended."""
    cut: list[bytes] = []
    for link in LINKS:
        cut.append(data[: len(link)])
        data = data[len(link) :]
    return [one for one in [*cut, data] if one]


device_chains = Target(
    "device_chains",
    st.lists(st.sampled_from(LINKS) | st.builds(edited, st.sampled_from(LINKS), edits), max_size=5),
    _check_chain,
    examples=60,
    of_bytes=_as_links,
    seeds=CHAIN_SEEDS,
    quick=1000,
)


# --- requests about accounts ----------------------------------------------------------------------
ACCOUNT_REQUESTS: Final[list[account_requests.Request]] = [
    account_requests.Extend(LINKS[1]),
    account_requests.NameDevice(A.public, "Ann's phone"),
    account_requests.Show(),
    account_requests.ListNames(PARTITIONS - 1, "ann"),
    account_requests.Block("bob", HASH),
    account_requests.Unblock("bob"),
    account_requests.Prefer(3, 2),
    account_requests.Invite(HASH, LATER_MS, False),
    account_requests.Add(HASH, 0, True),
    account_requests.Reset(HASH, LATER_MS),
    account_requests.Disable(),
    account_requests.Enable(),
    account_requests.Remove(),
    account_requests.Promote(True),
    account_requests.Preferences(),
    account_requests.Marks("@ann"),
    account_requests.LastSeen(),
    account_requests.SetKeep(1, 2, 3),
    account_requests.Keep(),
    account_requests.ListInvitations(0, ""),
    account_requests.Register(LINKS[0], b"", False, False, False),
    account_requests.Enrol(B.public, bytes(64)),
    account_requests.Bind(HASH, "ann", A.public),
    account_requests.Release(HASH, "ann", A.public),
    account_requests.MayWrite(HASH),
    account_requests.SeenBy(HASH),
    account_requests.TellInvited("lobby", HASH, b""),
]
ACCOUNT_SEEDS: Final = [
    *map(account_requests.pack, ACCOUNT_REQUESTS),
    *corpus_of("account_requests"),
]


def _check_account(packed: list[bytes]) -> None:
    """Only EnvelopeError and Refused; whatever was decided can be stored and read again."""
    account, invited = Account("ann"), invitation.Invitation()
    policy = Policy("open", SERVER_ID)
    context = decide_request.Context(policy, verify, NOW_MS, False, "bob")
    for one in packed:
        try:
            request = account_requests.unpack(one)
        except EnvelopeError as error:
            assert len(str(error)) < 200
            continue
        assert account_requests.unpack(account_requests.pack(request)) == request
        try:
            decided = decide_request.about_account(account, request, context)
        except account_refusal.Refused:
            decided = None
        if decided is not None and decided.event is not None:
            event = account_events.unpack(account_events.pack(decided.event))
            assert event == decided.event
            account = account_after(account, event)  # type: ignore[arg-type]
            answers.unpack_shown(answers.packed_shown(account))
            answers.unpack_wanted(answers.packed_wanted(account))
        try:
            decided = decide_request.about_invitation(invited, request, context)
        except account_refusal.Refused:
            continue
        if decided.event is not None:
            event = account_events.unpack(account_events.pack(decided.event))
            invited = invitation.applied(invited, event)  # type: ignore[arg-type]


account_target = Target(
    "account_requests",
    st.lists(
        st.sampled_from(ACCOUNT_SEEDS) | contents(ACCOUNT_SEEDS, "account_requests"), max_size=8
    ),
    _check_account,
    examples=60,
    of_bytes=lambda data: [ACCOUNT_SEEDS[-6], data],
    seeds=ACCOUNT_SEEDS,
    quick=2000,
)


# --- requests about rooms -------------------------------------------------------------------------
ROOM_SEEDS: Final = [
    *(room_requests.pack(request, seen) for request, seen in ROOM_REQUESTS),
    *corpus_of("room_requests"),
]
ROOTS: Final = {"ann": b"\xaa" * 32, "bob": b"\xbb" * 32, "cat": b"\xcc" * 32, "~guest": b""}
OPERATOR: Final = rights.Actor("ops", b"\xee" * 32, operator=True)
ACTORS: Final = [*(rights.Actor(name, root) for name, root in ROOTS.items()), OPERATOR]


def _check_room(asked: list[tuple[int, bytes]]) -> None:
    """Only EnvelopeError and Refused; the events give a room that can be stored and shown."""
    room, head = room_states.Room(), 0
    for number, packed in asked:
        try:
            request, seen = room_requests.unpack(packed)
        except EnvelopeError as error:
            assert len(str(error)) < 200
            continue
        assert room_requests.unpack(room_requests.pack(request, seen)) == (request, seen)
        actor = ACTORS[number % len(ACTORS)]
        subject = ROOTS.get(room_requests.named(request), b"")
        context = room_decide.Context(actor, seen, NOW_MS, head, subject)
        try:
            if isinstance(request, room_requests.Redact):
                room_decide.check_redact(room, actor, request, head)
                continue
            if isinstance(request, room_requests.Show | room_requests.List | room_requests.Mine):
                continue
            event = room_decide.decide(room, request, context)
        except room_refusal.Refused:
            continue
        if event is not None:
            head += 1
            room = _room_after(room, event, actor.handle, head)
            assert rights.rights(room, OPERATOR), "an operator can always do something"


def _room_after(
    room: room_states.Room, event: room_events.Event, sender: str, seq: int
) -> room_states.Room:
    assert room_events.unpack(room_events.pack(event)) == event
    room = room_states.applied(room, event, sender, seq)
    assert room_states.unpack(room_states.pack(room)) == room
    shown.unpack(shown.pack(room, "", bytes(8)))
    return room


room_target = Target(
    "room_requests",
    st.lists(
        st.tuples(
            st.integers(0, len(ACTORS) - 1),
            st.sampled_from(ROOM_SEEDS) | contents(ROOM_SEEDS, "room_requests"),
        ),
        max_size=12,
    ).map(lambda asked: [(0, ROOM_SEEDS[0]), *asked]),
    _check_room,
    examples=60,
    of_bytes=lambda data: [(0, ROOM_SEEDS[0]), (0, data), (len(data), data)],
    seeds=ROOM_SEEDS,
    quick=2000,
)


# --- entries that a client folds ------------------------------------------------------------------
EVENT_SEEDS: Final = [
    *(room_events.pack(event) for _, _, event in LOG),
    room_events.pack(room_events.Deleted("no more")),
    *corpus_of("control_entries"),
]


def _check_entries(bodies: list[bytes]) -> None:
    """A server that sends anything as control entries: EnvelopeError, or a state that is whole."""
    room = room_states.Room()
    for seq, body in enumerate(bodies, 1):
        try:
            event = room_events.unpack(body)
        except EnvelopeError as error:
            assert len(str(error)) < 200
            continue
        if event is None:
            room = room_states.applied(room, None, "ann", seq)
        else:
            room = _room_after(room, event, "ann", seq)
        assert room.version == seq


control_entries = Target(
    "control_entries",
    st.lists(st.sampled_from(EVENT_SEEDS) | contents(EVENT_SEEDS, "control_entries"), max_size=20),
    _check_entries,
    examples=60,
    of_bytes=lambda data: [EVENT_SEEDS[0], data],
    seeds=EVENT_SEEDS,
    quick=3000,
)


# --- the content of DONE --------------------------------------------------------------------------
UNPACKERS: Final[list[Callable[[bytes], object]]] = [
    answers.unpack_invitations,
    answers.unpack_wanted,
    answers.unpack_keep,
    answers.unpack_marks,
    answers.unpack_shown,
    answers.unpack_seen,
    shown.unpack,
    shown.unpack_list,
    shown.unpack_own,
    shown.unpack_identity,
    room_states.unpack,
]


def _filled_account() -> Account:
    account = Account("ann")
    for link in LINKS:
        begins = not account.chain
        event = account_events.Created(link, False, b"") if begins else account_events.Linked(link)
        account = account_after(account, event)
    return account_after(account, account_events.Blocked("bob", HASH))


def _filled_room() -> room_states.Room:
    room = room_states.Room()
    for seq, sender, event in LOG:
        room = room_states.applied(room, event, sender, seq)
    return room


ANSWERS: Final = [
    answers.packed_shown(_filled_account()),
    answers.packed_wanted(_filled_account()),
    answers.packed_seen(answers.Seen(True, 7)),
    answers.packed_invitations(
        answers.Invitations((answers.Invitation(HASH, LATER_MS, False, "ann"),), "")
    ),
    shown.pack(_filled_room(), "", bytes(8)),
    shown.pack_identity(bytes(8)),
    room_states.pack(_filled_room()),
    *corpus_of("answers"),
]


def _check_answer(data: bytes) -> None:
    """Only EnvelopeError, whichever answer it should be."""
    for unpack in UNPACKERS:
        try:
            unpack(data)
        except EnvelopeError as error:
            assert len(str(error)) < 200


answer_target = Target(
    "answers",
    contents(ANSWERS, "answers"),
    _check_answer,
    examples=60,
    of_bytes=bytes,
    seeds=ANSWERS,
    quick=1500,
)


# --- searches -------------------------------------------------------------------------------------
SEARCHES: Final = [
    b'tea "green tea" cup',
    "grüß dich ☕ 日本 é".encode(),
    b'x" OR NEAR(* ^a -b body:c {a b}:d "',
    *corpus_of("searches"),
]
_index = apsw.Connection(":memory:")
_index.execute("CREATE VIRTUAL TABLE words USING fts5(body, tokenize='unicode61')")
_index.execute("INSERT INTO words VALUES ('tea green cup')")


def _check_search(text: str) -> None:
    """Whatever is typed is a valid query, or has no word."""
    query = match_of(text)
    if query:
        list(_index.execute("SELECT rowid FROM words WHERE words MATCH ?", (query,)))


searches = Target(
    "searches",
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
    | st.text('"* ^(){}+-:ab\u00b2\u0301\u2167é☕', max_size=20),
    _check_search,
    of_bytes=lambda data: data.decode("utf-8", "replace"),
    seeds=SEARCHES,
    quick=2000,
)


# --- requests on local sockets --------------------------------------------------------------------
LINES: Final = [
    b'{"do": "status"}',
    b'{"do": "connections", "limit": 20, "name": "ann"}',
    b'{"number": 7, "do": "fails"}',
    b'{"number": 8, "do": "works", "log": "\\ud800"}',
    b"[" * 3000,
    b'{"number":' * 3000,
    *corpus_of("local_requests"),
]


async def _listed(question: Question) -> dict[str, Any]:
    return {"limit": number_of(question, "limit", 20, 1000), "name": text_of(question, "name")}


# A line of the log for each input: with a handler, Python prints none of them.
logging.getLogger("relay").addHandler(logging.NullHandler())
_lines: Final = LineServer({"status": _listed, "connections": _listed, "works": _listed})


@dataclass(slots=True)
class Failed(Exception):
    """A request to the supervisor that fails in a way that nobody has foreseen."""

    message: str


def _fail(question: Question) -> object:
    raise Failed(str(question))


def _check_line(line: bytes) -> None:
    """The process that answers goes on: one answer, or none, and then that to the next request."""
    answer = asyncio.run(_lines._answer(line))
    assert answer.keys() in ({"ok"}, {"error"})
    json.dumps(answer)
    requests = RequestLine({"works": lambda _: "done", "status": lambda _: "done", "fails": _fail})
    asking = socket.socket(fileno=requests.far_fd)
    try:
        asking.settimeout(5.0)
        for message in (line, b'{"number": 99, "do": "works"}'):
            asking.send(message)
            requests.answer_all()
        while True:
            answer = json.loads(asking.recv(65_536))
            if answer == {"number": 99, "ok": "done"}:
                return
            assert type(answer.pop("number")) is int
            assert answer.keys() in ({"ok"}, {"error"})
    finally:
        requests.close()
        asking.detach()


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, default=str).encode()
    except (ValueError, TypeError):
        return b"{}"


questions: Final = st.fixed_dictionaries(
    {
        "do": st.sampled_from(("works", "status", "fails", "connections")) | values,
        "number": st.integers() | values,
    },
    optional={"limit": values, "name": values},
)
local_requests = Target(
    "local_requests",
    questions.map(_json) | st.builds(edited, st.sampled_from(LINES), edits),
    _check_line,
    examples=60,
    of_bytes=lambda data: data[:60_000] or b"x",
    seeds=LINES,
    quick=300,
)
TARGETS: Final[Sequence[Target]] = (
    device_chains, account_target, room_target, control_entries, answer_target, searches,
    local_requests,
)  # fmt: skip
