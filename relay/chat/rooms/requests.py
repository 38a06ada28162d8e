"""The requests about a room, and how they travel.

From clients (the content of ROOM) and between workers it is the same: a msgpack array ``[number,
seen, field, ...]``. ``seen`` is the seq of the last control entry of the room that the asker has
seen: a change of what somebody else has changed since is refused (``Reason.CHANGED``).
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
"""As ``seen``: do it, whatever somebody else has done meanwhile."""


class Create(NamedTuple):
    """Begin a room, which the asker owns."""

    kind: Kind = Kind.PUBLIC
    listed: bool = True


class SetTopic(NamedTuple):
    """Set what the room is about."""

    topic: str


class SetTitle(NamedTuple):
    """Set how the room's name is shown."""

    title: str


class SetKind(NamedTuple):
    """Choose who may read and write, and whether the room is in lists."""

    kind: Kind
    listed: bool = True


class SetRole(NamedTuple):
    """Give somebody a role, or take it (``Role.NONE``)."""

    handle: str
    role: Role


class Invite(NamedTuple):
    """Let somebody in who may be a member then."""

    handle: str


class Kick(NamedTuple):
    """Put somebody out."""

    handle: str
    reason: str = ""


class Ban(NamedTuple):
    """Put somebody out and let them not come back, for so many seconds (0: without an end)."""

    handle: str
    seconds: int = 0
    reason: str = ""


class Unban(NamedTuple):
    """Take a ban back."""

    handle: str


class Mute(NamedTuple):
    """Let somebody not write, for so many seconds (0: without an end)."""

    handle: str
    seconds: int = 0
    reason: str = ""


class Unmute(NamedTuple):
    """Take that back."""

    handle: str


class Close(NamedTuple):
    """Let nobody write any more."""


class Reopen(NamedTuple):
    """Take that back."""


class SetKeep(NamedTuple):
    """Choose how long messages are kept; 0: as in the server's settings."""

    age_s: int
    messages: int
    bytes: int


class Enter(NamedTuple):
    """Become a lasting member: say yes to an invitation, or enter a room that is open to all."""


class Leave(NamedTuple):
    """Be none any more. An invitation is declined so."""


class Redact(NamedTuple):
    """Erase an entry of the log: it becomes an entry of kind *redaction*, and no event."""

    seq: int
    reason: str = ""


class Delete(NamedTuple):
    """End the room."""

    reason: str = ""


class Depart(NamedTuple):
    """Be none any more, as an only owner, too: the account is removed. Between workers alone."""


class Show(NamedTuple):
    """Tell the state, with the people whose handles are above ``after``."""

    after: str = ""


class List(NamedTuple):
    """Tell the rooms of a partition that the asker may see, from behind ``after`` on."""

    partition: int
    after: str


class Mine(NamedTuple):
    """Tell the rooms in which the asker has a role, and what of them is unread, from behind
    ``after`` on.
    """

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
_NUMBER_OF: Final = {shape.type: number for number, shape in SHAPES.items()}
_SCHEMA: Final = codec.Schema(SHAPES, count_max=1, array_max=limits.ENVELOPE_FIELDS_MAX)
REQUEST_BYTES_MAX: Final = 1024

assert limits.ROOM_TOPIC_BYTES_MAX + 64 < REQUEST_BYTES_MAX


def pack(request: Request, seen: int) -> bytes:
    """Return a request's bytes."""
    return codec.pack((_NUMBER_OF[type(request)], seen, *request))


def unpack(body: bytes) -> Asked:
    """Return the request of some bytes.

    Raises:
        EnvelopeError: they are none, or one of a later version.
    """
    found = _SCHEMA.unpack(body)
    if len(found) != 1 or isinstance(found[0], codec.Unknown):
        raise EnvelopeError("an unknown request about a room")
    return cast("Asked", found[0])


def named(request: Request) -> str:
    """Return the handle of the person that a request is about; empty: about nobody."""
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
