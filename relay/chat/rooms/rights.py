"""The rights in a room: the one function that every path calls. docs/trust.md has the table."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from enum import Flag, auto
from typing import Final, NamedTuple

from relay.chat.rooms.events import Kind, Role
from relay.chat.rooms.refusal import Reason, Refused
from relay.chat.rooms.state import Person, Room

_TIME_MS_MAX: Final = 253_402_214_400_000
"""One day before the year 10000, which datetime cannot express."""


class Right(Flag):
    """A right."""

    READ = auto()
    """Join, resume, follow, read history, see who is present."""
    WRITE = auto()
    """Send messages."""
    ENTER = auto()
    """Become a permanent member."""
    TOPIC = auto()
    """Set the topic and the displayed title."""
    INVITE = auto()
    MODERATE = auto()
    """Kick, ban and mute users of lower rank, and erase their messages."""
    MANAGE = auto()
    """Kind, roles, closing, deleting."""


NOTHING: Final = Right(0)
_MODERATOR: Final = Right.TOPIC | Right.INVITE | Right.MODERATE
_OWNER: Final = _MODERATOR | Right.MANAGE


class Actor(NamedTuple):
    """The requester."""

    handle: str
    root: bytes = b""
    """Of the account; empty: a guest's."""
    operator: bool = False
    """True if the account is an operator."""


def role_of(room: Room, actor: Actor) -> Role:
    """Return an account's role in a room. Roles of an earlier account of that name do not count."""
    person = room.people.get(actor.handle)
    if person is None or not actor.root or person.root != actor.root:
        return Role.NONE
    return person.role


def rights(room: Room, actor: Actor) -> Right:
    """Return all rights of an actor in a room."""
    person = room.people.get(actor.handle)
    kind = room.kind
    return _granted(
        role_of(room, actor),
        kind is Kind.PRIVATE,
        kind is Kind.ANNOUNCE,
        room.closed,
        room.deleted,
        person is not None and person.banned,
        person is not None and person.muted,
        bool(actor.root),
        actor.operator,
    )


@functools.cache  # a flag's operators are Python calls, and each member is checked at once
def _granted(
    role: Role,
    private: bool,
    announce: bool,
    closed: bool,
    deleted: bool,
    banned: bool,
    muted: bool,
    account: bool,
    operator: bool,
) -> Right:
    # but operator rights include neither reading nor writing
    found = _OWNER if operator else NOTHING
    if banned:
        return found
    if deleted:
        return found  # a client that has not noticed must not talk in another room of that name
    if not private or role is not Role.NONE:
        found |= Right.READ
        if account:
            found |= Right.ENTER
        writes = not announce or role >= Role.MODERATOR
        if writes and not closed and not muted:
            found |= Right.WRITE
    if role is Role.OWNER:
        found |= _OWNER
    elif role is Role.MODERATOR:
        found |= _MODERATOR
    return found


def refusal(room: Room, actor: Actor, right: Right) -> Refused | None:
    """Return why an actor may not do something; None: they may."""
    if right in rights(room, actor):
        return None
    if room.deleted:
        return Refused(Reason.NO_SUCH_ROOM, "the room was deleted")
    person = room.people.get(actor.handle)
    if person is not None and person.banned and not actor.operator:
        return Refused(Reason.BANNED, f"banned from this room{_until(person)}")
    if Right.READ not in rights(room, actor) and right in Right.READ | Right.WRITE | Right.ENTER:
        if person is not None and person.banned:
            return Refused(Reason.BANNED, f"banned from this room{_until(person)}")
        return Refused(Reason.MEMBERS_ONLY, "the room is private: somebody has to invite you")
    if right is Right.WRITE:
        if room.closed:
            return Refused(Reason.READ_ONLY, "the room is closed")
        if person is not None and person.muted:
            return Refused(Reason.MUTED, f"muted in this room{_until(person)}")
        return Refused(Reason.READ_ONLY, "only owners and moderators write here")
    if right is Right.ENTER:
        return Refused(Reason.NOT_ALLOWED, "a guest cannot be a member")
    who = "owners" if right is Right.MANAGE else "owners and moderators"
    return Refused(Reason.NOT_ALLOWED, f"only {who} may do that")


def _until(person: Person) -> str:
    """Describe when a ban or mute ends."""
    if not person.until_ms:
        return ""
    end = datetime.fromtimestamp(min(person.until_ms, _TIME_MS_MAX) / 1000, UTC)
    return f" until {end:%Y-%m-%d %H:%M:%S} UTC"


def disclosure_refusal(room: Room, actor: Actor) -> Refused | None:
    """Return why an actor may not know what a room contains; None: they may.

    An actor who may erase what they may not read (an operator) may know what can be erased.
    """
    return None if Right.MODERATE in rights(room, actor) else refusal(room, actor, Right.READ)


def redaction_refusal(room: Room, actor: Actor, author: str, *, own: bool) -> Refused | None:
    """Return why an actor may not erase an entry of a room; None: they may.

    Args:
        room: as it is.
        actor: the requester.
        author: the author of the entry.
        own: True if it is the actor's own.
    """
    hidden = disclosure_refusal(room, actor)
    if hidden is not None:
        return hidden
    refused = refusal(room, actor, Right.MODERATE)
    if own:
        return None if refused is None else refusal(room, actor, Right.WRITE)
    if refused is not None:
        return refused
    person = room.people.get(author)
    if person is not None and rank(room, actor) <= rank_of(person.role):
        return Refused(Reason.NOT_ALLOWED, "this person's role is not below yours")
    return None


def rank(room: Room, actor: Actor) -> int:
    """Return an actor's rank: their power covers lower ranks only."""
    if actor.operator:
        return int(Role.OWNER) + 1
    return rank_of(role_of(room, actor))


def rank_of(role: Role) -> int:
    """Return the rank of a role: roles without power have none."""
    return int(role) if role >= Role.MODERATOR else 0
