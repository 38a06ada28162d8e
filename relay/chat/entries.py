"""The shared vocabulary: what a log holds, what is offered to it, and where a reader stands.

docs/invariants.md, "Terms", fixes the fields. A log has an epoch (8 random bytes, made with its
first append) and gives each entry a sequence number, strictly increasing from 1. ``prev`` is the
number of the entry before it in the log: receivers check ``prev``, never ``seq - 1``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, NamedTuple, TypeAlias

from relay import codec, limits
from relay.chat.fields import (
    EPOCH_OR_NONE,
    TO,
    U63,
    AboutEpoch,
    AboutSeq,
    Body,
    ContentType,
    Counter,
    Epoch,
    Flag,
    Handle,
    KeyId,
    KindNumber,
    LogName,
    Prev,
    Producer,
    Recipient,
    Root,
    Seq,
    TimeMs,
    checks_of,
)

NO_EPOCH: Final = bytes(limits.EPOCH_BYTES)
"""The epoch of a log that does not exist yet; in a cursor: "whatever the epoch, after seq"."""


class Kind(IntEnum):
    """What an entry is."""

    MESSAGE = 0
    """Its ``about``, if it has one, is what it replies to."""
    EDIT = 1
    """The body is the new one of the message that it is about."""
    REDACTION = 2
    """What it is about is erased, its edits too. The body is a reason; may be empty."""
    SYSTEM = 3
    """Written by the server itself: what happened to an account, and the like."""
    REACTION = 4
    """The body is a short text, such as an emoji, about a message."""
    MARK = 5
    """In one's own inbox: what one has read. The body is the name of a log, or of the inbox of whom
    one talks with; ``about`` is the place up to which it is read."""
    ERASED = 6
    """What was a message, an edit or a reaction; ``about`` is the redaction that erased it."""


UNDECIDED: Final = 2**32
"""No ErrorCode: nobody has been asked."""


class Entry(NamedTuple):
    """A committed message: what every reader of the log sees.

    This is the one list of an entry's fields, in the order in which store, bus and wire pack them,
    each with its check. The others follow from it.
    """

    log: LogName
    epoch: Epoch
    seq: Seq
    prev: Prev
    time_ms: TimeMs
    sender: Handle
    key_id: KeyId
    producer: Producer
    counter: Counter
    kind: KindNumber
    content_type: ContentType
    body: Body
    to: Recipient = ""
    """Of a direct message: whose inbox it is for. Two logs have it: the sender's and this one's."""
    about_epoch: AboutEpoch = b""
    about_seq: AboutSeq = 0
    """The place in this log of the entry that this one is about (see ``Kind``); 0: of none."""

    @property
    def content(self) -> Content:
        """What this has, and a submission must have to be a repeat of it."""
        return self[-CONTENT_FIELDS:]


class Extra(NamedTuple):
    """What few submissions have: direct messages, and entries about other entries."""

    to: str = ""
    """See ``Entry``."""
    about_epoch: bytes = b""
    about_seq: int = 0
    verdict: int = UNDECIDED
    """Of a direct message: what the recipient's home answers: 0, or the ErrorCode that refuses
    it, if it is new. In a room ``relations.FORMER``: what it is about is not the sender's own."""
    origin_epoch: bytes = b""
    origin_seq: int = 0
    """Of the copy for the recipient: its place in the sender's inbox, which is its identity.
    0: it is no copy."""
    origin_after: int = 0
    """Likewise of the copy that must be there before; 0: none need be. Of a mark: the seq of one
    that it replaces though that is later, for its place is in no log any more."""
    about_in: str = ""
    """Of a copy: in whose inbox ``about`` is a place; empty: in the one that it is for."""


EXTRA: Final = codec.tuple_of(TO, EPOCH_OR_NONE, U63, U63, EPOCH_OR_NONE, U63, U63, TO)


class Submission(NamedTuple):
    """A message offered to a log by its sender: an entry without what the log gives it.

    Behind the fields of the entry: what its rights are judged by.
    """

    log: LogName
    sender: Handle
    key_id: KeyId
    producer: Producer
    counter: Counter
    kind: KindNumber
    content_type: ContentType
    body: Body
    root: Root = b""
    """Of the sender's account, for its rights; empty: a guest's, or they do not matter."""
    operator: Flag = False
    """The sender's account is an operator's."""
    extra: Annotated[Extra | None, codec.nil_or(EXTRA)] = None

    @property
    def content(self) -> Content:
        """What two submissions under one id must have in common."""
        own = self.kind, self.content_type, self.body
        return (*own, *NO_EXTRA) if self.extra is None else (*own, *self.extra[:3])


def submission(*fields: object) -> Submission:
    """Return a submission of all its fields, in order, by the shortest way there is."""
    return tuple.__new__(Submission, fields)


Content: TypeAlias = tuple[int, str, bytes, str, bytes, int]
"""(kind, content type, body, to, about): what a message has, whoever sends it and where. An entry
ends with it."""

GIVEN_BY_LOG: Final = ("epoch", "seq", "prev", "time_ms")
"""The fields that a submission gets by being stored; they follow the log's name."""
FIELDS: Final = len(Entry._fields)
CONTENT_FIELDS: Final = 6
NO_EXTRA: Final = ("", b"", 0)
"""The last fields of an entry, where they are not packed."""
ENTRY_CHECKS: Final = checks_of(Entry)[: -len(NO_EXTRA)]
EXTRA_CHECKS: Final = checks_of(Entry)[-len(NO_EXTRA) :]
SUBMISSION_CHECKS: Final = checks_of(Submission)

assert Entry._fields[: -len(NO_EXTRA)] == ("log", *GIVEN_BY_LOG, *Submission._fields[1:-3])
assert Entry._fields[-len(NO_EXTRA) :] == Extra._fields[: len(NO_EXTRA)]
assert Entry._fields[-CONTENT_FIELDS:-3] == ("kind", "content_type", "body")


def is_copy(submission: Submission) -> bool:
    """Tell whether this is the recipient's copy of a message that was accepted before."""
    return submission.extra is not None and submission.extra.origin_seq > 0


def committed(
    submission: Submission, epoch: bytes, seq: int, prev: int, time_ms: int
) -> tuple[object, ...]:
    """Return the fields of the entry that a submission becomes, ready to be packed."""
    log, sender, key_id, producer, counter, kind, content_type, body, _, _, extra = submission
    if extra is not None and (extra.to or extra.about_seq):
        return (
            log, epoch, seq, prev, time_ms, sender, key_id, producer, counter, kind, content_type,
            body, extra.to, extra.about_epoch, extra.about_seq,
        )  # fmt: skip
    return (
        log, epoch, seq, prev, time_ms, sender, key_id, producer, counter, kind, content_type, body,
    )  # fmt: skip


def unpacked(fields: list[object]) -> Entry:
    """Return the entry of the fields that were packed: the last ones may be missing.

    They are added to the list. Raises TypeError: it has too few, or too many.
    """
    missing = FIELDS - len(fields)
    if missing:
        fields += NO_EXTRA[-missing:]
        if len(fields) != FIELDS:
            raise TypeError(f"an entry has {FIELDS} fields")
    return tuple.__new__(Entry, fields)


def packable(entry: Entry) -> tuple[object, ...]:
    """Return the fields of an entry that are packed."""
    return entry if entry[-len(NO_EXTRA) :] != NO_EXTRA else entry[: -len(NO_EXTRA)]


class Cursor(NamedTuple):
    """The last entry of a log that a reader has: ``(epoch, seq)``. (NO_EPOCH, 0): nothing yet."""

    epoch: bytes
    seq: int


class Head(NamedTuple):
    """The last committed entry of a log. (NO_EPOCH, 0): the log does not exist yet."""

    epoch: bytes
    seq: int


class GapReason(IntEnum):
    """Why a reader is told of a gap instead of getting the entries."""

    EPOCH = 1
    """Stored state was lost or restored: the old epoch ended before the reader's cursor."""
    AHEAD = 2
    """The cursor is beyond the head of its epoch: it does not come from this log."""
    RETENTION = 3
    """The log no longer holds these entries."""


class GapInfo(NamedTuple):
    """Entries that a reader will not get: after ``start`` up to and with ``end``."""

    start: Cursor
    end: Cursor
    reason: GapReason
