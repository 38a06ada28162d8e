"""The shared vocabulary: what a log holds, what is offered to it, and where a reader stands.

docs/invariants.md, "Terms", fixes the fields. A log has an epoch (8 random bytes, made with its
first append) and gives each entry a sequence number, strictly increasing from 1. ``prev`` is the
number of the entry before it in the log: receivers check ``prev``, never ``seq - 1``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

NO_EPOCH: Final = bytes(8)
"""The epoch of a log that does not exist yet; in a cursor: "whatever the epoch, after seq"."""


class Kind(IntEnum):
    """What an entry is."""

    MESSAGE = 0
    EDIT = 1
    REDACTION = 2
    SYSTEM = 3


class Submission(NamedTuple):
    """A message offered to a log by its sender, not numbered yet."""

    log: str
    producer: bytes
    counter: int
    sender: str
    key_id: bytes
    kind: int
    content_type: str
    body: bytes


class Entry(NamedTuple):
    """A committed message: what every reader of the log sees."""

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
