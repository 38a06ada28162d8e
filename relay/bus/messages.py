"""The messages between workers. ``packing`` converts them to bytes and checks them.

A link connects two roles. The *home* of a log orders, commits and publishes it; a *member* worker
has clients that follow it or send to it. Every worker is both.

``tag`` is the member's own number for a request; the home returns it. Within one priority, messages
on a link keep their order.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias

from relay.bus.claim import Claim
from relay.chat.entries import Submission
from relay.chat.partition import PARTITIONS

__all__ = ["Claim"]  # defined elsewhere, belongs to this module
ITEMS_PER_MESSAGE: Final = 512
"""List items in one message; longer lists are split into several messages."""
TAG_STEP: Final = PARTITIONS
"""Distance of the tags of consecutive sends in a run: see SUBMIT and ACKS."""

CONNECTION_ID_CHARS_MAX: Final = 40


class Op(IntEnum):
    """1-15: both directions; 16-31: from a member to a home; 32-47: from a home to a member."""

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
    DAMAGED = 26

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
    TELL = 45
    NOT_FOLLOWED = 46


class Introduction(NamedTuple):
    """The first message of the worker that dialled: which worker it is."""

    worker: int
    generation: int


class Announced(NamedTuple):
    """All that this worker held of the other's partitions when the link came up has been sent."""

    generation: int


class Attach(NamedTuple):
    """Member: forget what this worker has sent about a partition; all of it follows again.

    A home accepts nothing about a partition from a worker before this message, nor between a
    NOT_HOME and the next one: messages that were under way meanwhile would arrive out of order.
    """

    partition: int


class Subscribe(NamedTuple):
    """Member: this worker has members of a log now. Answer: SUBSCRIBED, in the same home turn."""

    log: str


class Unsubscribe(NamedTuple):
    """Member: nobody here follows the log any more."""

    log: str


class Submit(NamedTuple):
    """Member: append this run. Each send is answered by an item of ACKS, by REFUSED, or by
    NOT_HOME.

    A run consists of one sender's messages to one log. On the bus the fields of the first
    submission follow the tag.
    """

    tag: int
    submission: Submission
    more: list[bytes]
    """Bodies of the other submissions. Their other fields equal those of the first, except that
    counters increase by one and tags by ``TAG_STEP``."""


class Presence(NamedTuple):
    """Member: for a log, the number of connections per name here. 0: none any more."""

    log: str
    changes: list[list[str | int]]
    again: bool = False
    """True if they were present before this home, or this link."""


class Who(NamedTuple):
    """Member: who follows this log? Answer: MEMBERS."""

    tag: int
    log: str


class Ask(NamedTuple):
    """Member: a request about an account, an invitation or a room. Answer: ANSWERED.

    It may be sent a second time, to the next home: all these requests are idempotent.
    """

    tag: int
    log: str
    by: str
    """The requesting handle; may be empty before a login."""
    key_id: bytes
    """Of the requesting device."""
    content: bytes
    """Packed: ``chat.accounts.requests``, ``chat.rooms.requests``."""
    root: bytes = b""
    """Of the requesting account."""
    operator: bool = False
    """True if the requesting account is an operator."""
    subject: bytes = b""
    """The root of the account that the request names, if any. For a redaction: the root of the
    entry's author, if that is an earlier account with the requester's name."""
    connection: str = ""
    """The id of the requesting connection, for the log; empty if there is none."""
    identity: bytes = b""
    """Of the room that is meant, as in a ``Submission``."""


class Revoked(NamedTuple):
    """Member: the REVOKE with this tag has been carried out here."""

    tag: int


class Damaged(NamedTuple):
    """Member: the file of a partition was found damaged while it was read here."""

    partition: int
    reason: str


class Release(NamedTuple):
    """Member: the session with that tag has ended."""

    tag: int
    name: str


class Subscribed(NamedTuple):
    """Home: the log's head; every later entry follows as BATCH."""

    log: str
    epoch: bytes
    seq: int
    state: bytes = b""
    """The log's state after its control entries, as of its head: ``chat.rooms.state``."""


class NotFollowed(NamedTuple):
    """Home: a log cannot be followed (any more). Answers SUBSCRIBE, or is sent unasked.

    ``code`` is an ErrorCode of the protocol; UNAVAILABLE: not now, and SUBSCRIBED follows later.
    """

    log: str
    code: int
    text: str


class Batch(NamedTuple):
    """Home: ``count`` committed entries after ``prev``, packed: the bytes that members receive.

    A control entry is a batch of its own: after it, other users may be able to read.
    """

    log: str
    prev: int
    epoch: bytes
    last: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    content: bytes
    control: bool = False


class Event(NamedTuple):
    """Home: an envelope for a log's live members that is not an entry. Best effort."""

    log: str
    content: bytes


class Heads(NamedTuple):
    """Home: the ends of subscribed logs, [log, epoch, seq] each (invariant "No silent tail")."""

    heads: list[list[str | bytes | int]]


class Acks(NamedTuple):
    """Home: committed sends, [tag, epoch, seq, count] each.

    ``count`` sends: from one to the next the tag increases by ``TAG_STEP`` and the seq by one.
    """

    acks: list[list[Any]]


class Refused(NamedTuple):
    """Home: not stored. ``code`` is an ErrorCode of the protocol."""

    tag: int
    code: int
    arg: int
    text: str


class Claimed(NamedTuple):
    """Home: the answer to CLAIM.

    ``replaced``: refused because the same client instance already has a later connection.
    """

    tag: int
    granted: bool
    replaced: bool
    code: int
    """An ErrorCode with the reason for a refusal; 0 if it is granted or replaced."""
    text: str
    root: bytes
    """Of the account; empty for a guest, and if it is refused."""
    operator: bool
    """True if the account is an operator."""


class Evict(NamedTuple):
    """Home: end the session with that tag: the same client instance has connected elsewhere."""

    tag: int


class Tell(NamedTuple):
    """Home of an account: an envelope for the session with that tag. Best effort."""

    tag: int
    content: bytes


class Answered(NamedTuple):
    """Home: the answer to ASK. ``code`` is an ErrorCode, or 0 for success."""

    tag: int
    code: int
    text: str
    content: bytes


class Revoke(NamedTuple):
    """Home of an account, to every worker: these devices are removed. Answer: REVOKED.

    A worker ends their sessions and drops what they have sent; as a home it stores nothing more
    from them. ``lifted``: earlier revocations of these devices no longer apply.
    """

    tag: int
    handle: str
    keys: list[bytes]
    """Key ids, at least one."""
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
    """Home: this partition is not mine (yet, or any more). Check the table and attach again."""

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
    | Tell
    | Damaged
    | NotFollowed
)
