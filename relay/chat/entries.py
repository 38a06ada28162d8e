"""The shared vocabulary: entries of a log, submissions to it, and positions of readers.

docs/invariants.md, "Terms", defines the fields. A log has an epoch (8 random bytes, created with
its first append) and gives each entry a sequence number, strictly increasing from 1. ``prev`` is
the number of the previous entry in the log: receivers check ``prev``, never ``seq - 1``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, NamedTuple, TypeAlias

from relay import codec, limits
from relay.chat.fields import (
    EPOCH_OR_NONE,
    TO,
    U63,
    AboutSeq,
    Body,
    ContentType,
    Counter,
    Epoch,
    EpochOrNone,
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
    """The kind of an entry."""

    MESSAGE = 0
    """Its ``about``, if present, is the message that it replies to."""
    EDIT = 1
    """The body replaces that of the target message."""
    REDACTION = 2
    """The target is erased, including its edits. The body is a reason; may be empty."""
    SYSTEM = 3
    """Written by the server itself: an account was changed, and the like."""
    REACTION = 4
    """The body is a short text, such as an emoji, about a message."""
    MARK = 5
    """In the user's own inbox: a read mark. The body is the name of a log, or of the inbox of the
    other user; ``about`` is the position up to which it was read."""
    ERASED = 6
    """A former message, edit or reaction; ``about`` is the redaction that erased it."""


UNDECIDED: Final = 2**32
"""Not an ErrorCode: no home has been asked."""


class Entry(NamedTuple):
    """A committed message, as every reader of the log sees it.

    This is the list of an entry's fields, in the order in which store, bus and wire pack them, each
    with its check. Other lists are derived from it, except those of the quick checks on the data
    path (``wire.packing``, ``bus.packing``): tests/test_quick_checks.py compares them.
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
    """Of a direct message: the recipient. Two logs contain it: the sender's and this one's."""
    about_epoch: EpochOrNone = b""
    about_seq: AboutSeq = 0
    """The position in this log of the entry that this one is about (see ``Kind``); 0: none."""

    @property
    def content(self) -> Content:
        """The content, which a submission must share to be a repeat."""
        return self[-CONTENT_FIELDS:]


class Extra(NamedTuple):
    """Fields of few submissions: direct messages, and entries about other entries."""

    to: str = ""
    """See ``Entry``."""
    about_epoch: bytes = b""
    about_seq: int = 0
    verdict: int = UNDECIDED
    """Of a direct message: the answer of the recipient's home: 0, or the ErrorCode that refuses it,
    if it is new. In a room ``relations.FORMER``: the target does not belong to the sender."""
    origin_epoch: bytes = b""
    origin_seq: int = 0
    """Of the copy for the recipient: its position in the sender's inbox, which identifies it. 0:
    not a copy."""
    origin_after: int = 0
    """Of a copy: the position of the copy that must be stored before it; 0: none. Of a mark: the
    seq of a mark to replace although it is later, because its position no longer exists in any log.
    """
    about_in: str = ""
    """Of a copy: the inbox in which ``about`` is a position; empty: the recipient's."""


EXTRA: Final = codec.tuple_of(TO, EPOCH_OR_NONE, U63, U63, EPOCH_OR_NONE, U63, U63, TO)


class Submission(NamedTuple):
    """A message offered to a log by its sender: an entry without the fields that the log adds.

    After the fields of the entry come those needed to check rights.
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
    """Of the sender's account, for its rights; empty: a guest, or rights do not matter."""
    operator: Flag = False
    """True if the sender's account is an operator."""
    identity: EpochOrNone = b""
    """The room that is meant, if several have had its name one after another: the epoch of its
    *created* entry, ``NO_EPOCH`` for a room without one. Empty: whichever has the name. A message
    for another room is not stored."""
    extra: Annotated[Extra | None, codec.nil_or(EXTRA)] = None

    @property
    def content(self) -> Content:
        """The content that two submissions under one id must have in common."""
        own = self.kind, self.content_type, self.body
        return (*own, *NO_EXTRA) if self.extra is None else (*own, *self.extra[:3])


def submission(*fields: object) -> Submission:
    """Create a submission from all its fields, in order, in the fastest way."""
    return tuple.__new__(Submission, fields)


Content: TypeAlias = tuple[int, str, bytes, str, bytes, int]
"""(kind, content type, body, to, about): the content of a message, independent of sender and log.
The last fields of an entry."""

GIVEN_BY_LOG: Final = ("epoch", "seq", "prev", "time_ms")
"""The fields that are added when a submission is stored; they follow the log's name."""
FIELDS: Final = len(Entry._fields)
CONTENT_FIELDS: Final = 6
NO_EXTRA: Final = ("", b"", 0)
"""The default values of an entry's last fields, which are then not packed."""
ENTRY_CHECKS: Final = checks_of(Entry)[: -len(NO_EXTRA)]
EXTRA_CHECKS: Final = checks_of(Entry)[-len(NO_EXTRA) :]
SUBMISSION_CHECKS: Final = checks_of(Submission)

assert Entry._fields[: -len(NO_EXTRA)] == ("log", *GIVEN_BY_LOG, *Submission._fields[1:-4])
assert Entry._fields[-len(NO_EXTRA) :] == Extra._fields[: len(NO_EXTRA)]
assert Entry._fields[-CONTENT_FIELDS:-3] == ("kind", "content_type", "body")


def is_copy(submission: Submission) -> bool:
    """Return True if this is the recipient's copy of a message that was accepted before."""
    return submission.extra is not None and submission.extra.origin_seq > 0


def committed(
    submission: Submission, epoch: bytes, seq: int, prev: int, time_ms: int
) -> tuple[object, ...]:
    """Return the fields of the entry for a submission, ready to be packed."""
    entry = (submission.log, epoch, seq, prev, time_ms, *submission[1:8])
    extra = submission.extra
    if extra is not None and (extra.to or extra.about_seq):
        return (*entry, extra.to, extra.about_epoch, extra.about_seq)
    return entry


def unpacked(fields: list[object]) -> Entry:
    """Return the entry for unpacked fields: the last ones may be missing.

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
    """The last entry of a log that a reader has: ``(epoch, seq)``. (NO_EPOCH, 0): none yet."""

    epoch: bytes
    seq: int


class Head(NamedTuple):
    """The last committed entry of a log. (NO_EPOCH, 0): the log does not exist yet."""

    epoch: bytes
    seq: int


class GapReason(IntEnum):
    """Why a reader gets a gap instead of the entries."""

    EPOCH = 1
    """Stored state was lost or restored: the old epoch ended before the reader's cursor."""
    AHEAD = 2
    """The cursor is beyond the head of its epoch: it does not come from this log."""
    RETENTION = 3
    """The log no longer holds these entries."""
    DAMAGED = 4
    """What is stored of these entries cannot be read."""


class GapInfo(NamedTuple):
    """Entries that a reader will not get: after ``start``, up to and including ``end``."""

    start: Cursor
    end: Cursor
    reason: GapReason
