"""What a program gets from a client: events of the iterator, and the results of its calls."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from relay.chat.entries import Cursor, GapReason


class State(Enum):
    """Where a client is."""

    CONNECTING = "connecting"
    ONLINE = "online"
    WAITING = "waiting"
    """The connection is gone; the next attempt comes after a while."""
    CLOSED = "closed"


# --- events ------------------------------------------------------------------------------------
class LogEntry(NamedTuple):
    """What a room, or one's own inbox, has: a ``Message``, or one of the other kinds.

    The body comes from a stranger: make it harmless before it reaches a terminal.
    """

    room: str
    """Its name; of a direct message ``@`` and one's own name: one's inbox."""
    epoch: bytes
    seq: int
    """Its number in the room. Numbers increase within an epoch."""
    prev: int
    """The number of the message before it; 0: it is the first one."""
    time_ms: int
    """When the server stored it: milliseconds since 1970."""
    sender: str
    """The name under which it was sent."""
    key_id: bytes
    producer: bytes
    counter: int
    """Producer and counter are its id: they tell a repeat from a message that reads the same."""
    kind: int
    content_type: str
    body: bytes
    """Exactly as it was sent."""
    to: str = ""
    """Of a direct message: for whom it is. Empty in rooms."""
    about_epoch: bytes = b""
    about_seq: int = 0
    """See ``about``."""
    doubt: str = ""
    """Why it is doubtful that the sender has written this: no device of theirs is proved for it.
    Empty: nothing speaks against it. See docs/client.md, "Names and device keys"."""

    @property
    def text(self) -> str:
        """The body as text; what is not UTF-8 becomes U+FFFD."""
        return self.body.decode("utf-8", "replace")

    @property
    def cursor(self) -> Cursor:
        """The place behind this entry: ``join(room, cursor=...)`` goes on after it."""
        return Cursor(self.epoch, self.seq)

    @property
    def about(self) -> Cursor | None:
        """The place, in the same room, of the entry that this one is about; None: of none.

        Of a message, what it replies to.
        """
        return Cursor(self.about_epoch, self.about_seq) if self.about_seq else None

    @property
    def peer(self) -> str:
        """With whom a direct message was exchanged, whoever wrote it; empty in rooms."""
        if not self.to:
            return ""
        return self.to if self.room == f"@{self.sender}" else self.sender


class Message(LogEntry):
    """A message of a room, or a direct one."""

    __slots__ = ()


class Edit(LogEntry):
    """The sender gives the message at ``about`` another body."""

    __slots__ = ()


class Redaction(LogEntry):
    """The message, edit or reaction at ``about`` was erased. The body may give the reason."""

    __slots__ = ()


class Reaction(LogEntry):
    """A short text, such as an emoji, about the message at ``about``."""

    __slots__ = ()


class ReadMark(LogEntry):
    """In one's own inbox: another device, or this one, has read up to ``about``.

    The body is the name of a room; or ``@`` and a name, for the messages with that person, and
    ``about`` is a place in this inbox.
    """

    __slots__ = ()

    @property
    def of(self) -> str:
        """The room that was read, or ``@`` and the name of a person."""
        return self.text


class Erased(LogEntry):
    """What was a message, an edit or a reaction. ``about`` is the redaction that erased it."""

    __slots__ = ()


class Control(LogEntry):
    """What the server has written: in one's own inbox, what happened to the account."""

    __slots__ = ()


class RoomChanged(NamedTuple):
    """Somebody has changed the room, or what somebody may do in it: an entry of the room's log."""

    room: str
    """Its name."""
    epoch: bytes
    seq: int
    """Its number in the room."""
    prev: int
    time_ms: int
    """When the server stored it: milliseconds since 1970."""
    sender: str
    """Who has done it; "relay": the server by itself, when the time of a ban is over."""
    key_id: bytes
    change: str
    """"create", "topic", "title", "kind", "role", "invite", "kick", "ban", "mute", "free" (of a ban
    or mute), "close", "reopen", "enter", "leave", "keep", "delete"; empty: one that this version
    does not know."""
    person: str = ""
    """Whom it is about; empty: nobody."""
    text: str = ""
    """The topic or title, or why it was done."""
    until_ms: int = 0
    """When a ban or mute ends, ms since 1970; 0: when it is taken back."""
    role: str = ""
    kind: str = ""
    """Of the room: "public", "private" or "announce"."""
    listed: bool = True
    keep: tuple[int, int, int] = (0, 0, 0)
    """How long messages are kept: seconds, messages, bytes; 0: as in the server's settings."""
    doubt: str = ""
    """Why it is doubtful that the sender has done this; see ``LogEntry.doubt``."""

    @property
    def cursor(self) -> Cursor:
        """The place behind this entry: ``join(room, cursor=...)`` goes on after it."""
        return Cursor(self.epoch, self.seq)


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries after ``start`` up to and with ``end`` will not come."""

    room: str
    start: Cursor
    end: Cursor
    reason: GapReason | int
    """An int is a reason of a later version."""


@dataclass(frozen=True, slots=True)
class Live:
    """Everything up to ``seq`` was delivered; from here entries come as they are committed."""

    room: str
    seq: int


@dataclass(frozen=True, slots=True)
class Behind:
    """This client read too slowly, and catches up from what is stored. Nothing is lost."""

    room: str
    seq: int


class Member(NamedTuple):
    """A person or program that follows a room."""

    name: str
    display: str
    connections: int = 1


@dataclass(frozen=True, slots=True)
class RosterChanged:
    """Who follows a room has changed. In a large room both lists are empty: only total counts."""

    room: str
    total: int
    joined: tuple[Member, ...]
    left: tuple[str, ...]
    incarnation: int
    version: int


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The client connects, is online, waits for its next attempt, or has ended."""

    state: State
    detail: str = ""
    """Why, in words: for WAITING and CLOSED, with the name of the close code if there is one."""
    retry_s: float = 0.0
    """WAITING: seconds to the next attempt."""


@dataclass(frozen=True, slots=True)
class Unfollowed:
    """This client is not in the room any more, and does not come back to it by itself.

    It was put out, may not read the room any more, or the room is gone.
    """

    room: str
    detail: str


@dataclass(frozen=True, slots=True)
class Invited:
    """Somebody has just invited this account to a room: ``change_room(room, "enter")`` accepts.

    Comes while the client is connected, whether it follows anything or not. What came while it was
    away is in ``rooms(mine=True)``, with the role "invited".
    """

    room: str
    by: str
    """Who has done it; "operator": one of the server's, without a login."""


@dataclass(frozen=True, slots=True)
class Postponed:
    """The server cannot store messages of this room now; the client sends them again until it can.

    Comes once, until a message of the room is stored. Also when the client has connected again and
    the server cannot let it follow the room now: it asks until it can.
    """

    room: str
    detail: str
    """Why, in the server's words; may be empty."""


@dataclass(frozen=True, slots=True)
class DeviceWarning:
    """A sender may not be who it was: its key is not proved by the devices that were seen before.

    The server, or somebody who has taken it over, may be writing in its name. What comes of it has
    a ``doubt``, until ``accept_devices``.
    """

    room: str
    """Where its message came; empty: in none."""
    name: str
    detail: str


Event: TypeAlias = (
    LogEntry
    | Message
    | RoomChanged
    | Edit
    | Redaction
    | Reaction
    | ReadMark
    | Erased
    | Control
    | Gap
    | Live
    | Behind
    | RosterChanged
    | StateChanged
    | Unfollowed
    | Invited
    | Postponed
    | DeviceWarning
)


# --- results -----------------------------------------------------------------------------------
class Stored(NamedTuple):
    """A message was committed as (epoch, seq). seq 0: stored earlier, no longer in the room."""

    epoch: bytes
    seq: int
    durability: str = "process"
    """What it survives: "process", the death of any process of the server; "power", that of its
    machine as well; or the number of a later version's."""

    @property
    def cursor(self) -> Cursor:
        """The place of the message, as that of the ``Message`` that readers get."""
        return Cursor(self.epoch, self.seq)


class Joined(NamedTuple):
    """The room is followed: entries after ``start`` come; ``head`` was its end at that moment."""

    room: str
    start: Cursor
    head: Cursor


class Members(NamedTuple):
    """Who follows a room: at most 200 of ``total``."""

    room: str
    total: int
    members: tuple[Member, ...]
    incarnation: int
    version: int


class SearchPage(NamedTuple):
    """Messages that have the words that were searched for, the newest first.

    A page may be empty and not the last: then so many messages were looked at that the next page
    goes on with older ones.
    """

    entries: tuple[Message | Edit, ...]
    """Of each message that was found what it is now: itself; or its last edit, whose ``about`` is
    the place of the message."""
    next: int
    """The ``before`` of the next page."""
    end: bool
    """There is no next page."""
    indexed: int
    """Messages above this number are not in the index yet, and were not looked at."""


class HistoryPage(NamedTuple):
    """A page in ascending order. ``next`` asks for the page behind it; ``end``: there is none."""

    entries: tuple[LogEntry | RoomChanged, ...]
    next: int
    end: bool
