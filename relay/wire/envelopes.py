"""Envelopes: the messages between client and server, one NamedTuple per operation.

Fields are in wire order. An app record carries one or more whole envelopes; ``packing`` creates and
checks their bytes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeAlias

from relay.chat.entries import Entry as EntryMessage
from relay.codec import Unknown
from relay.wire.hello import Hello, Register

# Defined elsewhere, belongs to this module: an entry is transmitted exactly as it is stored.
__all__ = ["EntryMessage", "Hello", "Register"]


class Op(IntEnum):
    """The operations. 1-31 are sent by the client, 33-63 by the server."""

    HELLO = 1
    JOIN = 2
    LEAVE = 3
    SEND = 4
    WHO = 5
    HISTORY = 6
    REGISTER = 7
    ENROL = 8
    DEVICES = 9
    ACCOUNT = 10
    PROVE = 31
    ROOM = 16
    SEARCH = 24

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
    DONE = 46
    CHAIN = 47
    NEXT_KEY = 63
    REMOVED = 56
    FOUND = 57
    INVITED = 58


class Join(NamedTuple):
    """Client: follow a log from a cursor (``epoch`` not None) or with its ``last`` entries.

    ``identity``: of the room that is meant, as in SEND.
    """

    request: int
    log: str
    epoch: bytes | None
    seq: int
    last: int
    identity: bytes = b""


class Leave(NamedTuple):
    """Client: stop following a log."""

    request: int
    log: str


class Send(NamedTuple):
    """Client: append to a log. The id is (producer, counter), see ``chat.ids``.

    Invariant "Once, in order". With ``@handle`` it is a direct message, and its counter is that of
    the sender's own inbox. ``about``: the position of the entry that this one is about (``Kind``).
    ``identity``: of the room that is meant, from JOINED; empty: whichever has the name.
    """

    log: str
    counter: int
    kind: int
    content_type: str
    body: bytes
    about_epoch: bytes = b""
    about_seq: int = 0
    identity: bytes = b""


class Who(NamedTuple):
    """Client: who follows this log?"""

    request: int
    log: str


class History(NamedTuple):
    """Client: a page. Backward: entries below ``seq`` (0: from the head). Forward: above it."""

    request: int
    log: str
    forward: bool
    seq: int
    count: int  # type: ignore[assignment]  # the field's name in the protocol; hides tuple.count


class Search(NamedTuple):
    """Client: messages of a log that contain all words of ``text``, newest first.

    Only those with a seq below ``before`` (0: from the head).
    """

    request: int
    log: str
    text: str
    before: int
    count: int  # type: ignore[assignment]


class Enrol(NamedTuple):
    """Client: become a device of the account with this name, after approval. Before HELLO.

    ``countersignature``: of the offered link, by ``key``; empty: only request the offer.
    """

    request: int
    name: str
    key: bytes
    signature: bytes
    countersignature: bytes


class Devices(NamedTuple):
    """Client: the chain of an account, from the link with index ``first`` on."""

    request: int
    name: str
    first: int


class Account(NamedTuple):
    """Client: a request about an account, packed (``chat.accounts.requests``)."""

    request: int
    name: str
    content: bytes


class Prove(NamedTuple):
    """Client: request proof that the key of NEXT_KEY follows the server's.

    ``challenge``: a fresh secret under the server's key (``ServerPublicKey.challenge``); the answer
    is DONE with the proof.
    """

    request: int
    challenge: bytes


class Room(NamedTuple):
    """Client: a request about a room, packed (``chat.rooms.requests``).

    ``identity``: of the room that is meant, as in SEND.
    """

    request: int
    log: str
    content: bytes
    identity: bytes = b""


class Welcome(NamedTuple):
    """Server: logged in. Contains the server's clock (ms since 1970) and the client's limits.

    ``root``: of the account's chain; empty for a guest.
    """

    name: str
    time_ms: int
    body_bytes_max: int
    sends_max: int
    agent: str
    root: bytes = b""


class Joined(NamedTuple):
    """Server: entries after ``start_seq`` follow; the log's head was ``head_seq``.

    ``identity``: of the room, for SEND; empty for an inbox, and a log without entries.
    """

    request: int
    log: str
    start_epoch: bytes
    start_seq: int
    head_epoch: bytes
    head_seq: int
    identity: bytes = b""


class Left(NamedTuple):
    """Server: no more entries of this log follow."""

    request: int
    log: str


class Ack(NamedTuple):
    """Server: committed as ``(epoch, seq)``. seq 0: stored earlier, entry no longer kept.

    ``durability``: what the commit survives, a ``wire.codes.Survives``.
    """

    log: str
    counter: int
    epoch: bytes
    seq: int
    durability: int = 0


class Refused(NamedTuple):
    """Server: this send was not stored. ``code`` is an ErrorCode, ``arg`` its number."""

    log: str
    counter: int
    code: int
    arg: int
    text: str


class Error(NamedTuple):
    """Server: this request was refused. ``request`` 0: it belongs to no request."""

    request: int
    code: int
    arg: int
    text: str


class Roster(NamedTuple):
    """Server: the members changed. In a large room the lists are empty: only total counts."""

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


class Found(NamedTuple):
    """Server: answer to SEARCH. ``next``: the ``before`` of the next page; ``end``: there is none.

    Entries above ``indexed`` were not searched: they are not in the index yet. ``entries``: the
    current version of each message found, itself or its last edit.
    """

    request: int
    log: str
    next: int
    end: bool
    indexed: int
    entries: list[EntryMessage]


class Live(NamedTuple):
    """Server: everything up to ``seq`` was delivered; from here on entries arrive as committed."""

    log: str
    epoch: bytes
    seq: int


class Behind(NamedTuple):
    """Server: the client reads too slowly and left live; entries after ``seq`` will follow."""

    log: str
    epoch: bytes
    seq: int


class Gap(NamedTuple):
    """Server: the entries after ``from`` up to ``to`` will not be delivered. Reason: GapReason."""

    log: str
    from_epoch: bytes
    from_seq: int
    to_epoch: bytes
    to_seq: int
    reason: int


class Done(NamedTuple):
    """Server: a request was carried out. ``content``: its answer."""

    request: int
    content: bytes


class Chain(NamedTuple):
    """Server: answer to DEVICES. ``end``: the last of these links is the chain's last."""

    request: int
    name: str
    links: list[bytes]
    end: bool


class NextKey(NamedTuple):
    """Server: another key will follow the server's. ``spki_hash``: SHA-256 of its SPKI."""

    spki_hash: bytes


class Invited(NamedTuple):
    """Server: ``by`` has just invited the client to the room ``log``."""

    log: str
    by: str


class Removed(NamedTuple):
    """Server: the client no longer follows this log, for lack of rights. ``code``: an ErrorCode."""

    log: str
    code: int
    text: str


ClientEnvelope: TypeAlias = (
    Hello
    | Join
    | Leave
    | Send
    | Who
    | History
    | Register
    | Enrol
    | Devices
    | Account
    | Prove
    | Room
    | Search
    | Unknown
)
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
    | Done
    | Chain
    | NextKey
    | Removed
    | Found
    | Invited
    | Unknown
)
