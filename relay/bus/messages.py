"""What workers say to each other: messages, their table, and their framing. No I/O here.

Two roles meet on a link. The *home* of a log orders, commits and publishes it; a *member* worker
has clients that follow it or send to it. Every worker is both. A message is ``length u32`` and a
msgpack array, checked as strictly as a client's envelope: a bug in one worker must not spread.

``tag`` is the member's own number for what it asks; the home gives it back. Order on a link, within
one priority, is the order of sending.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, Self, TypeAlias, cast

from relay import codec, limits
from relay.chat.entries import Submission
from relay.codec import Shape
from relay.errors import RemoteProtocolError
from relay.secret import Secret

HEADER: Final = 4
MESSAGE_BYTES_MAX: Final = 262_144
ITEMS_PER_MESSAGE: Final = 512
"""Entries of a list in one message; longer lists become several messages."""


class Op(IntEnum):
    """1-15 either way; 16-31 from a member to a home; 32-47 from a home to a member."""

    INTRODUCTION = 1
    ANNOUNCED = 2

    SUBSCRIBE = 16
    UNSUBSCRIBE = 17
    SUBMIT = 18
    PRESENCE = 19
    WHO = 20
    CLAIM = 21
    RELEASE = 22
    ATTACH = 23

    SUBSCRIBED = 32
    BATCH = 33
    EVENT = 34
    HEADS = 35
    ACKS = 36
    REFUSED = 37
    CLAIMED = 38
    EVICT = 39
    MEMBERS = 40
    NOT_HOME = 41


class Introduction(NamedTuple):
    """The first message of the worker that dialled: which one it is."""

    worker: int
    generation: int


class Announced(NamedTuple):
    """All that this worker held of the other's partitions when the link came up has been said."""

    generation: int


class Attach(NamedTuple):
    """Member: forget what I said of this partition; I say it all anew behind this.

    A home hears nothing of a partition from a worker before this, nor after NOT_HOME until the
    next one: what was under way meanwhile would come out of order.
    """

    partition: int


class Subscribe(NamedTuple):
    """Member: this worker has members of a log now. Answer: SUBSCRIBED, in the same home turn."""

    log: str


class Unsubscribe(NamedTuple):
    """Member: nobody here follows the log any more."""

    log: str


class Submit(NamedTuple):
    """Member: append this. Answer: one item of ACKS, or REFUSED, or NOT_HOME."""

    tag: int
    log: str
    producer: bytes
    counter: int
    sender: str
    key_id: bytes
    kind: int
    content_type: str
    body: bytes


class Presence(NamedTuple):
    """Member: of a log, how many connections of each name are here now. 0: none any more."""

    log: str
    changes: list[list[str | int]]


class Who(NamedTuple):
    """Member: who follows this log? Answer: MEMBERS."""

    tag: int
    log: str


class _Claim(NamedTuple):
    tag: int
    name: str
    secret: bytes
    held: bool
    since_us: int


class Claim(_Claim):
    """Member: a session wants a name (``held``: it has had it since before). Answer: CLAIMED.

    ``since_us``: when its connection was accepted, by the clock that all workers share. Of two
    sessions of one instance the later connection is the live one, whichever claim comes first.
    """

    __slots__ = ()

    def __new__(cls, tag: int, name: str, secret: bytes, held: bool, since_us: int) -> Self:
        """Make one; the secret shows itself in no repr."""
        return super().__new__(cls, tag, name, Secret(secret), held, since_us)


class Release(NamedTuple):
    """Member: the session of that tag has ended."""

    tag: int
    name: str


class Subscribed(NamedTuple):
    """Home: the log's head; every later entry follows as BATCH."""

    log: str
    epoch: bytes
    seq: int


class Batch(NamedTuple):
    """Home: ``count`` committed entries after ``prev``, packed: the bytes that members get."""

    log: str
    prev: int
    epoch: bytes
    last: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    content: bytes


class Event(NamedTuple):
    """Home: an envelope for a log's live members that is no entry. Best effort."""

    log: str
    content: bytes


class Heads(NamedTuple):
    """Home: where subscribed logs end, [log, epoch, seq] each (rule 7: no silent tail)."""

    heads: list[list[str | bytes | int]]


class Acks(NamedTuple):
    """Home: committed, [tag, epoch, seq] each."""

    acks: list[list[int | bytes]]


class Refused(NamedTuple):
    """Home: not stored. ``code`` is an ErrorCode of the protocol."""

    tag: int
    code: int
    arg: int
    text: str


class Claimed(NamedTuple):
    """Home: the answer to CLAIM."""

    tag: int
    granted: bool


class Evict(NamedTuple):
    """Home: the same client instance came back elsewhere; end the session of that tag."""

    tag: int


class Members(NamedTuple):
    """Home: the answer to WHO."""

    tag: int
    incarnation: int
    version: int
    total: int
    names: list[list[str | int]]


class NotHome(NamedTuple):
    """Home: this partition is not mine (yet, or any more). Look again, and say it all again."""

    partition: int


Message: TypeAlias = (
    Introduction
    | Announced
    | Attach
    | Subscribe
    | Unsubscribe
    | Submit
    | Presence
    | Who
    | Claim
    | Release
    | Subscribed
    | Batch
    | Event
    | Heads
    | Acks
    | Refused
    | Claimed
    | Evict
    | Members
    | NotHome
)

_u8 = codec.uint(255)
_u16 = codec.uint(65_535)
_u32 = codec.uint(limits.U32_MAX)
_u63 = codec.uint(limits.U63_MAX)
_counter = codec.uint(limits.U63_MAX, 1)
_log = codec.text(1 + limits.NAME_CHARS_MAX, 1)
_name = codec.text(limits.NAME_CHARS_MAX, 1)
_display = codec.text(4 * limits.DISPLAY_NAME_CHARS_MAX)
_epoch = codec.binary(limits.EPOCH_BYTES, limits.EPOCH_BYTES)
_content = codec.binary(1, limits.RECORD_CONTENT_BYTES_MAX)


def _listed(*fields: codec.Check) -> codec.Check:
    return codec.list_of(codec.tuple_of(*fields), ITEMS_PER_MESSAGE)


SHAPES: Final[dict[int, Shape]] = {
    Op.INTRODUCTION: Shape(Introduction, (_u32, _u63)),
    Op.ANNOUNCED: Shape(Announced, (_u63,)),
    Op.ATTACH: Shape(Attach, (_u32,)),
    Op.SUBSCRIBE: Shape(Subscribe, (_log,)),
    Op.UNSUBSCRIBE: Shape(Unsubscribe, (_log,)),
    Op.SUBMIT: Shape(
        Submit,
        (
            _u63,
            _log,
            codec.binary(limits.PRODUCER_BYTES, limits.PRODUCER_BYTES),
            _counter,
            _name,
            codec.binary(0, limits.KEY_ID_BYTES_MAX),
            _u8,
            codec.text(limits.CONTENT_TYPE_BYTES_MAX),
            codec.binary(0, limits.BODY_BYTES_MAX),
        ),
    ),
    Op.PRESENCE: Shape(Presence, (_log, _listed(_name, _display, _u32))),
    Op.WHO: Shape(Who, (_u63, _log)),
    Op.CLAIM: Shape(
        Claim,
        (_u63, _name, codec.binary(limits.SECRET_BYTES, limits.SECRET_BYTES), codec.boolean, _u63),
    ),
    Op.RELEASE: Shape(Release, (_u63, _name)),
    Op.SUBSCRIBED: Shape(Subscribed, (_log, _epoch, _u63)),
    Op.BATCH: Shape(Batch, (_log, _u63, _epoch, _counter, _u32, _content)),
    Op.EVENT: Shape(Event, (_log, _content)),
    Op.HEADS: Shape(Heads, (_listed(_log, _epoch, _u63),)),
    Op.ACKS: Shape(Acks, (_listed(_u63, _epoch, _u63),)),
    Op.REFUSED: Shape(Refused, (_u63, _u16, _u63, codec.text(limits.ERROR_TEXT_BYTES_MAX))),
    Op.CLAIMED: Shape(Claimed, (_u63, codec.boolean)),
    Op.EVICT: Shape(Evict, (_u63,)),
    Op.MEMBERS: Shape(Members, (_u63, _u63, _u63, _u32, _listed(_name, _display, _u32))),
    Op.NOT_HOME: Shape(NotHome, (_u32,)),
}
_OP_OF: Final = {shape.type: int(op) for op, shape in SHAPES.items()}
_SCHEMA: Final = codec.Schema(
    SHAPES, count_max=1, array_max=ITEMS_PER_MESSAGE, bytes_max=limits.RECORD_CONTENT_BYTES_MAX
)

assert limits.ROSTER_NAMES_MAX <= ITEMS_PER_MESSAGE
assert ITEMS_PER_MESSAGE * (limits.NAME_CHARS_MAX + 4 * limits.DISPLAY_NAME_CHARS_MAX + 16) < (
    MESSAGE_BYTES_MAX
)


def pack(message: Message) -> bytes:
    """Return a message's bytes, its length in front."""
    body = codec.pack((_OP_OF[type(message)], *message))
    return len(body).to_bytes(HEADER, "big") + body


def pack_submit(tag: int, submission: Submission) -> bytes:
    """Return a SUBMIT's bytes, as ``pack(Submit(tag, *submission))`` would."""
    body = codec.pack((18, tag, *submission))
    return len(body).to_bytes(HEADER, "big") + body


def unpack(body: bytes) -> Message:
    """Return the message of one body.

    Raises:
        EnvelopeError: not a legal message.
    """
    return cast("Message", _SCHEMA.unpack(body)[0])


class MessageReader:
    """Splits a stream of bytes into messages: an offset loop over one buffer."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are whole now.

        Raises:
            RemoteProtocolError: an illegal length or message; the link is of no use any more.
        """
        buffer = self._buffer + data if self._buffer else data
        messages: list[Message] = []
        at, size = 0, len(buffer)
        while size - at >= HEADER:
            length = int.from_bytes(buffer[at : at + HEADER], "big")
            if not 1 <= length <= MESSAGE_BYTES_MAX:
                raise RemoteProtocolError(f"a bus message of {length} bytes")
            end = at + HEADER + length
            if end > size:
                break
            messages.append(unpack(buffer[at + HEADER : end]))
            at = end
        self._buffer = buffer[at:]
        return messages
