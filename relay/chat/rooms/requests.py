"""The requests about a room, and their encoding.

The encoding is the same from clients (the content of ROOM) and between workers: a msgpack array
``[number, seen, field, ...]``. ``seen`` is the seq of the last control entry of the room that the
requester has seen: a change of something that somebody else has changed since is refused
(``Reason.CHANGED``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias, cast

from relay import codec, limits
from relay.chat.fields import NAME, POSITIVE, U63
from relay.chat.partition import PARTITIONS
from relay.chat.rooms.events import KIND, REASON, ROLE, TITLE, TOPIC, Kind, Role
from relay.codec import Check, Shape
from relay.errors import EnvelopeError

ANYTHING_SEEN: Final = limits.U63_MAX
"""As ``seen``: do it regardless of other changes."""


class Create(NamedTuple):
    """Create a room, owned by the requester."""

    kind: Kind = Kind.PUBLIC
    listed: bool = True


class SetTopic(NamedTuple):
    """Set what the room is about."""

    topic: str


class SetTitle(NamedTuple):
    """Set the displayed title of the room."""

    title: str


class SetKind(NamedTuple):
    """Choose who may read and write, and whether the room is in lists."""

    kind: Kind
    listed: bool = True


class SetRole(NamedTuple):
    """Assign a role, or remove it (``Role.NONE``)."""

    handle: str
    role: Role


class Invite(NamedTuple):
    """Allow a user to enter and become a member."""

    handle: str


class Kick(NamedTuple):
    """Remove a user."""

    handle: str
    reason: str = ""


class Ban(NamedTuple):
    """Remove a user, who may not return, for this many seconds (0: without an end)."""

    handle: str
    seconds: int = 0
    reason: str = ""


class Unban(NamedTuple):
    """Lift a ban."""

    handle: str


class Mute(NamedTuple):
    """Forbid a user to write, for this many seconds (0: without an end)."""

    handle: str
    seconds: int = 0
    reason: str = ""


class Unmute(NamedTuple):
    """Lift a mute."""

    handle: str


class Close(NamedTuple):
    """Forbid everybody to write."""


class Reopen(NamedTuple):
    """Allow writing again."""


class SetKeep(NamedTuple):
    """Choose how long messages are kept; 0: as in the server's settings."""

    age_s: int
    messages: int
    bytes: int


class Enter(NamedTuple):
    """Become a permanent member: accept an invitation, or enter a room that is open to all."""


class Leave(NamedTuple):
    """Cease to be a member. Also declines an invitation."""


class Redact(NamedTuple):
    """Erase an entry of the log: this becomes an entry of kind *redaction*, not an event."""

    seq: int
    reason: str = ""


class Delete(NamedTuple):
    """Delete the room."""

    reason: str = ""


class Depart(NamedTuple):
    """Cease to be a member because the account is removed, even as only owner. Between workers."""


class Show(NamedTuple):
    """Return the state, with the users whose handles are above ``after``."""

    after: str = ""


class List(NamedTuple):
    """Return the rooms of a partition that the requester may see, after ``after``."""

    partition: int
    after: str


class Mine(NamedTuple):
    """Return the rooms in which the requester has a role, with unread counts, after ``after``."""

    after: str = ""


Change: TypeAlias = (
    Create
    | SetTopic
    | SetTitle
    | SetKind
    | SetRole
    | Invite
    | Kick
    | Ban
    | Unban
    | Mute
    | Unmute
    | Close
    | Reopen
    | SetKeep
    | Enter
    | Leave
    | Depart
    | Delete
)
Request: TypeAlias = Change | Redact | Show | List | Mine


class Asked(NamedTuple):
    """A request, and what its sender has seen."""

    request: Request
    seen: int


def _asked(kind: Callable[..., Request]) -> Callable[..., Asked]:
    return lambda seen, *fields: Asked(kind(*fields), seen)


def _shape(kind: type[tuple[object, ...]], *checks: Check, make: object = None) -> Shape:
    names = ("seen", *cast("tuple[str, ...]", kind._fields))  # type: ignore[attr-defined]
    made = cast("Callable[..., Request]", make or kind)
    return Shape(kind, (U63, *checks), _asked(made), names=names)


_SECONDS: Final = codec.uint(limits.U32_MAX)
SHAPES: Final[dict[int, Shape]] = {
    1: _shape(Create, KIND, codec.boolean, make=lambda kind, listed: Create(Kind(kind), listed)),
    2: _shape(SetTopic, TOPIC),
    3: _shape(SetTitle, TITLE),
    4: _shape(SetKind, KIND, codec.boolean, make=lambda kind, listed: SetKind(Kind(kind), listed)),
    5: _shape(SetRole, NAME, ROLE, make=lambda handle, role: SetRole(handle, Role(role))),
    6: _shape(Invite, NAME),
    7: _shape(Kick, NAME, REASON),
    8: _shape(Ban, NAME, _SECONDS, REASON),
    9: _shape(Unban, NAME),
    10: _shape(Mute, NAME, _SECONDS, REASON),
    11: _shape(Unmute, NAME),
    12: _shape(Close),
    13: _shape(Reopen),
    14: _shape(Enter),
    15: _shape(Leave),
    16: _shape(Redact, POSITIVE, REASON),
    17: _shape(Delete, REASON),
    18: _shape(SetKeep, U63, U63, U63),
    23: _shape(Depart),
    24: _shape(Show, codec.text(limits.NAME_CHARS_MAX)),
    25: _shape(List, codec.uint(PARTITIONS - 1), codec.text(limits.NAME_CHARS_MAX)),
    26: _shape(Mine, codec.text(limits.NAME_CHARS_MAX)),
}
BETWEEN_WORKERS: Final = frozenset({Depart})
"""What only workers request."""
OF_CLIENTS: Final = {n: shape for n, shape in SHAPES.items() if shape.type not in BETWEEN_WORKERS}
_NUMBER_OF: Final = {shape.type: number for number, shape in SHAPES.items()}
_SCHEMA: Final = codec.Schema(SHAPES, count_max=1, array_max=limits.ENVELOPE_FIELDS_MAX)
REQUEST_BYTES_MAX: Final = 1024

assert limits.ROOM_TOPIC_BYTES_MAX + 64 < REQUEST_BYTES_MAX


def pack(request: Request, seen: int) -> bytes:
    """Return a request's bytes."""
    return codec.pack((_NUMBER_OF[type(request)], seen, *request))


def unpack(body: bytes) -> Asked:
    """Return the request encoded in some bytes.

    Raises:
        EnvelopeError: they are invalid, or belong to a later version.
    """
    found = _SCHEMA.unpack(body)
    if len(found) != 1 or isinstance(found[0], codec.Unknown):
        raise EnvelopeError("an unknown request about a room")
    return cast("Asked", found[0])


def named(request: Request) -> str:
    """Return the handle of the user that a request is about; empty: none."""
    match request:
        case (
            SetRole(handle=handle)
            | Invite(handle=handle)
            | Kick(handle=handle)
            | Ban(handle=handle)
            | Unban(handle=handle)
            | Mute(handle=handle)
            | Unmute(handle=handle)
        ):
            return handle
        case _:
            return ""
