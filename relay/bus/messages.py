"""What workers send each other. Their bytes are made and checked by ``packing``.

Two roles meet on a link. The *home* of a log orders, commits and publishes it; a *member* worker
has clients that follow it or send to it. Every worker is both.

``tag`` is the member's own number for what it asks; the home gives it back. Order on a link, within
one priority, is the order of sending.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from relay.bus.claim import Claim
from relay.chat.entries import Submission
from relay.chat.partition import PARTITIONS

__all__ = ["Claim"]  # made elsewhere, part of this
ITEMS_PER_MESSAGE: Final = 512
"""Entries of a list in one message; longer lists become several messages."""
TAG_STEP: Final = PARTITIONS
"""From the tag of a send to that of the next one in a run: see SUBMIT and ACKS."""

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
    ERASED = 44
    TELL = 45
    NOT_FOLLOWED = 46


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
    """Member: append this run. Answer to each: in an item of ACKS, or REFUSED, or NOT_HOME.

    A run is what one sender has for one log. On the bus the fields of the first submission follow
    the tag.
    """

    tag: int
    submission: Submission
    more: list[bytes]
    """Bodies of those that follow it. All else is as in the first one, but the counters, which are
    the next ones, and the tags, ``TAG_STEP`` apart."""


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
    """The root of the account that the request names, if it does. Of a redaction: of the account
    that has written the entry, if it is an earlier one of the name that asks."""
    connection: str = ""
    """The id of the connection that asks, for the log; empty: none does."""


class Revoked(NamedTuple):
    """Member: what REVOKE with this tag asks for is done here."""

    tag: int


class Damaged(NamedTuple):
    """Member: the file of a partition was found damaged, while it was read here."""

    partition: int
    reason: str


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


class NotFollowed(NamedTuple):
    """Home: a log cannot be followed, or not any more. Answers SUBSCRIBE, or comes by itself.

    ``code`` is an ErrorCode of the protocol; UNAVAILABLE: not now, and SUBSCRIBED comes later.
    """

    log: str
    code: int
    text: str


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
    """Home: committed, [tag, epoch, seq, count] each.

    Of so many sends: from one to the next the tag is ``TAG_STEP`` more, and the seq one more.
    """

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
    them. ``lifted``: what was sent before about them does not hold any more.
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
    | Damaged
    | NotFollowed
)
