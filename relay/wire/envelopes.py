"""Envelopes: msgpack arrays ``[op, field, ...]``, from one table of operations.

An app record carries one or more whole envelopes. For each operation this module has a NamedTuple
(its fields, in wire order) and one line of the table with a strict check per field: exact types (a
bool is no integer, bin is no str), ranges, lengths in bytes, well-formed UTF-8. Trailing fields that
a later version may add are ignored by readers, within limits. What is relayed to others is packed
again from the checked fields: a sender's own bytes never reach anybody.

``pack(envelope)`` and ``unpack_client`` / ``unpack_server`` are the whole interface. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias, cast

import msgpack

from relay import limits
from relay.errors import EnvelopeError


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


class Hello(NamedTuple):
    """Client: who I am. The first envelope, once. ``secret`` proves that it is the same instance."""

    name: str
    secret: bytes
    producer: bytes
    display: str
    agent: str


class Join(NamedTuple):
    """Client: follow a log, from a cursor (``epoch`` not None) or with the last ``last`` entries."""

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
    """Client: a page. Backward: entries with seq < ``seq`` (0: from the head). Forward: > ``seq``."""

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
    """Server: the members changed. In a large room the two lists are empty and only total counts."""

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


class Unknown(NamedTuple):
    """An operation number that this version does not know."""

    op: int


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

LIST_ITEMS_MAX: Final = 10_000
"""Names or rows in one list of a server's envelope; the record's bytes bound them further."""

Check: TypeAlias = Callable[[object], bool]


# --- field checks ------------------------------------------------------------------------------
# Each check carries its wire type as its docstring: the table of docs/protocol.md is made from it.
def _said(check: Check, wire_type: str) -> Check:
    check.__doc__ = wire_type
    return check


def _uint(maximum: int) -> Check:
    def check(value: object) -> bool:
        return type(value) is int and 0 <= value <= maximum

    return _said(check, f"int ≤ 2^{maximum.bit_length()}-1")


def _text(bytes_max: int, chars_min: int = 0) -> Check:
    def check(value: object) -> bool:
        return (
            type(value) is str
            and chars_min <= len(value) <= bytes_max
            and (value.isascii() or len(value.encode()) <= bytes_max)
        )

    return _said(check, f"str {chars_min}..{bytes_max}")


def _binary(minimum: int, maximum: int) -> Check:
    def check(value: object) -> bool:
        return type(value) is bytes and minimum <= len(value) <= maximum

    size = f"{minimum}" if minimum == maximum else f"{minimum}..{maximum}"
    return _said(check, f"bin {size}")


def _nil_or(inner: Check) -> Check:
    def check(value: object) -> bool:
        return value is None or inner(value)

    return _said(check, f"nil or {inner.__doc__}")


def _boolean(value: object) -> bool:
    """bool"""  # noqa: D400, D403, D415 - a wire type, not a sentence
    return value is True or value is False


def _list_of(inner: Check, count_max: int) -> Check:
    def check(value: object) -> bool:
        return type(value) is list and len(value) <= count_max and all(map(inner, value))

    return _said(check, f"array of ({inner.__doc__})")


def _tuple_of(*inner: Check) -> Check:
    def check(value: object) -> bool:
        return (
            type(value) is list
            and len(value) == len(inner)
            and all(f(v) for f, v in zip(inner, value, strict=True))
        )

    return _said(check, "array [" + ", ".join(str(f.__doc__) for f in inner) + "]")


_u8 = _uint(255)
_u16 = _uint(65_535)
_u32 = _uint(limits.U32_MAX)
_u63 = _uint(limits.U63_MAX)
_log = _text(1 + limits.NAME_CHARS_MAX, 1)
_name = _text(limits.NAME_CHARS_MAX, 1)
_display = _text(4 * limits.DISPLAY_NAME_CHARS_MAX)
_agent = _text(limits.AGENT_CHARS_MAX)
_epoch = _binary(limits.EPOCH_BYTES, limits.EPOCH_BYTES)
_producer = _binary(limits.PRODUCER_BYTES, limits.PRODUCER_BYTES)
_secret = _binary(limits.SECRET_BYTES, limits.SECRET_BYTES)
_key_id = _binary(0, limits.KEY_ID_BYTES_MAX)
_content_type = _text(limits.CONTENT_TYPE_BYTES_MAX)
_body = _binary(0, limits.BODY_BYTES_MAX)
_error_text = _text(limits.ERROR_TEXT_BYTES_MAX)


def _counter(value: object) -> bool:
    """int 1..2^63-1"""  # noqa: D400, D403, D415
    return type(value) is int and 1 <= value <= limits.U63_MAX


_ENTRY_CHECKS: Final[tuple[Check, ...]] = (
    _log, _epoch, _counter, _u63, _u63, _name, _key_id, _producer, _counter, _u8,
    _content_type, _body,
)  # fmt: skip


def _packed_entry(value: object) -> bool:
    """an ENTRY envelope"""  # noqa: D400, D403, D415
    return (
        type(value) is list
        and len(value) >= 1 + len(_ENTRY_CHECKS)
        and value[0] == Op.ENTRY
        and all(f(v) for f, v in zip(_ENTRY_CHECKS, value[1:], strict=False))
    )


class Shape(NamedTuple):
    """One row of the table: the type of an operation's envelope and a check for each field."""

    type: type[tuple[object, ...]]
    checks: tuple[Check, ...]


CLIENT_SHAPES: Final[dict[int, Shape]] = {
    Op.HELLO: Shape(Hello, (_name, _secret, _producer, _display, _agent)),
    Op.JOIN: Shape(Join, (_u32, _log, _nil_or(_epoch), _u63, _u32)),
    Op.LEAVE: Shape(Leave, (_u32, _log)),
    Op.SEND: Shape(Send, (_log, _counter, _u8, _content_type, _body)),
    Op.WHO: Shape(Who, (_u32, _log)),
    Op.HISTORY: Shape(History, (_u32, _log, _boolean, _u63, _u16)),
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
            _list_of(_tuple_of(_name, _display), LIST_ITEMS_MAX),
            _list_of(_name, LIST_ITEMS_MAX),
        ),
    ),
    Op.MEMBERS: Shape(
        Members, (_u32, _log, _u63, _u63, _u32, _list_of(_tuple_of(_name, _display, _u32), LIST_ITEMS_MAX))
    ),
    Op.PAGE: Shape(Page, (_u32, _log, _u63, _boolean, _list_of(_packed_entry, LIST_ITEMS_MAX))),
    Op.LIVE: Shape(Live, (_log, _epoch, _u63)),
    Op.BEHIND: Shape(Behind, (_log, _epoch, _u63)),
    Op.GAP: Shape(Gap, (_log, _epoch, _u63, _epoch, _u63, _u8)),
}
_OP_OF: Final = {shape.type: op for op, shape in (CLIENT_SHAPES | SERVER_SHAPES).items()}
for _shape in (CLIENT_SHAPES | SERVER_SHAPES).values():
    assert len(_shape.checks) == len(_shape.type.__annotations__), _shape.type

# One packer for the process: building one costs more than packing with it (measured by msgpack's
# own benchmarks; autoreset makes each call independent). Not thread-safe: loop thread only.
_pack = cast(Callable[[object], bytes], msgpack.Packer(use_bin_type=True).pack)


# --- packing -----------------------------------------------------------------------------------
def pack(envelope: ClientEnvelope | ServerEnvelope) -> bytes:
    """Pack one envelope. The caller has checked its fields: these are our own values."""
    return _pack((_OP_OF[type(envelope)], *envelope))


def pack_entry(entry: tuple[object, ...]) -> bytes:
    """Pack a ``chat.entries.Entry`` as its ENTRY envelope: the bytes that are stored and sent."""
    return _pack((39, *entry))


def pack_page(request: int, log: str, next_seq: int, end: bool, rows: list[bytes]) -> bytes:
    """Pack a PAGE around rows that are packed ENTRY envelopes already: nothing is packed twice."""
    head = _pack((Op.PAGE, request, log, next_seq, end))
    return b"".join((b"\x96", head[1:], _array_header(len(rows)), *rows))


def _array_header(count: int) -> bytes:
    if count < 16:
        return bytes((0x90 | count,))
    if count < 65_536:
        return b"\xdc" + count.to_bytes(2, "big")
    raise ValueError("too many rows for one page")


def unpack_content(packed: bytes) -> tuple[int, str, bytes]:
    """Return (kind, content type, body) of a packed ENTRY of our own store."""
    fields = cast("list[object]", msgpack.unpackb(packed))
    return cast("tuple[int, str, bytes]", tuple(fields[10:13]))


def unpack_entry(packed: bytes) -> EntryMessage:
    """Return a packed ENTRY of our own store as its NamedTuple."""
    fields = cast("list[object]", msgpack.unpackb(packed))
    return EntryMessage._make(fields[1:13])


# --- unpacking ---------------------------------------------------------------------------------
def unpack_client(content: bytes) -> list[ClientEnvelope]:
    """Return the envelopes of a client's record.

    Raises:
        EnvelopeError: anything that is not a sequence of legal envelopes of a client.
    """
    envelopes = _unpack(
        content, CLIENT_SHAPES, limits.ENVELOPES_PER_RECORD_MAX, limits.ENVELOPE_FIELDS_MAX
    )
    return cast("list[ClientEnvelope]", envelopes)


def unpack_server(content: bytes) -> list[ServerEnvelope]:
    """Return the envelopes of a server's record.

    Raises:
        EnvelopeError: anything that is not a sequence of legal envelopes of a server.
    """
    envelopes = _unpack(content, SERVER_SHAPES, limits.RECORD_CONTENT_BYTES_MAX, LIST_ITEMS_MAX)
    return cast("list[ServerEnvelope]", envelopes)


def _decoder(array_len_max: int) -> msgpack.Unpacker:
    size = limits.RECORD_CONTENT_BYTES_MAX
    return msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        max_buffer_size=size,
        max_array_len=array_len_max,
        max_map_len=0,
        max_ext_len=0,
        max_str_len=size,
        max_bin_len=size,
    )


def _unpack(
    content: bytes, shapes: dict[int, Shape], count_max: int, array_len_max: int
) -> list[object]:
    if not content:
        raise EnvelopeError("a record without an envelope")
    decoder = _decoder(array_len_max)
    envelopes: list[object] = []
    try:
        decoder.feed(content)
        for value in decoder:
            envelopes.append(_checked(value, shapes))
            if len(envelopes) > count_max:
                raise EnvelopeError(f"more than {count_max} envelopes in a record")
    except EnvelopeError:
        raise
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        # msgpack's own words may quote the peer's bytes: name the type only.
        raise EnvelopeError(f"not msgpack as allowed here ({type(error).__name__})") from None
    if decoder.tell() != len(content):
        raise EnvelopeError("an envelope is cut off at the end of its record")
    return envelopes


def _checked(value: object, shapes: dict[int, Shape]) -> object:
    if type(value) is not list or not 1 <= len(value) <= limits.ENVELOPE_FIELDS_MAX:
        raise EnvelopeError("an envelope is not an array of a legal length")
    op = value[0]
    if type(op) is not int or not 0 <= op <= 255:
        raise EnvelopeError("an operation is not a number from 0 to 255")
    shape = shapes.get(op)
    if shape is None:
        if op in _OP_NUMBERS:
            raise EnvelopeError(f"operation {op} travels the other way")
        _check_depth(value)
        return Unknown(op)
    make, checks = shape
    count = len(checks)
    fields = value[1 : count + 1]
    if len(fields) != count:
        raise EnvelopeError(f"{make.__name__} has fewer than {count} fields")
    for index in range(count):
        if not checks[index](fields[index]):
            raise EnvelopeError(f"{make.__name__}: bad {_field(make, index)}")
    if len(value) > count + 1:
        _check_depth(value[count + 1 :])
    if make is Page:
        fields[4] = [EntryMessage._make(row[1:13]) for row in fields[4]]
    return make(*fields)


_OP_NUMBERS: Final = frozenset(int(op) for op in Op)


def _field(make: type[tuple[object, ...]], index: int) -> str:
    return list(make.__annotations__)[index]


def _check_depth(value: list[object]) -> None:
    """Refuse fields of a later version that are nested too deep. Iterative: no recursion error."""
    level: list[object] = [value]
    for _ in range(limits.ENVELOPE_DEPTH_MAX):
        level = [inner for outer in level if type(outer) is list for inner in outer]
        if not level:
            return
    if any(type(inner) is list for inner in level):
        raise EnvelopeError(f"nested deeper than {limits.ENVELOPE_DEPTH_MAX}")
