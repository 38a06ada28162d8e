"""The shared vocabulary: what a log holds, what is offered to it, and where a reader stands.

docs/invariants.md, "Terms", fixes the fields. A log has an epoch (8 random bytes, made with its
first append) and gives each entry a sequence number, strictly increasing from 1. ``prev`` is the
number of the entry before it in the log: receivers check ``prev``, never ``seq - 1``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from relay import limits
from relay.chat.fields import (
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
    EDIT = 1
    REDACTION = 2
    SYSTEM = 3


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

    @property
    def content(self) -> Content:
        """What two submissions under one id must have in common."""
        return self.kind, self.content_type, self.body


def submission(*fields: object) -> Submission:
    """Return a submission of all its fields, in order, by the shortest way there is."""
    return tuple.__new__(Submission, fields)


Content: TypeAlias = tuple[int, str, bytes]
"""(kind, content type, body): what a message says, whoever says it and where. An entry and a
submission end with it."""

GIVEN_BY_LOG: Final = ("epoch", "seq", "prev", "time_ms")
"""The fields that a submission gets by being stored; they follow the log's name."""
CONTENT_FIELDS: Final = 3
ENTRY_CHECKS: Final = checks_of(Entry)
SUBMISSION_CHECKS: Final = checks_of(Submission)

assert Entry._fields == ("log", *GIVEN_BY_LOG, *Submission._fields[1:-2])
assert Entry._fields[-CONTENT_FIELDS:] == ("kind", "content_type", "body")


def committed(
    submission: Submission, epoch: bytes, seq: int, prev: int, time_ms: int
) -> tuple[object, ...]:
    """Return the fields of the entry that a submission becomes, ready to be packed."""
    log, sender, key_id, producer, counter, kind, content_type, body, _, _ = submission
    return (
        log, epoch, seq, prev, time_ms, sender, key_id, producer, counter, kind, content_type, body,
    )  # fmt: skip


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
