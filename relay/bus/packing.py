"""Converts bus messages to bytes and back: their table, and their framing. No I/O.

A message is ``length u32`` and a msgpack array, checked as strictly as a client's envelope: a bug
in one worker must not spread.
"""

from __future__ import annotations

from typing import Final, cast

from relay import codec, limits
from relay.bus.messages import (
    CONNECTION_ID_CHARS_MAX,
    ITEMS_PER_MESSAGE,
    TAG_STEP,
    Acks,
    Announced,
    Answered,
    Ask,
    Attach,
    Batch,
    Claim,
    Claimed,
    Damaged,
    Event,
    Evict,
    Heads,
    Introduction,
    Members,
    Message,
    NotFollowed,
    NotHome,
    Op,
    Presence,
    Refused,
    Release,
    Revoke,
    Revoked,
    Submit,
    Subscribe,
    Subscribed,
    Tell,
    Unsubscribe,
    Who,
)
from relay.chat.accounts import links, requests
from relay.chat.entries import SUBMISSION_CHECKS, Extra, Submission
from relay.chat.fields import (
    BODY,
    DISPLAY,
    EPOCH,
    EPOCH_OR_NONE,
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
from relay.errors import EnvelopeError, RemoteProtocolError
from relay.framing import FrameSplitter

HEADER: Final = 4
MESSAGE_BYTES_MAX: Final = 262_144
DAMAGE_BYTES_MAX: Final = 4096
RUN_BYTES_MAX: Final = 65_536
"""Approximate size of the bodies of a run: as much as one record of a client."""

_u16 = codec.uint(65_535)
_u32 = codec.uint(limits.U32_MAX)
_content = codec.binary(1, limits.RECORD_CONTENT_BYTES_MAX)


def _listed(*fields: codec.Check) -> codec.Check:
    return codec.list_of(codec.tuple_of(*fields), ITEMS_PER_MESSAGE)


_key_or_none = codec.binary(0, links.KEY_BYTES)
_error_text = codec.text(limits.ERROR_TEXT_BYTES_MAX)
_names = _listed(NAME, DISPLAY, _u32)
_LOG_BYTES_MAX: Final = 1 + limits.NAME_CHARS_MAX


_new: Final = tuple.__new__


def _submit(tag: int, more: list[bytes], *fields: object) -> Submit:
    extra = fields[-1]
    if extra is not None:
        fields = (*fields[:-1], Extra._make(cast("list[object]", extra)))
    return _new(Submit, (tag, _new(Submission, fields), more))  # the most frequent message


def _is_submit(fields: list[object]) -> bool:
    """Check all fields of the SUBMIT of a plain message, or of a run of them, at once."""
    (
        tag, more, log, sender, key_id, producer, counter, kind, content_type, body, root, operator,
        identity, extra,
    ) = fields  # fmt: skip
    if type(more) is not list or len(more) > ITEMS_PER_MESSAGE:
        return False
    for following in more:
        if type(following) is not bytes or len(following) > limits.BODY_BYTES_MAX:
            return False
    return (
        type(tag) is int
        and 0 <= tag <= limits.U63_MAX
        and type(log) is str
        and 0 < len(log) <= _LOG_BYTES_MAX
        and log.isascii()
        and type(sender) is str
        and 0 < len(sender) <= limits.NAME_CHARS_MAX
        and sender.isascii()
        and type(key_id) is bytes
        and len(key_id) <= limits.KEY_ID_BYTES_MAX
        and type(producer) is bytes
        and limits.PRODUCER_BYTES_OF_0_1 <= len(producer) <= limits.PRODUCER_BYTES
        and type(counter) is int
        and 0 < counter <= limits.U63_MAX
        and type(kind) is int
        and 0 <= kind <= 255
        and type(content_type) is str
        and len(content_type) <= limits.CONTENT_TYPE_BYTES_MAX
        and content_type.isascii()
        and type(body) is bytes
        and len(body) <= limits.BODY_BYTES_MAX
        and type(root) is bytes
        and len(root) <= limits.ROOT_BYTES
        and (operator is True or operator is False)
        and type(identity) is bytes
        and len(identity) <= limits.EPOCH_BYTES
        and extra is None
    )


def _is_acks(fields: list[object]) -> bool:
    """Check all fields of ACKS at once."""
    acks = fields[0]
    if type(acks) is not list or len(acks) > ITEMS_PER_MESSAGE:
        return False
    for item in acks:
        if type(item) is not list or len(item) != 4:
            return False
        tag, epoch, seq, count = item
        if not (
            type(tag) is int
            and 0 <= tag <= limits.U63_MAX
            and type(epoch) is bytes
            and len(epoch) == limits.EPOCH_BYTES
            and type(seq) is int
            and 0 <= seq <= limits.U63_MAX
            and type(count) is int
            and 0 < count <= ITEMS_PER_MESSAGE
        ):
            return False
    return True


def _is_batch(fields: list[object]) -> bool:
    """Check all fields of a BATCH at once."""
    log, prev, epoch, last, count, content, control = fields
    return (
        type(log) is str
        and 0 < len(log) <= _LOG_BYTES_MAX
        and log.isascii()
        and type(prev) is int
        and 0 <= prev <= limits.U63_MAX
        and type(epoch) is bytes
        and len(epoch) == limits.EPOCH_BYTES
        and type(last) is int
        and 0 < last <= limits.U63_MAX
        and type(count) is int
        and 0 <= count <= limits.U32_MAX
        and type(content) is bytes
        and 0 < len(content) <= limits.RECORD_CONTENT_BYTES_MAX
        and (control is True or control is False)
    )


SHAPES: Final[dict[int, Shape]] = {
    Op.INTRODUCTION: Shape(Introduction, (_u32, U63)),
    Op.ANNOUNCED: Shape(Announced, (U63,)),
    Op.ATTACH: Shape(Attach, (_u32,)),
    Op.SUBSCRIBE: Shape(Subscribe, (LOG,)),
    Op.UNSUBSCRIBE: Shape(Unsubscribe, (LOG,)),
    Op.SUBMIT: Shape(
        Submit,
        (U63, codec.list_of(BODY, ITEMS_PER_MESSAGE), *SUBMISSION_CHECKS),
        _submit,
        names=("tag", "more", *Submission._fields),
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
    Op.HEADS: Shape(Heads, (_listed(LOG, EPOCH, U63),)),
    Op.ACKS: Shape(Acks, (_listed(U63, EPOCH, U63, codec.uint(ITEMS_PER_MESSAGE, 1)),)),
    Op.REFUSED: Shape(Refused, (U63, _u16, U63, _error_text)),
    Op.CLAIMED: Shape(
        Claimed,
        (U63, codec.boolean, codec.boolean, _u16, _error_text, _key_or_none, codec.boolean),
    ),
    Op.EVICT: Shape(Evict, (U63,)),
    Op.TELL: Shape(Tell, (U63, _content)),
    Op.MEMBERS: Shape(Members, (U63, U63, U63, _u32, _names)),
    Op.NOT_HOME: Shape(NotHome, (_u32,)),
    Op.NOT_FOLLOWED: Shape(NotFollowed, (LOG, _u16, _error_text)),
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
            EPOCH_OR_NONE,
        ),
    ),
    Op.REVOKED: Shape(Revoked, (U63,)),
    Op.DAMAGED: Shape(Damaged, (_u32, codec.text(DAMAGE_BYTES_MAX))),
    Op.ANSWERED: Shape(Answered, (U63, _u16, _error_text, codec.binary(0, limits.BODY_BYTES_MAX))),
    Op.REVOKE: Shape(
        Revoke,
        (U63, NAME, codec.list_of(KEY_ID, ITEMS_PER_MESSAGE), codec.boolean, codec.boolean),
    ),
}
QUICK: Final[dict[int, codec.Quick]] = {
    Op.SUBMIT: _is_submit,
    Op.ACKS: _is_acks,
    Op.BATCH: _is_batch,
}
_SUBMIT: Final = int(Op.SUBMIT)
_OP_OF: Final = {shape.type: int(op) for op, shape in SHAPES.items()}
_SCHEMA: Final = codec.Schema(
    SHAPES, count_max=1, array_max=ITEMS_PER_MESSAGE, bytes_max=STATE_BYTES_MAX, quick=QUICK
)

assert limits.ROSTER_NAMES_MAX <= ITEMS_PER_MESSAGE
assert limits.RECORD_CONTENT_BYTES_MAX <= STATE_BYTES_MAX <= MESSAGE_BYTES_MAX - 1024
assert ITEMS_PER_MESSAGE * (limits.NAME_CHARS_MAX + 4 * limits.DISPLAY_NAME_CHARS_MAX + 16) < (
    MESSAGE_BYTES_MAX
)


def pack(message: Message) -> bytes:
    """Return a message's bytes, preceded by its length."""
    if type(message) is Submit:
        return _pack_run(*message)
    body = codec.pack((_OP_OF[type(message)], *message))
    return len(body).to_bytes(HEADER, "big") + body


def pack_submits(tag: int, sends: list[Submission]) -> list[bytes]:
    """Return one sender's messages to one log as the smallest number of SUBMITs.

    Args:
        tag: of the first message; those of the others are ``TAG_STEP`` apart.
        sends: at least one.
    """
    first, size = sends[0], 0
    more: list[bytes] = []
    packed: list[bytes] = []
    for index in range(1, len(sends)):
        one = sends[index]
        if (
            one.counter == first.counter + len(more) + 1
            and one.kind == first.kind
            and one.content_type == first.content_type
            and one.extra is None
            and first.extra is None
            and one.root == first.root
            and one.operator == first.operator
            and one.identity == first.identity
            and size + len(one.body) <= RUN_BYTES_MAX
            and len(more) < ITEMS_PER_MESSAGE - 1
        ):
            more.append(one.body)
            size += len(one.body)
        else:
            packed.append(_pack_run(tag, first, more))
            tag += TAG_STEP * (len(more) + 1)
            first, more, size = one, [], 0
    packed.append(_pack_run(tag, first, more))
    return packed


def _pack_run(tag: int, submission: Submission, more: list[bytes]) -> bytes:
    body = codec.pack((_SUBMIT, tag, more, *submission))
    return len(body).to_bytes(HEADER, "big") + body


def unpack(body: bytes) -> Message:
    """Return the message encoded by a body.

    Raises:
        EnvelopeError: not a legal message.
    """
    messages, more = _SCHEMA.unpack_first(body)
    if more:
        raise EnvelopeError("more than one message")
    message: Message = messages[0]
    return message


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
        """Return the messages that are complete now.

        Raises:
            RemoteProtocolError: an illegal length or message; the link is no longer usable.
        """
        self.feed_bytes(data)
        messages: list[Message] = []
        while self.pending and (body := self.next_frame(skip=HEADER)) is not None:
            messages.append(unpack(body))
        return messages
