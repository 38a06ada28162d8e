"""Requests about rooms, and their results, without I/O, for both clients."""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from relay import limits
from relay.chat import names
from relay.chat.rooms import requests, shown
from relay.chat.rooms import state as states
from relay.chat.rooms.events import Kind, Role
from relay.client import arguments
from relay.client.refusals import refused
from relay.wire.codes import ErrorCode

RoomKind: TypeAlias = Literal["public", "private", "announce"]
"""public: everybody reads and writes; private: members; announce: everybody reads, owners and
moderators write."""
RoomRole: TypeAlias = Literal["none", "invited", "member", "moderator", "owner"]
RoomAction: TypeAlias = Literal[
    "topic", "title", "kind", "role", "invite", "kick", "ban", "unban", "mute", "unmute", "close",
    "reopen", "enter", "leave", "keep", "redact", "delete",
]  # fmt: skip
"""The possible actions in a room."""
KINDS: Final[dict[RoomKind, Kind]] = {
    "public": Kind.PUBLIC,
    "private": Kind.PRIVATE,
    "announce": Kind.ANNOUNCE,
}
ROLES: Final[dict[RoomRole, Role]] = {
    "none": Role.NONE,
    "invited": Role.INVITED,
    "member": Role.MEMBER,
    "moderator": Role.MODERATOR,
    "owner": Role.OWNER,
}
KIND_NAMES: Final = {kind: name for name, kind in KINDS.items()}
ROLE_NAMES: Final = {role: name for name, role in ROLES.items()}
ABOUT_PERSONS: Final = frozenset({"role", "invite", "kick", "ban", "unban", "mute", "unmute"})


class RoomPerson(NamedTuple):
    """A user known to a room."""

    name: str
    role: RoomRole
    muted: bool
    banned: bool
    until_ms: int
    """When a mute or ban ends, ms since 1970; 0: when it is lifted."""


class RoomInfo(NamedTuple):
    """The state of a room."""

    name: str
    kind: RoomKind
    listed: bool
    """Whether lists show it to users who are not members."""
    title: str
    """The displayed name; empty: the name itself."""
    topic: str
    closed: bool
    """True if nobody may write."""
    version: int
    """The number of the last change: ``seen`` of ``change_room`` is compared with it."""
    people: tuple[RoomPerson, ...]
    """Permanent members, and invited, muted and banned users; not everybody who is connected."""
    keep: tuple[int, int, int] = (0, 0, 0)
    """How long messages are kept: seconds, messages, bytes; 0: as in the server's settings."""
    identity: bytes = b""
    """Which of the rooms that had this name one after another: ``room_identity`` of ``send``."""


class ListedRoom(NamedTuple):
    """A room in a list."""

    name: str
    kind: RoomKind
    title: str
    topic: str
    closed: bool
    role: RoomRole
    """Of this account."""
    members: int
    """Number of permanent members."""
    last_seq: int
    """The number of its last entry."""
    unread: int = 0
    """For a room in which this account has a role: the number of messages of others after its read
    mark (``mark_read``, by any device), or, without a mark, since it has had that role. Counted in
    the newest 1000 entries of the room."""


def checked_kind(value: object) -> Kind:
    """Return a kind of room. Raises TypeError, ValueError."""
    return KINDS[arguments.word("kind", value, KINDS)]


def checked_role(value: object) -> Role:
    """Return a role that can be assigned. Raises TypeError, ValueError."""
    return ROLES[arguments.word("role", value, (name for name in ROLES if name != "invited"))]


def checked_room(value: object) -> str:
    """Return the canonical spelling of a room's name. Raises NameInvalid, TypeError."""
    room = arguments.room_name(value)
    if not names.is_room(room):
        raise refused(ErrorCode.NAME_INVALID, 0, "not the name of a room")
    return room


def checked_person(value: object) -> str:
    """Return the canonical spelling of a user's name. Raises NameInvalid, TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"person must be a str, not {type(value).__name__}")
    name = names.normal(value.removeprefix("@"))
    if not names.is_handle(name) and not names.is_guest(name):
        raise refused(ErrorCode.NAME_INVALID, 0, "2 to 32 characters of a-z, 0-9, _ and -")
    return name


def change(
    action: RoomAction,
    *,
    person: str | None,
    text: str,
    seconds: float,
    kind: RoomKind | None,
    listed: bool,
    role: RoomRole | None,
    seq: int,
    keep: tuple[int, int, int],
) -> requests.Request:
    """Return the request for an action.

    Raises:
        ValueError, TypeError, NameInvalid: an argument; nothing was sent.
    """
    arguments.word("action", action, get_args(RoomAction))
    if action in ABOUT_PERSONS and person is None:
        raise ValueError(f"{action} needs person")
    who = "" if person is None else checked_person(person)
    most = limits.ROOM_TOPIC_BYTES_MAX if action == "topic" else limits.ROOM_REASON_BYTES_MAX
    if action == "title":
        most = limits.DISPLAY_NAME_CHARS_MAX
    words = arguments.short_text("text", text, most, max(most, limits.ROOM_TITLE_BYTES_MAX))
    if len(words.encode()) > most and action != "title":
        raise ValueError(f"text has {len(words.encode())} bytes; at most {most} are allowed")
    span = math.ceil(arguments.number("seconds", seconds, limits.U32_MAX))
    match action:
        case "topic":
            return requests.SetTopic(words)
        case "title":
            return requests.SetTitle(words)
        case "kind":
            return requests.SetKind(checked_kind(kind), arguments.flag("listed", listed))
        case "role":
            return requests.SetRole(who, checked_role(role))
        case "invite":
            return requests.Invite(who)
        case "kick":
            return requests.Kick(who, words)
        case "ban":
            return requests.Ban(who, span, words)
        case "unban":
            return requests.Unban(who)
        case "mute":
            return requests.Mute(who, span, words)
        case "unmute":
            return requests.Unmute(who)
        case "close":
            return requests.Close()
        case "reopen":
            return requests.Reopen()
        case "enter":
            return requests.Enter()
        case "leave":
            return requests.Leave()
        case "keep":
            return requests.SetKeep(*arguments.bounds("keep", keep))
        case "redact":
            return requests.Redact(arguments.integer("seq", seq, 1, limits.U63_MAX), words)
        case "delete":
            return requests.Delete(words)


def as_info(name: str, parts: list[shown.Shown]) -> RoomInfo:
    """Return the state of a room from its answers."""
    room = parts[0].room
    people = tuple(
        as_person(handle, person) for part in parts for handle, person in part.room.people.items()
    )
    return RoomInfo(
        name, KIND_NAMES[room.kind], room.listed, room.title, room.topic, room.closed,
        room.version, people, room.keep, parts[0].identity,
    )  # fmt: skip


def as_person(handle: str, person: states.Person) -> RoomPerson:
    """Return a user of a room as a program sees it."""
    role = ROLE_NAMES[person.role]
    return RoomPerson(handle, role, person.muted, person.banned, person.until_ms)


def as_listed(found: shown.Listed, unread: int = 0) -> ListedRoom:
    """Return a listed room as a program sees it."""
    name, kind, title, topic, closed, role, members, last_seq, _ = found
    return ListedRoom(
        name, KIND_NAMES[kind], title, topic, closed, ROLE_NAMES[role], members, last_seq, unread
    )
