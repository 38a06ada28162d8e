"""Envelopes: msgpack arrays ``[op, field, ...]``, from one table of operations.

An app record carries one or more whole envelopes. For each operation this module has a NamedTuple
(its fields, in wire order) and one line of the table with a strict check per field (``codec``).
Trailing fields that a later version may add are ignored by readers, within limits. What is relayed
to others is packed again from the checked fields: a sender's own bytes never reach anybody.

``pack(envelope)`` and ``unpack_client`` / ``unpack_server`` are the whole interface. No I/O here.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias, cast

import msgpack

from relay import codec, limits
from relay.chat.accounts import chain, links, requests
from relay.chat.entries import ENTRY_CHECKS, EXTRA_CHECKS, NO_EXTRA, Kind, packable, unpacked
from relay.chat.entries import Entry as EntryMessage
from relay.chat.fields import (
    BODY,
    CONTENT_TYPE,
    DISPLAY,
    EPOCH,
    EPOCH_OR_NONE,
    INSTANCE_SECRET,
    KIND,
    LOG,
    NAME,
    POSITIVE,
    U63,
)
from relay.chat.rooms import events as room_events
from relay.chat.rooms import requests as room_requests
from relay.codec import Shape, Unknown
from relay.wire.hello import Hello, Register
from relay.wire.messages import SERVER_ID_BYTES

# Made elsewhere, part of this: an entry travels exactly as it is stored.
__all__ = ["EntryMessage", "Hello", "Register"]


class Op(IntEnum):
    """The operations. 1-31 travel from the client to the server, 33-63 the other way."""

    HELLO = 1
    JOIN = 2
    LEAVE = 3
    SEND = 4
    WHO = 5
    HISTORY = 6
    REGISTER = 7
    ENROL = 8
    DEVICES = 9
    ACCOUNT = 10
    PROVE = 31
    ROOM = 16
    SEARCH = 24

    WELCOME = 33
    JOINED = 34
    LEFT = 35
    ACK = 36
    REFUSED = 37
    ERROR = 38
    ENTRY = 39
    ROSTER = 40
    MEMBERS = 41
    PAGE = 42
    LIVE = 43
    BEHIND = 44
    GAP = 45
    DONE = 46
    CHAIN = 47
    NEXT_KEY = 63
    REMOVED = 56
    FOUND = 57
    INVITED = 58


class Join(NamedTuple):
    """Client: follow a log from a cursor (``epoch`` not None) or with its ``last`` entries."""

    request: int
    log: str
    epoch: bytes | None
    seq: int
    last: int


class Leave(NamedTuple):
    """Client: stop following a log."""

    request: int
    log: str


class Send(NamedTuple):
    """Client: append to a log. The id is (producer, counter), see ``chat.ids``.

    Invariant "Once, in order". To ``@handle`` it is a direct message, and its counter is of the
    sender's own inbox. ``about``: the place of the entry that this one is about (``Kind``).
    """

    log: str
    counter: int
    kind: int
    content_type: str
    body: bytes
    about_epoch: bytes = b""
    about_seq: int = 0


class Who(NamedTuple):
    """Client: who follows this log?"""

    request: int
    log: str


class History(NamedTuple):
    """Client: a page. Backward: entries below ``seq`` (0: from the head). Forward: above it."""

    request: int
    log: str
    forward: bool
    seq: int
    count: int  # type: ignore[assignment]  # the field's name in the protocol; hides tuple.count


class Search(NamedTuple):
    """Client: messages of a log that have all words of ``text``, newest first, with a seq below
    ``before`` (0: from the head).
    """

    request: int
    log: str
    text: str
    before: int
    count: int  # type: ignore[assignment]


class Enrol(NamedTuple):
    """Client: be added to the account of this name, as one of its devices approved. Before HELLO.

    ``countersignature``: of the offered link, by ``key``; empty: only ask for the offer.
    """

    request: int
    name: str
    key: bytes
    signature: bytes
    countersignature: bytes


class Devices(NamedTuple):
    """Client: the chain of somebody, from the link with index ``first`` on."""

    request: int
    name: str
    first: int


class Account(NamedTuple):
    """Client: a request about an account, packed (``chat.accounts.requests``)."""

    request: int
    name: str
    content: bytes


class Prove(NamedTuple):
    """Client: prove that the key of NEXT_KEY follows the server's. ``challenge``: a fresh secret
    under the server's key (``ServerPublicKey.challenge``); the answer is DONE with the proof.
    """

    request: int
    challenge: bytes


class Room(NamedTuple):
    """Client: a request about a room, packed (``chat.rooms.requests``)."""

    request: int
    log: str
    content: bytes


class Welcome(NamedTuple):
    """Server: logged in. Carries the server's clock (ms since 1970) and the client's limits.

    ``root``: of the account's chain; empty for a guest.
    """

    name: str
    time_ms: int
    body_bytes_max: int
    sends_max: int
    agent: str
    root: bytes = b""


class Joined(NamedTuple):
    """Server: entries after ``start_seq`` follow; the log's head was ``head_seq``."""

    request: int
    log: str
    start_epoch: bytes
    start_seq: int
    head_epoch: bytes
    head_seq: int


class Left(NamedTuple):
    """Server: no entry of this log follows any more."""

    request: int
    log: str


class Ack(NamedTuple):
    """Server: committed as ``(epoch, seq)``. seq 0: stored earlier, entry no longer held.

    ``durability``: what the commit survives, a ``wire.codes.Survives``.
    """

    log: str
    counter: int
    epoch: bytes
    seq: int
    durability: int = 0


class Refused(NamedTuple):
    """Server: this send was not stored. ``code`` is an ErrorCode, ``arg`` its number."""

    log: str
    counter: int
    code: int
    arg: int
    text: str


class Error(NamedTuple):
    """Server: this request was refused. ``request`` 0: it belongs to none."""

    request: int
    code: int
    arg: int
    text: str


class Roster(NamedTuple):
    """Server: the members changed. In a large room the lists are empty: only total counts."""

    log: str
    incarnation: int
    version: int
    total: int
    joined: list[list[str]]
    left: list[str]


class Members(NamedTuple):
    """Server: answer to WHO. ``names``: [name, display name, number of connections] each."""

    request: int
    log: str
    incarnation: int
    version: int
    total: int
    names: list[list[str | int]]


class Page(NamedTuple):
    """Server: answer to HISTORY. ``next`` is the seq for the next page; ``end``: there is none."""

    request: int
    log: str
    next: int
    end: bool
    entries: list[EntryMessage]


class Found(NamedTuple):
    """Server: answer to SEARCH. ``next``: the ``before`` of the next page; ``end``: there is none.

    Entries above ``indexed`` were not looked at: they are not in the index yet. ``entries``: of
    each message that was found what it says now, itself or its last edit.
    """

    request: int
    log: str
    next: int
    end: bool
    indexed: int
    entries: list[EntryMessage]


class Live(NamedTuple):
    """Server: you have everything up to ``seq``; from here entries come as they are committed."""

    log: str
    epoch: bytes
    seq: int


class Behind(NamedTuple):
    """Server: you read too slowly and left live; entries after ``seq`` come from the log."""

    log: str
    epoch: bytes
    seq: int


class Gap(NamedTuple):
    """Server: you will not get the entries after ``from`` up to ``to``. Reason: GapReason."""

    log: str
    from_epoch: bytes
    from_seq: int
    to_epoch: bytes
    to_seq: int
    reason: int


class Done(NamedTuple):
    """Server: a request was done. ``content``: what that request answers."""

    request: int
    content: bytes


class Chain(NamedTuple):
    """Server: answer to DEVICES. ``end``: the last of these links is the chain's last."""

    request: int
    name: str
    links: list[bytes]
    end: bool


class NextKey(NamedTuple):
    """Server: another key will follow the server's. ``spki_hash``: SHA-256 of its SPKI."""

    spki_hash: bytes


class Invited(NamedTuple):
    """Server: ``by`` has just invited you to the room ``log``."""

    log: str
    by: str


class Removed(NamedTuple):
    """Server: you do not follow this log any more, for you may not. ``code``: an ErrorCode."""

    log: str
    code: int
    text: str


ClientEnvelope: TypeAlias = (
    Hello
    | Join
    | Leave
    | Send
    | Who
    | History
    | Register
    | Enrol
    | Devices
    | Account
    | Prove
    | Room
    | Search
    | Unknown
)
ServerEnvelope: TypeAlias = (
    Welcome
    | Joined
    | Left
    | Ack
    | Refused
    | Error
    | EntryMessage
    | Roster
    | Members
    | Page
    | Live
    | Behind
    | Gap
    | Done
    | Chain
    | NextKey
    | Removed
    | Found
    | Invited
    | Unknown
)

LIST_ITEMS_MAX: Final = limits.PAGE_ENTRIES_MAX
"""Names or rows in one list of a server's envelope; the record's bytes bound them further. msgpack
reserves room for what an array claims, at each level of nesting: a small bound keeps that small."""

CHALLENGE_BYTES_MAX: Final = 1024
"""An RSA ciphertext of the largest key."""

# --- fields -----------------------------------------------------------------------------------
_u8 = codec.uint(255)
_u16 = codec.uint(65_535)
_u32 = codec.uint(limits.U32_MAX)
_request = codec.uint(limits.U32_MAX, 1)
_agent = codec.text(limits.AGENT_CHARS_MAX)
_key = codec.binary(links.KEY_BYTES, links.KEY_BYTES)
_key_or_none = codec.binary(0, links.KEY_BYTES)
_signature = codec.binary(links.SIGNATURE_BYTES, links.SIGNATURE_BYTES)
_signature_or_none = codec.binary(0, links.SIGNATURE_BYTES)
_link = codec.binary(1, links.LINK_BYTES_MAX)
_token_or_none = codec.binary(0, limits.TOKEN_BYTES)
_error_text = codec.text(limits.ERROR_TEXT_BYTES_MAX)
_packed_entry = codec.message(Op.ENTRY, ENTRY_CHECKS, "an ENTRY envelope", EXTRA_CHECKS)
_ENTRY_END: Final = 1 + len(ENTRY_CHECKS) + len(EXTRA_CHECKS)
_NOT_ABOUT: Final = NO_EXTRA[1:]


def _found(
    request: int, log: str, next_seq: int, end: bool, indexed: int, rows: list[list[object]]
) -> Found:
    entries = [unpacked(row[1:_ENTRY_END]) for row in rows]
    return Found(request, log, next_seq, end, indexed, entries)


def _page(request: int, log: str, next_seq: int, end: bool, rows: list[list[object]]) -> Page:
    entries = [unpacked(row[1:_ENTRY_END]) for row in rows]
    return Page(request, log, next_seq, end, entries)


CLIENT_SHAPES: Final[dict[int, Shape]] = {
    Op.HELLO: Shape(
        Hello, (NAME, INSTANCE_SECRET, DISPLAY, _agent, _key_or_none, _signature_or_none)
    ),
    Op.JOIN: Shape(Join, (_request, LOG, codec.nil_or(EPOCH), U63, _u32)),
    Op.LEAVE: Shape(Leave, (_request, LOG)),
    Op.SEND: Shape(
        Send,
        (LOG, POSITIVE, KIND, CONTENT_TYPE, BODY),
        optional=(EPOCH_OR_NONE, U63),
        missing=_NOT_ABOUT,
    ),
    Op.WHO: Shape(Who, (_request, LOG)),
    Op.HISTORY: Shape(History, (_request, LOG, codec.boolean, U63, _u16)),
    Op.REGISTER: Shape(Register, (_request, NAME, _key, _signature, _link, _token_or_none)),
    Op.ENROL: Shape(Enrol, (_request, NAME, _key, _signature, _signature_or_none)),
    Op.DEVICES: Shape(Devices, (_request, NAME, _u16)),
    Op.ACCOUNT: Shape(
        Account,
        (
            _request,
            codec.text(limits.NAME_CHARS_MAX),
            codec.binary(1, requests.REQUEST_BYTES_MAX),
        ),
    ),
    Op.PROVE: Shape(Prove, (_request, codec.binary(1, CHALLENGE_BYTES_MAX))),
    Op.ROOM: Shape(
        Room,
        (
            _request,
            codec.text(limits.NAME_CHARS_MAX),
            codec.binary(1, room_requests.REQUEST_BYTES_MAX),
        ),
    ),
    Op.SEARCH: Shape(Search, (_request, LOG, codec.text(limits.SEARCH_BYTES_MAX, 1), U63, _u16)),
}
SERVER_SHAPES: Final[dict[int, Shape]] = {
    Op.WELCOME: Shape(Welcome, (NAME, U63, _u32, _u32, _agent, _key_or_none)),
    Op.JOINED: Shape(Joined, (_request, LOG, EPOCH, U63, EPOCH, U63)),
    Op.LEFT: Shape(Left, (_request, LOG)),
    Op.ACK: Shape(Ack, (LOG, POSITIVE, EPOCH, U63), optional=(_u8,), missing=(0,)),
    Op.REFUSED: Shape(Refused, (LOG, POSITIVE, _u16, U63, _error_text)),
    Op.ERROR: Shape(Error, (_u32, _u16, U63, _error_text)),
    Op.ENTRY: Shape(EntryMessage, ENTRY_CHECKS, optional=EXTRA_CHECKS, missing=NO_EXTRA),
    Op.ROSTER: Shape(
        Roster,
        (
            LOG,
            U63,
            U63,
            _u32,
            codec.list_of(codec.tuple_of(NAME, DISPLAY), LIST_ITEMS_MAX),
            codec.list_of(NAME, LIST_ITEMS_MAX),
        ),
    ),
    Op.MEMBERS: Shape(
        Members,
        (
            _request,
            LOG,
            U63,
            U63,
            _u32,
            codec.list_of(codec.tuple_of(NAME, DISPLAY, _u32), LIST_ITEMS_MAX),
        ),
    ),
    Op.PAGE: Shape(
        Page,
        (_request, LOG, U63, codec.boolean, codec.list_of(_packed_entry, LIST_ITEMS_MAX)),
        _page,
    ),
    Op.LIVE: Shape(Live, (LOG, EPOCH, U63)),
    Op.BEHIND: Shape(Behind, (LOG, EPOCH, U63)),
    Op.GAP: Shape(Gap, (LOG, EPOCH, U63, EPOCH, U63, _u8)),
    Op.DONE: Shape(Done, (_request, codec.binary(0, limits.BODY_BYTES_MAX))),
    Op.NEXT_KEY: Shape(NextKey, (codec.binary(SERVER_ID_BYTES, SERVER_ID_BYTES),)),
    Op.CHAIN: Shape(Chain, (_request, NAME, codec.list_of(_link, chain.LINKS_MAX), codec.boolean)),
    Op.REMOVED: Shape(Removed, (LOG, _u16, _error_text)),
    Op.INVITED: Shape(Invited, (LOG, NAME)),
    Op.FOUND: Shape(
        Found,
        (_request, LOG, U63, codec.boolean, U63, codec.list_of(_packed_entry, LIST_ITEMS_MAX)),
        _found,
    ),
}
SYSTEM: Final = int(Kind.SYSTEM)
_CONTROL: Final = room_events.CONTENT_TYPE.encode()
_ENTRY: Final = int(Op.ENTRY)  # packed faster than the enum
_ACK: Final = int(Op.ACK)
_SEND: Final = int(Op.SEND)
_OP_OF: Final = {shape.type: op for op, shape in (CLIENT_SHAPES | SERVER_SHAPES).items()}
_CLIENT: Final = codec.Schema(
    CLIENT_SHAPES,
    count_max=limits.ENVELOPES_PER_RECORD_MAX,
    array_max=limits.ENVELOPE_FIELDS_MAX,
)
_SERVER: Final = codec.Schema(
    SERVER_SHAPES,
    count_max=limits.RECORD_CONTENT_BYTES_MAX,
    array_max=LIST_ITEMS_MAX,
)


# --- packing ----------------------------------------------------------------------------------
def pack(envelope: ClientEnvelope | ServerEnvelope) -> bytes:
    """Pack one envelope. The caller has checked its fields: these are our own values."""
    if type(envelope) is Page:
        request, log, next_seq, end, entries = envelope
        rows = [pack_entry(packable(entry)) for entry in entries]
        return pack_page(request, log, next_seq, end, rows)
    if type(envelope) is Found:
        rows = [pack_entry(packable(entry)) for entry in envelope.entries]
        return pack_found(*envelope[:5], rows)
    if type(envelope) is Send:
        return pack_send(*envelope)
    if type(envelope) is EntryMessage:
        return pack_entry(packable(envelope))
    if type(envelope) is Ack:
        return pack_ack(*envelope)
    return codec.pack((_OP_OF[type(envelope)], *envelope))


def pack_send(
    log: str,
    counter: int,
    kind: int,
    content_type: str,
    body: bytes,
    about_epoch: bytes = b"",
    about_seq: int = 0,
) -> bytes:
    """Return ``pack(Send(...))``."""
    if about_seq or about_epoch:
        return codec.pack((_SEND, log, counter, kind, content_type, body, about_epoch, about_seq))
    return codec.pack((_SEND, log, counter, kind, content_type, body))


def pack_ack(log: str, counter: int, epoch: bytes, seq: int, durability: int = 0) -> bytes:
    """Return ``pack(Ack(...))``. Apart, for each send has one."""
    if durability:
        return codec.pack((_ACK, log, counter, epoch, seq, durability))
    return codec.pack((_ACK, log, counter, epoch, seq))


def pack_entry(entry: tuple[object, ...]) -> bytes:
    """Pack the fields of an entry (``chat.entries.committed``) as its ENTRY envelope.

    These are the bytes that are stored and sent.
    """
    return codec.pack((_ENTRY, *entry))


def pack_page(request: int, log: str, next_seq: int, end: bool, rows: list[bytes]) -> bytes:
    """Pack a PAGE around rows that are packed ENTRY envelopes already: nothing is packed twice."""
    head = codec.pack((Op.PAGE, request, log, next_seq, end))
    return b"".join((b"\x96", head[1:], codec.array_header(len(rows)), *rows))


def pack_found(
    request: int, log: str, next_seq: int, end: bool, indexed: int, rows: list[bytes]
) -> bytes:
    """Pack a FOUND around rows that are packed ENTRY envelopes already."""
    head = codec.pack((Op.FOUND, request, log, next_seq, end, indexed))
    return b"".join((b"\x97", head[1:], codec.array_header(len(rows)), *rows))


def is_control(packed: bytes) -> bool:
    """Tell whether a packed ENTRY of our own store may change who may do what in its log."""
    return _CONTROL in packed and unpack_entry(packed).content[:2] == (
        SYSTEM,
        room_events.CONTENT_TYPE,
    )


def unpack_entry(packed: bytes) -> EntryMessage:
    """Return a packed ENTRY of our own store."""
    fields = cast("list[object]", msgpack.unpackb(packed))
    return unpacked(fields[1:_ENTRY_END])


# --- unpacking --------------------------------------------------------------------------------
def unpack_client(content: bytes) -> list[ClientEnvelope]:
    """Return the envelopes of a client's record.

    Raises:
        EnvelopeError: anything that is not a sequence of legal envelopes of a client.
    """
    return cast("list[ClientEnvelope]", _CLIENT.unpack(content))


def unpack_server(content: bytes) -> list[ServerEnvelope]:
    """Return the envelopes of a server's record.

    Raises:
        EnvelopeError: anything that is not a sequence of legal envelopes of a server.
    """
    return cast("list[ServerEnvelope]", _SERVER.unpack(content))
