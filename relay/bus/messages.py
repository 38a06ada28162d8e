"""What workers send each other: messages, their table, and their framing. No I/O here.

Two roles meet on a link. The *home* of a log orders, commits and publishes it; a *member* worker
has clients that follow it or send to it. Every worker is both. A message is ``length u32`` and a
msgpack array, checked as strictly as a client's envelope: a bug in one worker must not spread.

``tag`` is the member's own number for what it asks; the home gives it back. Order on a link, within
one priority, is the order of sending.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias, cast

from relay import codec, limits
from relay.bus.claim import Claim
from relay.chat.accounts import links, requests
from relay.chat.entries import SUBMISSION_CHECKS, Extra, Submission, submission
from relay.chat.fields import (
    DISPLAY,
    EPOCH,
    INSTANCE_SECRET,
    KEY_ID,
    LOG,
    NAME,
    POSITIVE,
    ROOT,
    U63,
)
from relay.chat.rooms.state import PACKED_BYTES_MAX as STATE_BYTES_MAX
from relay.codec import Shape
from relay.errors import RemoteProtocolError
from relay.framing import FrameSplitter

__all__ = ["Claim"]  # made elsewhere, part of this
HEADER: Final = 4
MESSAGE_BYTES_MAX: Final = 262_144
ITEMS_PER_MESSAGE: Final = 512
"""Entries of a list in one message; longer lists become several messages."""

CONNECTION_ID_CHARS_MAX: Final = 40


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
    ASK = 24
    REVOKED = 25

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
    ANSWERED = 42
    REVOKE = 43
    ERASED = 44
    TELL = 45


class Introduction(NamedTuple):
    """The first message of the worker that dialled: which one it is."""

    worker: int
    generation: int


class Announced(NamedTuple):
    """All that this worker held of the other's partitions when the link came up has been sent."""

    generation: int


class Attach(NamedTuple):
    """Member: forget what this worker has sent about a partition; all of it follows anew.

    A home takes nothing of a partition from a worker before this, nor after NOT_HOME until the
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
    """Member: append this. Answer: one item of ACKS, or REFUSED, or NOT_HOME.

    On the bus the fields of the submission follow the tag.
    """

    tag: int
    submission: Submission


class Presence(NamedTuple):
    """Member: of a log, how many connections of each name are here now. 0: none any more."""

    log: str
    changes: list[list[str | int]]
    again: bool = False
    """Who was here before this home, or this link, was."""


class Who(NamedTuple):
    """Member: who follows this log? Answer: MEMBERS."""

    tag: int
    log: str


class Ask(NamedTuple):
    """Member: a request about an account, an invitation or a room. Answer: ANSWERED.

    It may come twice, to the next home: all of them are idempotent.
    """

    tag: int
    log: str
    by: str
    """The handle that asks; may be empty before a login."""
    key_id: bytes
    """Of the device that asks."""
    content: bytes
    """Packed: ``chat.accounts.requests``, ``chat.rooms.requests``."""
    root: bytes = b""
    """Of the account that asks."""
    operator: bool = False
    """It is an operator's."""
    subject: bytes = b""
    """The root of the account that the request names, if it does."""
    connection: str = ""
    """The id of the connection that asks, for the log; empty: none does."""


class Revoked(NamedTuple):
    """Member: what REVOKE with this tag says is done here."""

    tag: int


class Release(NamedTuple):
    """Member: the session of that tag has ended."""

    tag: int
    name: str


class Subscribed(NamedTuple):
    """Home: the log's head; every later entry follows as BATCH."""

    log: str
    epoch: bytes
    seq: int
    state: bytes = b""
    """What control entries have made of the log, as of its head: ``chat.rooms.state``."""


class Batch(NamedTuple):
    """Home: ``count`` committed entries after ``prev``, packed: the bytes that members get.

    A control entry is a batch of its own: who may read may be others behind it.
    """

    log: str
    prev: int
    epoch: bytes
    last: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    content: bytes
    control: bool = False


class Event(NamedTuple):
    """Home: an envelope for a log's live members that is no entry. Best effort."""

    log: str
    content: bytes


class Erased(NamedTuple):
    """Home: entries of a log were erased: what was read of it before is to be read anew."""

    log: str


class Heads(NamedTuple):
    """Home: where subscribed logs end, [log, epoch, seq] each (invariant "No silent tail")."""

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
    """Home: the answer to CLAIM. ``replaced``: refused, for the same client instance has a later
    connection already.
    """

    tag: int
    granted: bool
    replaced: bool
    code: int
    """An ErrorCode: why it is refused; 0 if it is granted or replaced."""
    text: str
    root: bytes
    """Of the account; empty for a guest, and when it is refused."""
    operator: bool
    """The account is an operator's."""


class Evict(NamedTuple):
    """Home: end the session of that tag: the same client instance came back elsewhere."""

    tag: int


class Tell(NamedTuple):
    """Home of an account: an envelope for the session of that tag. Best effort."""

    tag: int
    content: bytes


class Answered(NamedTuple):
    """Home: the answer to ASK. ``code`` is an ErrorCode, or 0: it is done."""

    tag: int
    code: int
    text: str
    content: bytes


class Revoke(NamedTuple):
    """Home of an account, to every worker: these devices are none any more. Answer: REVOKED.

    A worker ends their sessions and drops what they have sent; as a home it stores nothing more of
    them. ``lifted``: what was said before of them does not hold any more.
    """

    tag: int
    handle: str
    keys: list[bytes]
    """Key ids, one at least."""
    by_operator: bool
    lifted: bool


class Members(NamedTuple):
    """Home: the answer to WHO."""

    tag: int
    incarnation: int
    version: int
    total: int
    names: list[list[str | int]]


class NotHome(NamedTuple):
    """Home: this partition is not mine (yet, or any more). Look again, and attach again."""

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
    | Ask
    | Revoked
    | Answered
    | Revoke
    | Erased
    | Tell
)

_u16 = codec.uint(65_535)
_u32 = codec.uint(limits.U32_MAX)
_content = codec.binary(1, limits.RECORD_CONTENT_BYTES_MAX)


def _listed(*fields: codec.Check) -> codec.Check:
    return codec.list_of(codec.tuple_of(*fields), ITEMS_PER_MESSAGE)


_key_or_none = codec.binary(0, links.KEY_BYTES)
_error_text = codec.text(limits.ERROR_TEXT_BYTES_MAX)
_names = _listed(NAME, DISPLAY, _u32)


_new: Final = tuple.__new__


def _submit(tag: int, *fields: object) -> Submit:
    extra = fields[-1]
    if extra is not None:
        fields = (*fields[:-1], Extra._make(cast("list[object]", extra)))
    return _new(Submit, (tag, submission(*fields)))  # most of what is received


SHAPES: Final[dict[int, Shape]] = {
    Op.INTRODUCTION: Shape(Introduction, (_u32, U63)),
    Op.ANNOUNCED: Shape(Announced, (U63,)),
    Op.ATTACH: Shape(Attach, (_u32,)),
    Op.SUBSCRIBE: Shape(Subscribe, (LOG,)),
    Op.UNSUBSCRIBE: Shape(Unsubscribe, (LOG,)),
    Op.SUBMIT: Shape(
        Submit, (U63, *SUBMISSION_CHECKS), _submit, names=("tag", *Submission._fields)
    ),
    Op.PRESENCE: Shape(Presence, (LOG, _names, codec.boolean)),
    Op.WHO: Shape(Who, (U63, LOG)),
    Op.CLAIM: Shape(
        Claim,
        (U63, NAME, INSTANCE_SECRET, codec.boolean, U63, _key_or_none),
    ),
    Op.RELEASE: Shape(Release, (U63, NAME)),
    Op.SUBSCRIBED: Shape(Subscribed, (LOG, EPOCH, U63, codec.binary(0, STATE_BYTES_MAX))),
    Op.BATCH: Shape(Batch, (LOG, U63, EPOCH, POSITIVE, _u32, _content, codec.boolean)),
    Op.EVENT: Shape(Event, (LOG, _content)),
    Op.ERASED: Shape(Erased, (LOG,)),
    Op.HEADS: Shape(Heads, (_listed(LOG, EPOCH, U63),)),
    Op.ACKS: Shape(Acks, (_listed(U63, EPOCH, U63),)),
    Op.REFUSED: Shape(Refused, (U63, _u16, U63, _error_text)),
    Op.CLAIMED: Shape(
        Claimed,
        (U63, codec.boolean, codec.boolean, _u16, _error_text, _key_or_none, codec.boolean),
    ),
    Op.EVICT: Shape(Evict, (U63,)),
    Op.TELL: Shape(Tell, (U63, _content)),
    Op.MEMBERS: Shape(Members, (U63, U63, U63, _u32, _names)),
    Op.NOT_HOME: Shape(NotHome, (_u32,)),
    Op.ASK: Shape(
        Ask,
        (
            U63,
            LOG,
            codec.text(limits.NAME_CHARS_MAX),
            KEY_ID,
            codec.binary(1, requests.REQUEST_BYTES_MAX),
            ROOT,
            codec.boolean,
            ROOT,
            codec.text(CONNECTION_ID_CHARS_MAX),
        ),
    ),
    Op.REVOKED: Shape(Revoked, (U63,)),
    Op.ANSWERED: Shape(Answered, (U63, _u16, _error_text, codec.binary(0, limits.BODY_BYTES_MAX))),
    Op.REVOKE: Shape(
        Revoke,
        (U63, NAME, codec.list_of(KEY_ID, ITEMS_PER_MESSAGE), codec.boolean, codec.boolean),
    ),
}
_SUBMIT: Final = int(Op.SUBMIT)
_OP_OF: Final = {shape.type: int(op) for op, shape in SHAPES.items()}
_SCHEMA: Final = codec.Schema(
    SHAPES, count_max=1, array_max=ITEMS_PER_MESSAGE, bytes_max=STATE_BYTES_MAX
)

assert limits.ROSTER_NAMES_MAX <= ITEMS_PER_MESSAGE
assert limits.RECORD_CONTENT_BYTES_MAX <= STATE_BYTES_MAX <= MESSAGE_BYTES_MAX - 1024
assert ITEMS_PER_MESSAGE * (limits.NAME_CHARS_MAX + 4 * limits.DISPLAY_NAME_CHARS_MAX + 16) < (
    MESSAGE_BYTES_MAX
)


def pack(message: Message) -> bytes:
    """Return a message's bytes, its length in front."""
    if type(message) is Submit:
        return pack_submit(*message)
    body = codec.pack((_OP_OF[type(message)], *message))
    return len(body).to_bytes(HEADER, "big") + body


def pack_submit(tag: int, submission: Submission) -> bytes:
    """Return ``pack(Submit(tag, submission))``. Apart, for it is most of what is sent."""
    body = codec.pack((_SUBMIT, tag, *submission))
    return len(body).to_bytes(HEADER, "big") + body


def unpack(body: bytes) -> Message:
    """Return the message of one body.

    Raises:
        EnvelopeError: not a legal message.
    """
    return cast("Message", _SCHEMA.unpack(body)[0])


class MessageReader(FrameSplitter):
    """Splits a stream of bytes into messages."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(HEADER)

    def frame_bytes(self, header: bytes | bytearray) -> int:
        """See ``FrameSplitter``."""
        length = int.from_bytes(header, "big")
        if not 1 <= length <= MESSAGE_BYTES_MAX:
            raise RemoteProtocolError(f"a bus message of {length} bytes")
        return HEADER + length

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are whole now.

        Raises:
            RemoteProtocolError: an illegal length or message; the link is of no use any more.
        """
        self.feed_bytes(data)
        messages: list[Message] = []
        while (body := self.next_frame(skip=HEADER)) is not None:
            messages.append(unpack(body))
        return messages
