"""The control entries of a room: one event is the body of one system entry of its log.

The sender of the entry is the actor; ``RELAY`` for what the server does by itself.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias, cast

from relay import codec, limits
from relay.chat.entries import Entry
from relay.chat.entries import Kind as EntryKind
from relay.chat.fields import NAME, ROOT, U63
from relay.codec import Shape
from relay.errors import EnvelopeError

CONTENT_TYPE: Final = "relay/room"
RELAY: Final = "relay"
"""A reserved name: nobody can log in with it."""


class Kind(IntEnum):
    """Who may read and write in a room."""

    PUBLIC = 0
    """Everybody."""
    PRIVATE = 1
    """Who was invited."""
    ANNOUNCE = 2
    """Everybody reads; owners and moderators write."""


class Role(IntEnum):
    """A user's permanent role in a room."""

    NONE = 0
    INVITED = 1
    """Like a member, but the user has not accepted yet."""
    MEMBER = 2
    MODERATOR = 3
    OWNER = 4


class Created(NamedTuple):
    """The room is created. Its sender owns it, unless ``root`` is empty: a guest owns nothing."""

    kind: Kind
    listed: bool
    root: bytes
    """Of the sender's account."""


class TopicSet(NamedTuple):
    """The topic of the room."""

    topic: str


class TitleSet(NamedTuple):
    """The displayed title of the room."""

    title: str


class KindSet(NamedTuple):
    """Who may read and write, and whether lists show the room to users who may not read it."""

    kind: Kind
    listed: bool


class RoleSet(NamedTuple):
    """A user got a role."""

    handle: str
    root: bytes
    role: Role


class Invited(NamedTuple):
    """A user may enter and become a member."""

    handle: str
    root: bytes


class Kicked(NamedTuple):
    """A user was removed, and may return if everybody may enter."""

    handle: str
    reason: str


class Banned(NamedTuple):
    """A user may neither read nor write, until ``until_ms`` (0: until it is lifted)."""

    handle: str
    root: bytes
    until_ms: int
    reason: str


class Muted(NamedTuple):
    """A user may not write, until ``until_ms`` (0: until it is lifted)."""

    handle: str
    root: bytes
    until_ms: int
    reason: str


class Freed(NamedTuple):
    """A user is no longer banned or muted."""

    handle: str


class Closed(NamedTuple):
    """Nobody may write; False: as before."""

    closed: bool


class Entered(NamedTuple):
    """The sender is now a permanent member."""

    root: bytes


class Left(NamedTuple):
    """The sender is no longer a member."""


class KeepSet(NamedTuple):
    """How long messages are kept; 0: as in the server's settings."""

    age_s: int
    messages: int
    bytes: int


class Deleted(NamedTuple):
    """The room was deleted. A later one of its name is a different room."""

    reason: str


Event: TypeAlias = (
    Created
    | TopicSet
    | TitleSet
    | KindSet
    | RoleSet
    | Invited
    | Kicked
    | Banned
    | Muted
    | Freed
    | Closed
    | Entered
    | Left
    | KeepSet
    | Deleted
)

REASON: Final = codec.text(limits.ROOM_REASON_BYTES_MAX)
TOPIC: Final = codec.text(limits.ROOM_TOPIC_BYTES_MAX)
TITLE: Final = codec.text(limits.ROOM_TITLE_BYTES_MAX)
KIND: Final = codec.uint(len(Kind) - 1)
ROLE: Final = codec.uint(len(Role) - 1)


def _created(kind: int, listed: bool, root: bytes) -> Created:
    return Created(Kind(kind), listed, root)


def _kind_set(kind: int, listed: bool) -> KindSet:
    return KindSet(Kind(kind), listed)


def _role_set(handle: str, root: bytes, role: int) -> RoleSet:
    return RoleSet(handle, root, Role(role))


SHAPES: Final[dict[int, Shape]] = {
    1: Shape(Created, (KIND, codec.boolean, ROOT), _created),
    2: Shape(TopicSet, (TOPIC,)),
    3: Shape(TitleSet, (TITLE,)),
    4: Shape(KindSet, (KIND, codec.boolean), _kind_set),
    5: Shape(RoleSet, (NAME, ROOT, ROLE), _role_set),
    6: Shape(Invited, (NAME, ROOT)),
    7: Shape(Kicked, (NAME, REASON)),
    8: Shape(Banned, (NAME, ROOT, U63, REASON)),
    9: Shape(Muted, (NAME, ROOT, U63, REASON)),
    10: Shape(Freed, (NAME,)),
    11: Shape(Closed, (codec.boolean,)),
    12: Shape(Entered, (ROOT,)),
    13: Shape(Left, ()),
    15: Shape(Deleted, (REASON,)),
    16: Shape(KeepSet, (U63, U63, U63)),
}
_NUMBER_OF: Final = {shape.type: number for number, shape in SHAPES.items()}
_SCHEMA: Final = codec.Schema(SHAPES, count_max=1, array_max=limits.ENVELOPE_FIELDS_MAX)


def pack(event: Event) -> bytes:
    """Return an event's bytes: a msgpack array ``[number, field, ...]``."""
    return codec.pack((_NUMBER_OF[type(event)], *event))


def unpack(body: bytes) -> Event | None:
    """Return the event encoded in some bytes; None for one of a later version.

    Raises:
        EnvelopeError: they are invalid.
    """
    found = _SCHEMA.unpack(body)
    if len(found) != 1:
        raise EnvelopeError("not one event of a room")
    return None if isinstance(found[0], codec.Unknown) else cast("Event", found[0])


def is_creation(entry: Entry) -> bool:
    """Return True if an entry creates a room."""
    if entry.kind != EntryKind.SYSTEM or entry.content_type != CONTENT_TYPE:
        return False
    try:
        return isinstance(unpack(entry.body), Created)
    except EnvelopeError:
        return False
