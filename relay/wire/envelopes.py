"""Envelopes: msgpack arrays ``[op, field, ...]``, from one table of operations.

An app record carries one or more whole envelopes. For each operation this module has a NamedTuple
(its fields, in wire order) and one line of the table with a strict check per field (``codec``).
Trailing fields that a later version may add are ignored by readers, within limits. What is relayed
to others is packed again from the checked fields: a sender's own bytes never reach anybody.

``pack(envelope)`` and ``unpack_client`` / ``unpack_server`` are the whole interface. No I/O here.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, Self, TypeAlias, cast

import msgpack

from relay import codec, limits
from relay.codec import Shape, Unknown
from relay.secret import Secret


class Op(IntEnum):
    """The operations. 1-31 travel from the client to the server, 33-63 the other way."""

    HELLO = 1
    JOIN = 2
    LEAVE = 3
    SEND = 4
    WHO = 5
    HISTORY = 6

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


class _Hello(NamedTuple):
    name: str
    secret: bytes
    producer: bytes
    display: str
    agent: str


class Hello(_Hello):
    """Client: who I am. The first envelope, once. ``secret`` proves the same instance."""

    __slots__ = ()

    def __new__(cls, name: str, secret: bytes, producer: bytes, display: str, agent: str) -> Self:
        """Make one; the secret shows itself in no repr."""
        return super().__new__(cls, name, Secret(secret), producer, display, agent)


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
    """Client: append to a log. The id is (producer of HELLO, counter); see rule 1."""

    log: str
    counter: int
    kind: int
    content_type: str
    body: bytes


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


class Welcome(NamedTuple):
    """Server: logged in. Carries the server's clock (ms since 1970) and the client's limits."""

    name: str
    time_ms: int
    body_bytes_max: int
    sends_max: int
    agent: str


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
    """Server: committed as ``(epoch, seq)``. seq 0: stored earlier, entry no longer held."""

    log: str
    counter: int
    epoch: bytes
    seq: int


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


class EntryMessage(NamedTuple):
    """Server: one entry of a log, exactly as stored. Fields as in ``chat.entries.Entry``."""

    log: str
    epoch: bytes
    seq: int
    prev: int
    time_ms: int
    sender: str
    key_id: bytes
    producer: bytes
    counter: int
    kind: int
    content_type: str
    body: bytes


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


ClientEnvelope: TypeAlias = Hello | Join | Leave | Send | Who | History | Unknown
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
    | Unknown
)

LIST_ITEMS_MAX: Final = limits.PAGE_ENTRIES_MAX
"""Names or rows in one list of a server's envelope; the record's bytes bound them further. msgpack
reserves room for what an array claims, at each level of nesting: a small bound keeps that small."""

# --- fields -----------------------------------------------------------------------------------
_u8 = codec.uint(255)
_u16 = codec.uint(65_535)
_u32 = codec.uint(limits.U32_MAX)
_u63 = codec.uint(limits.U63_MAX)
_log = codec.text(1 + limits.NAME_CHARS_MAX, 1)
_name = codec.text(limits.NAME_CHARS_MAX, 1)
_display = codec.text(4 * limits.DISPLAY_NAME_CHARS_MAX)
_agent = codec.text(limits.AGENT_CHARS_MAX)
_epoch = codec.binary(limits.EPOCH_BYTES, limits.EPOCH_BYTES)
_producer = codec.binary(limits.PRODUCER_BYTES, limits.PRODUCER_BYTES)
_secret = codec.binary(limits.SECRET_BYTES, limits.SECRET_BYTES)
_key_id = codec.binary(0, limits.KEY_ID_BYTES_MAX)
_content_type = codec.text(limits.CONTENT_TYPE_BYTES_MAX)
_body = codec.binary(0, limits.BODY_BYTES_MAX)
_error_text = codec.text(limits.ERROR_TEXT_BYTES_MAX)
_counter = codec.uint(limits.U63_MAX, 1)

_ENTRY_CHECKS: Final[tuple[codec.Check, ...]] = (
    _log, _epoch, _counter, _u63, _u63, _name, _key_id, _producer, _counter, _u8,
    _content_type, _body,
)  # fmt: skip


_packed_entry = codec.message(Op.ENTRY, _ENTRY_CHECKS, "an ENTRY envelope")


CLIENT_SHAPES: Final[dict[int, Shape]] = {
    Op.HELLO: Shape(Hello, (_name, _secret, _producer, _display, _agent)),
    Op.JOIN: Shape(Join, (_u32, _log, codec.nil_or(_epoch), _u63, _u32)),
    Op.LEAVE: Shape(Leave, (_u32, _log)),
    Op.SEND: Shape(Send, (_log, _counter, _u8, _content_type, _body)),
    Op.WHO: Shape(Who, (_u32, _log)),
    Op.HISTORY: Shape(History, (_u32, _log, codec.boolean, _u63, _u16)),
}
SERVER_SHAPES: Final[dict[int, Shape]] = {
    Op.WELCOME: Shape(Welcome, (_name, _u63, _u32, _u32, _agent)),
    Op.JOINED: Shape(Joined, (_u32, _log, _epoch, _u63, _epoch, _u63)),
    Op.LEFT: Shape(Left, (_u32, _log)),
    Op.ACK: Shape(Ack, (_log, _counter, _epoch, _u63)),
    Op.REFUSED: Shape(Refused, (_log, _counter, _u16, _u63, _error_text)),
    Op.ERROR: Shape(Error, (_u32, _u16, _u63, _error_text)),
    Op.ENTRY: Shape(EntryMessage, _ENTRY_CHECKS),
    Op.ROSTER: Shape(
        Roster,
        (
            _log,
            _u63,
            _u63,
            _u32,
            codec.list_of(codec.tuple_of(_name, _display), LIST_ITEMS_MAX),
            codec.list_of(_name, LIST_ITEMS_MAX),
        ),
    ),
    Op.MEMBERS: Shape(
        Members,
        (
            _u32,
            _log,
            _u63,
            _u63,
            _u32,
            codec.list_of(codec.tuple_of(_name, _display, _u32), LIST_ITEMS_MAX),
        ),
    ),
    Op.PAGE: Shape(
        Page,
        (_u32, _log, _u63, codec.boolean, codec.list_of(_packed_entry, LIST_ITEMS_MAX)),
    ),
    Op.LIVE: Shape(Live, (_log, _epoch, _u63)),
    Op.BEHIND: Shape(Behind, (_log, _epoch, _u63)),
    Op.GAP: Shape(Gap, (_log, _epoch, _u63, _epoch, _u63, _u8)),
}
_OP_OF: Final = {shape.type: op for op, shape in (CLIENT_SHAPES | SERVER_SHAPES).items()}
_CLIENT: Final = codec.Schema(
    CLIENT_SHAPES,
    other_way=frozenset(int(op) for op in SERVER_SHAPES),
    count_max=limits.ENVELOPES_PER_RECORD_MAX,
    array_max=limits.ENVELOPE_FIELDS_MAX,
)
_SERVER: Final = codec.Schema(
    SERVER_SHAPES,
    other_way=frozenset(int(op) for op in CLIENT_SHAPES),
    count_max=limits.RECORD_CONTENT_BYTES_MAX,
    array_max=LIST_ITEMS_MAX,
)


# --- packing ----------------------------------------------------------------------------------
def pack(envelope: ClientEnvelope | ServerEnvelope) -> bytes:
    """Pack one envelope. The caller has checked its fields: these are our own values."""
    if type(envelope) is Page:
        request, log, next_seq, end, entries = envelope
        return pack_page(request, log, next_seq, end, [pack_entry(entry) for entry in entries])
    return codec.pack((_OP_OF[type(envelope)], *envelope))


def pack_entry(entry: tuple[object, ...]) -> bytes:
    """Pack a ``chat.entries.Entry`` as its ENTRY envelope: the bytes that are stored and sent."""
    return codec.pack((39, *entry))


def pack_page(request: int, log: str, next_seq: int, end: bool, rows: list[bytes]) -> bytes:
    """Pack a PAGE around rows that are packed ENTRY envelopes already: nothing is packed twice."""
    head = codec.pack((Op.PAGE, request, log, next_seq, end))
    return b"".join((b"\x96", head[1:], codec.array_header(len(rows)), *rows))


def unpack_content(packed: bytes) -> tuple[int, str, bytes]:
    """Return (kind, content type, body) of a packed ENTRY of our own store."""
    fields = cast("list[object]", msgpack.unpackb(packed))
    return cast("tuple[int, str, bytes]", tuple(fields[10:13]))


def unpack_entry(packed: bytes) -> EntryMessage:
    """Return a packed ENTRY of our own store as its NamedTuple."""
    fields = cast("list[object]", msgpack.unpackb(packed))
    return EntryMessage._make(fields[1:13])


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
    envelopes = _SERVER.unpack(content)
    for index, envelope in enumerate(envelopes):
        if type(envelope) is Page:
            rows = cast("list[list[object]]", envelope.entries)
            envelopes[index] = envelope._replace(
                entries=[EntryMessage._make(row[1:13]) for row in rows]
            )
    return cast("list[ServerEnvelope]", envelopes)
