"""Decisions about rooms: (state, actor, request, now) -> the event to store, None, or a refusal.

None: the effect exists already, and repeating the request succeeds. The order of checks: whether
the actor may do it, whether the effect exists already, and whether somebody else has changed the
same thing since the actor looked. The same change by the same device is no reason to refuse: a
request that is repeated because its answer was lost finds its own effect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from relay.chat import names
from relay.chat.rooms import events
from relay.chat.rooms.events import Event, Kind, Role
from relay.chat.rooms.refusal import Reason, Refused
from relay.chat.rooms.requests import (
    Ban,
    Change,
    Close,
    Create,
    Delete,
    Depart,
    Enter,
    Invite,
    Kick,
    Leave,
    Mute,
    Redact,
    Reopen,
    SetKeep,
    SetKind,
    SetRole,
    SetTitle,
    SetTopic,
    Unban,
    Unmute,
    named,
)
from relay.chat.rooms.rights import (
    Actor,
    Right,
    disclosure_refusal,
    rank,
    rank_of,
    refusal,
    role_of,
)
from relay.chat.rooms.state import MEMBERS_MAX, PEOPLE_MAX, Person, Room

_NEEDS: Final[dict[type[Change], Right]] = {
    SetTopic: Right.TOPIC,
    SetTitle: Right.TOPIC,
    SetKind: Right.MANAGE,
    SetRole: Right.MANAGE,
    Invite: Right.INVITE,
    Kick: Right.MODERATE,
    Ban: Right.MODERATE,
    Unban: Right.MODERATE,
    Mute: Right.MODERATE,
    Unmute: Right.MODERATE,
    Close: Right.MANAGE,
    Reopen: Right.MANAGE,
    SetKeep: Right.MANAGE,
    Enter: Right.ENTER,
    Delete: Right.MANAGE,
}
"""Create, Leave and Depart need no right."""
_LAST_OWNER: Final = "the last owner: somebody else, who is a member, has to be owner first"


class Context(NamedTuple):
    """What a decision needs in addition to the state and the request."""

    actor: Actor
    seen: int
    """The last control entry that the actor has seen."""
    now_ms: int
    """By a clock that does not jump."""
    head: int = 0
    """The last entry of the log; 0: there is none."""
    subject: bytes = b""
    """The root of the account that the request names; empty: a guest."""
    anyone_creates: bool = True
    """False: only operators create rooms."""
    own_event: Callable[[int], Event | None] = lambda _: None
    """Returns the event of a control entry if the device that requests this has made it."""


def decide(room: Room, request: Change, context: Context) -> Event | None:
    """Decide about a change of a room.

    Raises:
        Refused: with the reason.
    """
    if isinstance(request, Create):
        return _create(room, request, context)
    own_deletion = room.deleted and isinstance(request, Delete)
    if own_deletion and isinstance(context.own_event(room.version), events.Deleted):
        return None
    if room.deleted or not context.head:
        raise Refused(Reason.NO_SUCH_ROOM, "there is no such room")
    needed = _NEEDS.get(type(request))
    if needed is not None:
        refused = refusal(room, context.actor, needed)
        if refused is not None:
            raise refused
    handle = named(request)
    if handle:
        return _about_person(room, request, handle, context)
    event, subject_seq = _about_room(room, request, context)
    return None if event is None else _as_seen(event, subject_seq, context)


def check_redact(room: Room, actor: Actor, request: Redact, head: int) -> None:
    """Check a redaction as far as possible before its turn in the log.

    Raises:
        Refused: with the reason.
    """
    if room.deleted or not head:
        raise Refused(Reason.NO_SUCH_ROOM, "there is no such room")
    refused = disclosure_refusal(room, actor)
    if refused is not None:
        raise refused
    _check_text(request.reason)
    if not room.floor < request.seq <= head:
        raise Refused(Reason.NO_SUCH_ENTRY, "there is no such message")


def may_begin(actor: Actor, *, anyone_creates: bool) -> Refused | None:
    """Return why an actor may not create a room; None: they may."""
    if anyone_creates or actor.operator:
        return None
    return Refused(Reason.NOT_ALLOWED, "only operators create rooms on this server")


def _create(room: Room, request: Create, context: Context) -> Event | None:
    actor = context.actor
    refused = may_begin(actor, anyone_creates=context.anyone_creates)
    if refused is not None:
        raise refused
    if not room.deleted and context.head:
        untouched = room.created == room.version and role_of(room, actor) is Role.OWNER
        if untouched and (room.kind, room.listed) == request:
            return None  # repeated: the answer was lost
        raise Refused(Reason.EXISTS, "a room of this name exists")
    if not actor.root and request.kind is not Kind.PUBLIC:
        raise Refused(Reason.NOT_ALLOWED, "a guest cannot own a room")
    return events.Created(request.kind, request.listed, actor.root)


def _about_room(room: Room, request: Change, context: Context) -> tuple[Event | None, int]:
    """Return the event, and the seq of the last entry about the same thing."""
    actor = context.actor
    match request:
        case SetTopic(topic=topic):
            _check_text(topic)
            return None if topic == room.topic else events.TopicSet(topic), room.topic_seq
        case SetTitle(title=title):
            if not names.is_display(title):
                raise Refused(Reason.BAD_REQUEST, "the title has characters not allowed")
            return None if title == room.title else events.TitleSet(title), room.title_seq
        case SetKind(kind=kind, listed=listed):
            if (kind, listed) == (room.kind, room.listed):
                return None, 0
            if room.kind is Kind.PRIVATE and kind is not Kind.PRIVATE:
                raise Refused(Reason.BAD_REQUEST, "a private room stays private")
            return events.KindSet(kind, listed), room.kind_seq
        case Close():
            return None if room.closed else events.Closed(True), room.closed_seq
        case Reopen():
            return events.Closed(False) if room.closed else None, room.closed_seq
        case SetKeep():
            keep = tuple(request)
            return None if keep == room.keep else events.KeepSet(*request), room.keep_seq
        case Enter():
            role = role_of(room, actor)
            if role >= Role.MEMBER and room.people[actor.handle].lasting:
                return None, 0
            if role is Role.NONE:
                _check_space(room, room.people.get(actor.handle, Person(b"")), member=True)
            return events.Entered(actor.root), 0
        case Leave():
            role = role_of(room, actor)
            if role is Role.NONE:
                return None, 0
            if role is Role.OWNER and _is_last_owner(room, actor.handle):
                raise Refused(Reason.BAD_REQUEST, _LAST_OWNER)
            return events.Left(), 0
        case Depart():
            return None if role_of(room, actor) is Role.NONE else events.Left(), 0
        case Delete(reason=reason):
            _check_text(reason)
            return events.Deleted(reason), room.created
        case _:
            raise AssertionError(request)


def _about_person(room: Room, request: Change, handle: str, context: Context) -> Event | None:
    actor, subject = context.actor, context.subject
    if not names.is_handle(handle) and not names.is_guest(handle):
        raise Refused(Reason.BAD_REQUEST, "not the name of a person")
    person = room.people.get(handle, Person(subject))
    role = person.role if person.root == subject else Role.NONE
    own = handle == actor.handle
    if own and isinstance(request, Kick | Ban | Mute):  # an operator's rank is above their role
        raise Refused(Reason.NOT_ALLOWED, "you cannot do that to yourself")
    if rank(room, actor) <= rank_of(role) and not (own and isinstance(request, SetRole)):
        same = "you cannot do that to yourself" if own else "this person's role is not below yours"
        raise Refused(Reason.NOT_ALLOWED, same)
    event = _person_event(room, request, person, role, context)
    return None if event is None else _as_seen(event, room.seq_of(handle), context)


def _person_event(
    room: Room, request: Change, person: Person, role: Role, context: Context
) -> Event | None:
    subject = context.subject
    match request:
        case SetRole(handle=handle, role=wanted):
            if wanted == role:
                return None
            if wanted is Role.INVITED or (wanted is not Role.NONE and not subject):
                raise Refused(Reason.BAD_REQUEST, "that role cannot be given to this person")
            _check_not_banned(person)
            own = handle == context.actor.handle
            last = role is Role.OWNER and _is_last_owner(room, handle)
            if last and (own or not context.actor.operator):
                raise Refused(Reason.BAD_REQUEST, _LAST_OWNER)
            if role is Role.NONE:
                _check_space(room, person, member=True)
            return events.RoleSet(handle, subject, wanted)
        case Invite(handle=handle):
            if role is not Role.NONE:
                return None
            if not subject:
                raise Refused(Reason.BAD_REQUEST, "a guest cannot be a member")
            _check_not_banned(person)
            _check_space(room, person, member=True)
            return events.Invited(handle, subject)
        case Kick(handle=handle, reason=reason):
            _check_text(reason)
            return events.Kicked(handle, reason)
        case Ban(handle=handle, seconds=seconds, reason=reason):
            _check_text(reason)
            until_ms = _until_ms(context.now_ms, seconds)
            if person.banned and not person.until_ms and not seconds:
                return None
            _check_space(room, person, member=False)
            return events.Banned(handle, subject, until_ms, reason)
        case Unban(handle=handle):
            return events.Freed(handle) if person.banned else None
        case Mute(handle=handle, seconds=seconds, reason=reason):
            _check_text(reason)
            _check_not_banned(person)
            until_ms = _until_ms(context.now_ms, seconds)
            if person.muted and not person.until_ms and not seconds:
                return None
            _check_space(room, person, member=False)
            return events.Muted(handle, subject, until_ms, reason)
        case Unmute(handle=handle):
            return events.Freed(handle) if person.muted else None
        case _:
            raise AssertionError(request)


def ended(room: Room, now_ms: int) -> list[Event]:
    """Return the events that end expired bans and mutes."""
    return [
        events.Freed(handle)
        for handle, person in room.people.items()
        if person.until_ms and person.until_ms <= now_ms
    ]


def _is_last_owner(room: Room, handle: str) -> bool:
    return room.owners == 1 and room.people[handle].lasting


def _until_ms(now_ms: int, seconds: int) -> int:
    return now_ms + seconds * 1000 if seconds else 0


def _as_seen(event: Event, subject_seq: int, context: Context) -> Event | None:
    """Return the event, or None if it is there by the first of two equal requests.

    Raises:
        Refused: another one has changed the same thing since the actor looked.
    """
    if subject_seq <= context.seen:
        return event
    last = context.own_event(subject_seq)
    if last == event:
        return None
    if _without_end(last) == _without_end(event):
        return event  # its time begins anew
    raise Refused(Reason.CHANGED, "somebody else has changed that meanwhile: look again")


def _without_end(event: Event | None) -> Event | None:
    """Return an event without the time at which it ends, which differs if it is requested again."""
    if isinstance(event, events.Banned | events.Muted) and event.until_ms:
        return event._replace(until_ms=1)
    return event


def _check_not_banned(person: Person) -> None:
    if person.banned:
        raise Refused(Reason.BAD_REQUEST, "this person is banned: unban first")


def _check_space(room: Room, person: Person, *, member: bool) -> None:
    """Check that there is space for another member, and for a record of this person."""
    if member and sum(one.role is not Role.NONE for one in room.people.values()) >= MEMBERS_MAX:
        raise Refused(Reason.LIMIT, f"the room has {MEMBERS_MAX} members, which is the limit")
    if person.matters:
        return  # there is a record: a full one must not protect those who are in it
    if sum(one.matters for one in room.people.values()) >= PEOPLE_MAX:
        raise Refused(
            Reason.LIMIT, f"the room has a record of {PEOPLE_MAX} people, which is the limit"
        )


def _check_text(text: str) -> None:
    if not all(char.isprintable() for char in text):
        raise Refused(Reason.BAD_REQUEST, "the text has characters not allowed")
