"""What a program receives from a client: events of the iterator, and the results of calls."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from relay.chat.entries import Cursor, GapReason


class State(Enum):
    """The state of a client."""

    CONNECTING = "connecting"
    ONLINE = "online"
    WAITING = "waiting"
    """The connection is lost; the next attempt follows after a delay."""
    CLOSED = "closed"


# --- events ------------------------------------------------------------------------------------
class LogEntry(NamedTuple):
    """An entry of a room, or of the account's own inbox: a ``Message``, or another kind.

    The body comes from a stranger: sanitise it before it reaches a terminal.
    """

    room: str
    """Its name; for a direct message ``@`` and this account's name: its inbox."""
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
    """Producer and counter form its id: they distinguish a repeat from a message with equal text.
    """
    kind: int
    content_type: str
    body: bytes
    """Exactly as sent."""
    to: str = ""
    """Of a direct message: its recipient. Empty in rooms."""
    about_epoch: bytes = b""
    about_seq: int = 0
    """See ``about``."""
    doubt: str = ""
    """Why it is doubtful that the sender has written this: no device of the sender is proved for
    it. Empty: no reason for doubt. See docs/client.md, "Names and device keys"."""

    @property
    def text(self) -> str:
        """The body as text; invalid UTF-8 becomes U+FFFD."""
        return self.body.decode("utf-8", "replace")

    @property
    def cursor(self) -> Cursor:
        """The position after this entry: ``join(room, cursor=...)`` continues after it."""
        return Cursor(self.epoch, self.seq)

    @property
    def about(self) -> Cursor | None:
        """The position, in the same room, of the entry that this one is about; None: of none.

        For a message, what it replies to.
        """
        return Cursor(self.about_epoch, self.about_seq) if self.about_seq else None

    @property
    def peer(self) -> str:
        """The other participant of a direct message, whoever wrote it; empty in rooms."""
        if not self.to:
            return ""
        return self.to if self.room == f"@{self.sender}" else self.sender


class Message(LogEntry):
    """A room message, or a direct message."""

    __slots__ = ()


class Edit(LogEntry):
    """The sender replaces the body of the message at ``about``."""

    __slots__ = ()


class Redaction(LogEntry):
    """The message, edit or reaction at ``about`` was erased. The body may contain the reason."""

    __slots__ = ()


class Reaction(LogEntry):
    """A short text, such as an emoji, about the message at ``about``."""

    __slots__ = ()


class ReadMark(LogEntry):
    """In the account's own inbox: one of its devices has read up to ``about``.

    The body is the name of a room; or ``@`` and a name, for the messages with that person, and
    ``about`` is then a position in this inbox.
    """

    __slots__ = ()

    @property
    def of(self) -> str:
        """The room that was read, or ``@`` and the name of a user."""
        return self.text


class Erased(LogEntry):
    """A former message, edit or reaction. ``about`` is the redaction that erased it."""

    __slots__ = ()


class Control(LogEntry):
    """Written by the server: in the account's own inbox, a change of the account."""

    __slots__ = ()


class RoomChanged(NamedTuple):
    """Somebody has changed the room, or a user's rights in it: an entry of the room's log."""

    room: str
    """Its name."""
    epoch: bytes
    seq: int
    """Its number in the room."""
    prev: int
    time_ms: int
    """When the server stored it: milliseconds since 1970."""
    sender: str
    """Who has done it; "relay": the server itself, when a ban has expired."""
    key_id: bytes
    change: str
    """"create", "topic", "title", "kind", "role", "invite", "kick", "ban", "mute", "free" (of a ban
    or mute), "close", "reopen", "enter", "leave", "keep", "delete"; empty: unknown to this version.
    """
    person: str = ""
    """The user it is about; empty: none."""
    text: str = ""
    """The topic or title, or the reason."""
    until_ms: int = 0
    """When a ban or mute ends, ms since 1970; 0: when it is lifted."""
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
        """The position after this entry: ``join(room, cursor=...)`` continues after it."""
        return Cursor(self.epoch, self.seq)


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries after ``start``, up to and including ``end``, will not be delivered."""

    room: str
    start: Cursor
    end: Cursor
    reason: GapReason | int
    """An int is a reason of a later version."""


@dataclass(frozen=True, slots=True)
class Live:
    """Everything up to ``seq`` was delivered; from here on entries arrive as they are committed."""

    room: str
    seq: int


@dataclass(frozen=True, slots=True)
class Behind:
    """This client read too slowly, and catches up from the store. Nothing is lost."""

    room: str
    seq: int


class Member(NamedTuple):
    """A follower of a room."""

    name: str
    display: str
    connections: int = 1


@dataclass(frozen=True, slots=True)
class RosterChanged:
    """The followers of a room have changed.

    In a large room both lists are empty: only total counts.
    """

    room: str
    total: int
    joined: tuple[Member, ...]
    left: tuple[str, ...]
    incarnation: int
    version: int


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The client is connecting, is online, waits for its next attempt, or has ended."""

    state: State
    detail: str = ""
    """The reason in words: for WAITING and CLOSED, with the name of the close code if there is one.
    """
    retry_s: float = 0.0
    """WAITING: seconds to the next attempt."""


@dataclass(frozen=True, slots=True)
class Unfollowed:
    """This client is no longer in the room, and does not return to it by itself.

    It was removed, may no longer read the room, or the room is gone.
    """

    room: str
    detail: str


@dataclass(frozen=True, slots=True)
class Invited:
    """Somebody has just invited this account to a room: ``change_room(room, "enter")`` accepts.

    Delivered while the client is connected, whether or not it follows anything. Earlier invitations
    are in ``rooms(mine=True)``, with the role "invited".
    """

    room: str
    by: str
    """Who invited; "operator": an administrator of the server, without a login."""


@dataclass(frozen=True, slots=True)
class Postponed:
    """The server cannot store messages of this room now; the client resends them until it can.

    Delivered once until a message of the room is stored; also if, after a reconnect, the server
    cannot let the client follow the room now: it repeats the request.
    """

    room: str
    detail: str
    """The reason in the server's words; may be empty."""


@dataclass(frozen=True, slots=True)
class DeviceWarning:
    """A sender's identity is doubtful: its key is not proved by the devices seen before.

    The server, or an attacker who controls it, may be writing in its name. Its messages have a
    ``doubt``, until ``accept_devices``.
    """

    room: str
    """The room of the message; empty: none."""
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
    """What it survives: "process", the death of any process of the server; "power", also that of
    its machine; or the number of a later version's value."""

    @property
    def cursor(self) -> Cursor:
        """The position of the message, equal to that of the ``Message`` that readers get."""
        return Cursor(self.epoch, self.seq)


class Joined(NamedTuple):
    """The room is followed: entries after ``start`` arrive; ``head`` was its end at that time."""

    room: str
    start: Cursor
    head: Cursor
    another: bool = False
    """True if it is not the room of this name that this client was in before: that one no longer
    exists, and somebody has created another one."""


class Members(NamedTuple):
    """Who follows a room: at most 200 of ``total``."""

    room: str
    total: int
    members: tuple[Member, ...]
    incarnation: int
    version: int


class SearchPage(NamedTuple):
    """Messages that contain the words searched for, newest first.

    A page may be empty without being the last one: the limit for examined messages was reached, and
    the next page continues with older ones.
    """

    entries: tuple[Message | Edit, ...]
    """The current version of each message found: itself; or its last edit, whose ``about`` is the
    position of the message."""
    next: int
    """The ``before`` of the next page."""
    end: bool
    """True if there is no next page."""
    indexed: int
    """Messages above this number are not in the index yet, and were not searched."""


class HistoryPage(NamedTuple):
    """A page in ascending order. ``next`` requests the following page; ``end``: there is none."""

    entries: tuple[LogEntry | RoomChanged, ...]
    next: int
    end: bool
