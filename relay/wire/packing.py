"""Converts envelopes to bytes and back: msgpack arrays ``[op, field, ...]``, from one table.

For each operation the table has one line with a strict check per field (``codec``). Readers ignore
trailing fields, which a later version may add, within limits. What is relayed to others is packed
again from the checked fields: a sender's own bytes never reach anybody.

``pack(envelope)`` and ``unpack_client`` / ``unpack_server`` are the whole interface. No I/O.
"""

from __future__ import annotations

from typing import Final, cast

import msgpack

from relay import codec, limits
from relay.chat.accounts import chain, links, requests
from relay.chat.entries import ENTRY_CHECKS, EXTRA_CHECKS, NO_EXTRA, Kind, packable, unpacked
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
    TO,
    U63,
)
from relay.chat.rooms import events as room_events
from relay.chat.rooms import requests as room_requests
from relay.codec import Shape
from relay.errors import EnvelopeError
from relay.wire.envelopes import (
    Account,
    Ack,
    Behind,
    Chain,
    ClientEnvelope,
    Devices,
    Done,
    Enrol,
    EntryMessage,
    Error,
    Found,
    Gap,
    Hello,
    History,
    Invited,
    Join,
    Joined,
    Leave,
    Left,
    Live,
    Members,
    NextKey,
    Op,
    Page,
    Prove,
    Refused,
    Register,
    Removed,
    Room,
    Roster,
    Search,
    Send,
    ServerEnvelope,
    Welcome,
    Who,
)
from relay.wire.messages import SERVER_ID_BYTES

LIST_ITEMS_MAX: Final = limits.PAGE_ENTRIES_MAX
"""Names or rows in one list of a server's envelope; the record's size limits them further. msgpack
allocates what an array claims, at each level of nesting: a small limit keeps that small."""

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
_ENTRY_FIELDS: Final = 1 + len(ENTRY_CHECKS)
_ENTRY_END: Final = _ENTRY_FIELDS + len(EXTRA_CHECKS)
_NOT_ABOUT: Final = NO_EXTRA[1:]
_LOG_BYTES_MAX: Final = 1 + limits.NAME_CHARS_MAX


def _is_send(fields: list[object]) -> bool:
    """Check all fields of a SEND at once. False also if its texts are not ASCII."""
    log, counter, kind, content_type, body = fields
    return (
        type(log) is str
        and 0 < len(log) <= _LOG_BYTES_MAX
        and log.isascii()
        and type(counter) is int
        and 0 < counter <= limits.U63_MAX
        and type(kind) is int
        and 0 <= kind <= 255
        and type(content_type) is str
        and len(content_type) <= limits.CONTENT_TYPE_BYTES_MAX
        and content_type.isascii()
        and type(body) is bytes
        and len(body) <= limits.BODY_BYTES_MAX
    )


def _is_entry(fields: object) -> bool:
    """Check all fields of a stored ENTRY at once. False also if its texts are not ASCII."""
    if type(fields) is not list or len(fields) != _ENTRY_FIELDS:
        return False
    op, log, epoch, seq, prev, time_ms, sender, key_id, producer, counter, kind, form, body = fields
    return (
        type(op) is type(seq) is type(prev) is type(time_ms) is type(counter) is type(kind) is int
        and type(log) is type(sender) is type(form) is str
        and type(epoch) is type(key_id) is type(producer) is type(body) is bytes
        and op == _ENTRY
        and 0 < len(log) <= _LOG_BYTES_MAX
        and 0 < len(sender) <= limits.NAME_CHARS_MAX
        and len(form) <= limits.CONTENT_TYPE_BYTES_MAX
        and log.isascii()
        and sender.isascii()
        and form.isascii()
        and len(epoch) == limits.EPOCH_BYTES
        and len(key_id) <= limits.KEY_ID_BYTES_MAX
        and limits.PRODUCER_BYTES_OF_0_1 <= len(producer) <= limits.PRODUCER_BYTES
        and len(body) <= limits.BODY_BYTES_MAX
        and 0 < seq <= limits.U63_MAX
        and 0 <= prev <= limits.U63_MAX
        and 0 <= time_ms <= limits.U63_MAX
        and 0 < counter <= limits.U63_MAX
        and 0 <= kind <= 255
    )


def _found(
    request: int, log: str, next_seq: int, end: bool, indexed: int, rows: list[list[object]]
) -> Found:
    entries = [unpacked(row[1:_ENTRY_END]) for row in rows]
    return Found(request, log, next_seq, end, indexed, entries)


def _page(request: int, log: str, next_seq: int, end: bool, rows: list[list[object]]) -> Page:
    entries = [unpacked(row[1:_ENTRY_END]) for row in rows]
    return Page(request, log, next_seq, end, entries)


def _identified(kind: type[tuple[object, ...]], checks: tuple[codec.Check, ...]) -> Shape:
    """Return the shape of a message that may end with the identity of a room."""
    return Shape(kind, checks, optional=(EPOCH_OR_NONE,), missing=(b"",))


CLIENT_SHAPES: Final[dict[int, Shape]] = {
    Op.HELLO: Shape(
        Hello, (NAME, INSTANCE_SECRET, DISPLAY, _agent, _key_or_none, _signature_or_none)
    ),
    Op.JOIN: _identified(Join, (_request, LOG, codec.nil_or(EPOCH), U63, _u32)),
    Op.LEAVE: Shape(Leave, (_request, LOG)),
    Op.SEND: Shape(
        Send,
        (LOG, POSITIVE, KIND, CONTENT_TYPE, BODY),
        optional=(EPOCH_OR_NONE, U63, EPOCH_OR_NONE),
        missing=(*_NOT_ABOUT, b""),
        earlier=len(_NOT_ABOUT),
    ),
    Op.WHO: Shape(Who, (_request, LOG)),
    Op.HISTORY: Shape(History, (_request, LOG, codec.boolean, U63, _u16)),
    Op.REGISTER: Shape(Register, (_request, NAME, _key, _signature, _link, _token_or_none)),
    Op.ENROL: Shape(Enrol, (_request, NAME, _key, _signature, _signature_or_none)),
    Op.DEVICES: Shape(Devices, (_request, NAME, _u16)),
    Op.ACCOUNT: Shape(Account, (_request, TO, codec.binary(1, requests.REQUEST_BYTES_MAX))),
    Op.PROVE: Shape(Prove, (_request, codec.binary(1, CHALLENGE_BYTES_MAX))),
    Op.ROOM: _identified(Room, (_request, TO, codec.binary(1, room_requests.REQUEST_BYTES_MAX))),
    Op.SEARCH: Shape(Search, (_request, LOG, codec.text(limits.SEARCH_BYTES_MAX, 1), U63, _u16)),
}
SERVER_SHAPES: Final[dict[int, Shape]] = {
    Op.WELCOME: Shape(Welcome, (NAME, U63, _u32, _u32, _agent, _key_or_none)),
    Op.JOINED: _identified(Joined, (_request, LOG, EPOCH, U63, EPOCH, U63)),
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
QUICK: Final[dict[int, codec.Quick]] = {Op.SEND: _is_send}
SYSTEM: Final = int(Kind.SYSTEM)
_CONTROL: Final = room_events.CONTENT_TYPE.encode()
_ENTRY: Final = int(Op.ENTRY)  # packed faster than the enum
_ACK: Final = int(Op.ACK)
_SEND: Final = int(Op.SEND)
_OP_OF: Final = {shape.type: op for op, shape in (CLIENT_SHAPES | SERVER_SHAPES).items()}
CLIENT_SCHEMA: Final = codec.Schema(
    CLIENT_SHAPES,
    count_max=limits.ENVELOPES_PER_RECORD_MAX,
    array_max=limits.ENVELOPE_FIELDS_MAX,
    values_max=limits.ENVELOPE_VALUES_MAX,
    quick=QUICK,
)
"""Unpacks a client's record. The server calls it directly, to take a long record in parts."""
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
    if isinstance(envelope, Join | Joined | Room) and not envelope.identity:
        return codec.pack((_OP_OF[type(envelope)], *envelope[:-1]))
    return codec.pack((_OP_OF[type(envelope)], *envelope))


def pack_send(
    log: str,
    counter: int,
    kind: int,
    content_type: str,
    body: bytes,
    about_epoch: bytes = b"",
    about_seq: int = 0,
    identity: bytes = b"",
) -> bytes:
    """Return ``pack(Send(...))``."""
    if identity:
        extra = about_epoch, about_seq, identity
        return codec.pack((_SEND, log, counter, kind, content_type, body, *extra))
    if about_seq or about_epoch:
        return codec.pack((_SEND, log, counter, kind, content_type, body, about_epoch, about_seq))
    return codec.pack((_SEND, log, counter, kind, content_type, body))


def pack_ack(log: str, counter: int, epoch: bytes, seq: int, durability: int = 0) -> bytes:
    """Return ``pack(Ack(...))``. A separate function because each send has one."""
    if durability:
        return codec.pack((_ACK, log, counter, epoch, seq, durability))
    return codec.pack((_ACK, log, counter, epoch, seq))


def pack_acks(log: str, counters: list[int], epoch: bytes, seq: int, durability: int) -> bytes:
    """Return the ACKs of these counters, which have this seq and the following ones."""
    # One call packs all of them as an array, whose header is then removed.
    if durability:
        packed = codec.pack(
            [(_ACK, log, one, epoch, at, durability) for at, one in enumerate(counters, seq)]
        )
    else:
        packed = codec.pack([(_ACK, log, one, epoch, at) for at, one in enumerate(counters, seq)])
    return packed[len(codec.array_header(len(counters))) :]


def pack_entry(entry: tuple[object, ...]) -> bytes:
    """Pack the fields of an entry (``chat.entries.committed``) as its ENTRY envelope.

    These are the bytes that are stored and sent.
    """
    return codec.pack((_ENTRY, *entry))


def pack_page(request: int, log: str, next_seq: int, end: bool, rows: list[bytes]) -> bytes:
    """Pack a PAGE around rows that are already packed ENTRY envelopes: nothing is packed twice."""
    head = codec.pack((Op.PAGE, request, log, next_seq, end))
    return b"".join((b"\x96", head[1:], codec.array_header(len(rows)), *rows))


def pack_found(
    request: int, log: str, next_seq: int, end: bool, indexed: int, rows: list[bytes]
) -> bytes:
    """Pack a FOUND around rows that are already packed ENTRY envelopes."""
    head = codec.pack((Op.FOUND, request, log, next_seq, end, indexed))
    return b"".join((b"\x97", head[1:], codec.array_header(len(rows)), *rows))


def is_control(packed: bytes) -> bool:
    """Return True if a packed ENTRY of our own store may change the rights in its log."""
    return _CONTROL in packed and unpack_entry(packed).content[:2] == (
        SYSTEM,
        room_events.CONTENT_TYPE,
    )


def unpack_entry(packed: bytes) -> EntryMessage:
    """Return a packed ENTRY of our own store, checked as its readers do.

    Raises:
        Exception: of any kind; the bytes are not an entry (a damaged file).
    """
    fields = msgpack.unpackb(packed)
    if not _is_entry(fields) and not _packed_entry(fields):
        raise EnvelopeError("not an entry")
    return unpacked(cast("list[object]", fields)[1:_ENTRY_END])


# --- unpacking --------------------------------------------------------------------------------
def unpack_client(content: bytes) -> list[ClientEnvelope]:
    """Return the envelopes of a client's record.

    Raises:
        EnvelopeError: anything that is not a sequence of legal envelopes of a client.
    """
    return CLIENT_SCHEMA.unpack(content)


def unpack_server(content: bytes) -> list[ServerEnvelope]:
    """Return the envelopes of a server's record.

    Raises:
        EnvelopeError: anything that is not a sequence of legal envelopes of a server.
    """
    return _SERVER.unpack(content)
