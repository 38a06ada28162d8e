"""The answers to requests about rooms: the public state of a room, and which room it is."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias, cast

from relay import codec, limits
from relay.chat.fields import EPOCH, NAME, U63
from relay.chat.rooms.events import KIND, ROLE, TITLE, TOPIC, Kind, Role
from relay.chat.rooms.rights import Actor, Right, rights, role_of
from relay.chat.rooms.state import GIVEN_AT, KEEP, KEEP_AT, PERSON, Person, Room, made

PEOPLE_PER_ANSWER: Final = 200
"""About 20 KB."""
ROOMS_PER_ANSWER: Final = 25
"""About 20 KB, with the longest topics."""
UNREAD_LOOKED_AT: Final = 1000
"""Newest entries of a room in which unread messages are counted: about 3 ms. To a person, more than
a few hundred is "many"."""


class Shown(NamedTuple):
    """A part of a room's state."""

    room: Room
    """With only the users of this part."""
    end: bool
    """True if there are no further users."""
    identity: bytes
    """Which of the rooms of this name it is: see ``chat.entries.Submission``."""


class Listed(NamedTuple):
    """A room in a list."""

    name: str
    kind: Kind
    title: str
    topic: str
    closed: bool
    role: Role
    """Of the requester."""
    members: int
    """Number of permanent members."""
    last_seq: int
    """Of its last entry."""
    version: int
    """The seq of its last control entry."""


class Own(NamedTuple):
    """A room in which the requester has a role."""

    room: Listed
    read_epoch: bytes
    """With ``read_seq``: the read mark; 8 zeros and 0: none."""
    read_seq: int
    unread: int
    """Messages of others after that, among the newest UNREAD_LOOKED_AT entries."""


_IDENTITY: Final = (EPOCH,)


def pack_identity(identity: bytes) -> bytes:
    """Return the packed answer to ``Create`` and ``Enter``: see ``chat.entries.Submission``."""
    return codec.pack((identity,))


def unpack_identity(data: bytes) -> bytes:
    """Return the identity of the room that was created or entered.

    Raises:
        EnvelopeError: it is invalid.
    """
    return cast("bytes", codec.unpack_array(data, _IDENTITY, array_max=len(_IDENTITY))[0])


def pack(room: Room, after: str, identity: bytes) -> bytes:
    """Return the packed answer to ``Show``: the users whose handles are above ``after``."""
    people = sorted(handle for handle, one in room.people.items() if one.matters and handle > after)
    page = [[handle, *room.people[handle][:GIVEN_AT]] for handle in people[:PEOPLE_PER_ANSWER]]
    end = len(people) <= PEOPLE_PER_ANSWER
    return codec.pack((*room[:KEEP_AT], page, end, *room[KEEP_AT:-1], identity))


_SHOWN: Final = (
    U63, U63, KIND, codec.boolean, TITLE, TOPIC, codec.boolean, codec.boolean,
    U63, U63, U63, U63, U63,
    codec.list_of(codec.tuple_of(*PERSON), PEOPLE_PER_ANSWER),
    codec.boolean,
    *KEEP,
    EPOCH,
)  # fmt: skip


def unpack(data: bytes) -> Shown:
    """Return the answer to ``Show``.

    Raises:
        EnvelopeError: it is invalid.
    """
    *fields, rows, end, keep_seq, keep, identity = codec.unpack_array(
        data, _SHOWN, array_max=PEOPLE_PER_ANSWER
    )
    fields += [keep_seq, keep]
    people = {
        handle: Person(root, Role(role), *rest)
        for handle, root, role, *rest in cast("list[tuple[str, bytes, int, bool]]", rows)
    }
    return Shown(made(fields, people), bool(end), cast("bytes", identity))


def listed(name: str, room: Room, last_seq: int, actor: Actor) -> Listed | None:
    """Return a room as an actor sees it in a list; None: it is hidden."""
    if room.deleted or Right.READ not in rights(room, actor):
        return None
    role = role_of(room, actor)
    if not room.listed and role is Role.NONE:
        return None
    return Listed(
        name, room.kind, room.title, room.topic, room.closed, role, room.members, last_seq,
        room.version,
    )  # fmt: skip


def pack_list(rooms: list[Listed], after: str, end: bool) -> bytes:
    """Return the packed answer to ``List``: where to continue, and whether there is more."""
    return codec.pack(([list(one) for one in rooms], after, end))


_LISTED: Final = (NAME, KIND, TITLE, TOPIC, codec.boolean, ROLE, U63, U63, U63)
_LIST: Final = (
    codec.list_of(codec.tuple_of(*_LISTED), ROOMS_PER_ANSWER),
    codec.text(limits.NAME_CHARS_MAX),
    codec.boolean,
)


def unpack_list(data: bytes) -> tuple[list[Listed], str, bool]:
    """Return the answer to ``List``.

    Raises:
        EnvelopeError: it is invalid.
    """
    found, after, end = codec.unpack_array(data, _LIST, array_max=ROOMS_PER_ANSWER)
    rooms = [_listed_of(row) for row in cast("list[_Row]", found)]
    return rooms, cast("str", after), bool(end)


_Row: TypeAlias = tuple[str, int, str, str, bool, int, int, int, int]


def _listed_of(row: _Row) -> Listed:
    name, kind, title, topic, closed, role, members, last_seq, version = row
    return Listed(name, Kind(kind), title, topic, closed, Role(role), members, last_seq, version)


def unread_after(room: Room, handle: str, floor: int) -> int:
    """Return the last entry that does not count as unread for a user with a role.

    Args:
        room: its state.
        handle: of the user.
        floor: where reading continues without a mark.
    """
    person = room.people[handle]
    begun = room.created if floor else max(room.created, person.seq)
    return max(floor, begun)


def pack_own(rooms: list[Own], after: str, end: bool) -> bytes:
    """Return the packed answer to ``Mine``; as for ``List``."""
    return codec.pack(([[*one.room, *one[1:]] for one in rooms], after, end))


_OWN: Final = (
    codec.list_of(codec.tuple_of(*_LISTED, EPOCH, U63, U63), ROOMS_PER_ANSWER),
    codec.text(limits.NAME_CHARS_MAX),
    codec.boolean,
)


def unpack_own(data: bytes) -> tuple[list[Own], str, bool]:
    """Return the answer to ``Mine``.

    Raises:
        EnvelopeError: it is invalid.
    """
    found, after, end = codec.unpack_array(data, _OWN, array_max=ROOMS_PER_ANSWER)
    rows = cast("list[tuple[Any, ...]]", found)
    rooms = [Own(_listed_of(cast("_Row", tuple(row[:9]))), *row[9:]) for row in rows]
    return rooms, cast("str", after), bool(end)
