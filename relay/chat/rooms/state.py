"""The state of a room: a fold over the control entries of its log."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, cast

from relay import codec
from relay.chat.fields import NAME, ROOT, U63
from relay.chat.rooms.events import (
    KIND,
    ROLE,
    TITLE,
    TOPIC,
    Banned,
    Closed,
    Created,
    Deleted,
    Entered,
    Event,
    Freed,
    Invited,
    KeepSet,
    Kicked,
    Kind,
    KindSet,
    Left,
    Muted,
    Role,
    RoleSet,
    TitleSet,
    TopicSet,
)
from relay.errors import EnvelopeError

MEMBERS_MAX: Final = 1000
"""Permanent members of one room, and invited users. Anybody else may follow a public one."""
PEOPLE_MAX: Final = 1500
"""Including banned or muted users. The state of a room takes about 80 bytes for each."""
REMEMBERED_MAX: Final = 64
"""Users without any role or restriction, for whom it is still known since when."""


class Person(NamedTuple):
    """What a room knows about a user."""

    root: bytes
    """Of the account; roles belong to it. Empty: a guest's."""
    role: Role = Role.NONE
    muted: bool = False
    banned: bool = False
    until_ms: int = 0
    """When a mute or ban ends; 0: when it is lifted."""
    seq: int = 0
    """Of the last control entry about this user."""
    given: bool = False
    """True if the role was given to a user who was no member and has not entered since."""

    @property
    def lasting(self) -> bool:
        """True for a permanent member.

        Nobody becomes one by what somebody else does: a role that was given counts for rights only.
        """
        return self.role >= Role.MEMBER and not self.given

    @property
    def matters(self) -> bool:
        """False: the room only knows since when the user has no role."""
        return self.role is not Role.NONE or self.muted or self.banned


PERSON_BYTES: Final = 96
"""Maximum packed size of each."""
PACKED_BYTES_MAX: Final = (PEOPLE_MAX + REMEMBERED_MAX) * PERSON_BYTES + 2048
NOBODY: Final[Mapping[str, Person]] = MappingProxyType({})


class Room(NamedTuple):
    """The state of a room. Immutable: an event creates another one.

    The state of a room from before rooms had one: public, without an owner.
    """

    created: int = 0
    """The seq of its create entry; 0: there is none."""
    version: int = 0
    """The seq of the last control entry."""
    kind: Kind = Kind.PUBLIC
    listed: bool = True
    title: str = ""
    topic: str = ""
    closed: bool = False
    deleted: bool = False
    title_seq: int = 0
    """Of the last control entry about the title; the others correspondingly."""
    topic_seq: int = 0
    kind_seq: int = 0
    closed_seq: int = 0
    forgotten_seq: int = 0
    """Upper bound for the last control entry about any user no longer in ``people``."""
    keep_seq: int = 0
    """As ``title_seq``."""
    keep: tuple[int, int, int] = (0, 0, 0)
    """How long messages are kept: seconds, messages, bytes; 0: as in the server's settings."""
    people: Mapping[str, Person] = NOBODY
    """By handle."""

    @property
    def everybody_writes(self) -> bool:
        """True if messages need no check of rights."""
        return (
            self.kind is Kind.PUBLIC
            and not self.closed
            and not self.deleted
            and not any(one.muted or one.banned for one in self.people.values())
        )

    @property
    def floor(self) -> int:
        """The seq up to which the log belongs to earlier, deleted rooms of this name."""
        return self.version if self.deleted else max(self.created - 1, 0)

    @property
    def due_ms(self) -> int:
        """When the first ban or mute expires; 0: none does."""
        return min((one.until_ms for one in self.people.values() if one.until_ms), default=0)

    @property
    def owners(self) -> int:
        """Number of owners who are permanent members."""
        return sum(one.role is Role.OWNER and one.lasting for one in self.people.values())

    @property
    def members(self) -> int:
        """Number of permanent members, without invited users."""
        return sum(one.role >= Role.MEMBER for one in self.people.values())

    def seq_of(self, handle: str) -> int:
        """Return the seq of the last control entry about a user, or a greater one."""
        person = self.people.get(handle)
        return self.forgotten_seq if person is None else person.seq


def applied(room: Room, event: Event | None, sender: str, seq: int) -> Room:
    """Return the room after one control entry of its log. None: an event of a later version."""
    after = room._replace(version=seq)
    match event:
        case Created(kind=kind, listed=listed, root=root):
            people = {sender: Person(root, Role.OWNER, seq=seq)} if root else {}
            seqs = seq, seq, seq, seq, seq, seq
            return Room(seq, seq, kind, listed, "", "", False, False, *seqs, people=people)
        case TopicSet(topic=topic):
            return after._replace(topic=topic, topic_seq=seq)
        case TitleSet(title=title):
            return after._replace(title=title, title_seq=seq)
        case KindSet(kind=kind, listed=listed):
            return after._replace(kind=kind, listed=listed, kind_seq=seq)
        case RoleSet(handle=handle, root=root, role=role):
            known = _known(room, handle, root)
            new = known.given or known.role < Role.MEMBER
            given = role >= Role.MEMBER and new and handle != sender
            return _with(after, handle, known._replace(role=role, seq=seq, given=given))
        case Invited(handle=handle, root=root):
            known = _known(room, handle, root)
            return _with(after, handle, known._replace(role=Role.INVITED, seq=seq, given=False))
        case Kicked(handle=handle):
            known = room.people.get(handle, Person(b""))
            return _with(after, handle, known._replace(role=Role.NONE, seq=seq, given=False))
        case Banned(handle=handle, root=root, until_ms=until_ms):
            return _with(after, handle, Person(root, Role.NONE, False, True, until_ms, seq))
        case Muted(handle=handle, root=root, until_ms=until_ms):
            known = _known(room, handle, root)
            return _with(after, handle, known._replace(muted=True, until_ms=until_ms, seq=seq))
        case Freed(handle=handle):
            known = room.people.get(handle, Person(b""))
            freed = known._replace(muted=False, banned=False, until_ms=0, seq=seq)
            return _with(after, handle, freed)
        case Entered(root=root):
            known = _known(room, sender, root)
            role = max(known.role, Role.MEMBER)
            return _with(after, sender, known._replace(role=role, seq=seq, given=False))
        case Left():
            known = room.people.get(sender, Person(b""))
            return _with(after, sender, known._replace(role=Role.NONE, seq=seq, given=False))
        case KeepSet():
            return after._replace(keep=(*event,), keep_seq=seq)
        case Closed(closed=closed):
            return after._replace(closed=closed, closed_seq=seq)
        case Deleted():
            return Room(room.created, seq, room.kind, False, deleted=True, forgotten_seq=seq)
        case None:
            return after


def role_changes(before: Room, after: Room) -> tuple[tuple[str, bytes, int, bool], ...]:
    """Return (handle, root, role, lasting) of changed roles; role 0: none any more."""
    if before.people is after.people:
        return ()
    gone = [
        (handle, one.root, 0, False)
        for handle, one in before.people.items()
        if one.role and handle not in after.people
    ]
    changed = [
        (handle, one.root, int(one.role), one.lasting)
        for handle, one in after.people.items()
        if (was := before.people.get(handle)) is not one
        and (one.role or (was is not None and was.role))
    ]
    return (*gone, *changed)


def _known(room: Room, handle: str, root: bytes) -> Person:
    """Return what the room knows about an account; of an earlier one of the name only bans."""
    known = room.people.get(handle)
    if known is None:
        return Person(root)
    return known if known.root == root else known._replace(root=root, role=Role.NONE, given=False)


def _with(room: Room, handle: str, person: Person) -> Room:
    people = dict(room.people)
    people.pop(handle, None)
    people[handle] = person
    forgotten_seq = room.forgotten_seq
    if not person.matters:
        gone = [name for name, one in people.items() if not one.matters]
        if len(gone) > REMEMBERED_MAX:  # the first of them is the oldest
            forgotten_seq = max(forgotten_seq, people.pop(gone[0]).seq)
    return room._replace(people=people, forgotten_seq=forgotten_seq)


# --- encoding -----------------------------------------------------------------------------
def pack(room: Room) -> bytes:
    """Return a room's bytes."""
    people = [[handle, *_packed(person)] for handle, person in room.people.items()]
    return codec.pack((*room[:KEEP_AT], people, *room[KEEP_AT:-1]))


def _packed(person: Person) -> tuple[object, ...]:
    """Return what is stored: a last field that few have is left out, as before there was one."""
    return person if person.given else person[:GIVEN_AT]


KEEP: Final = (U63, codec.tuple_of(U63, U63, U63))
KEEP_AT: Final = Room._fields.index("keep_seq")
GIVEN_AT: Final = Person._fields.index("given")
PERSON: Final = (NAME, ROOT, ROLE, codec.boolean, codec.boolean, U63, U63)
_SHORT: Final = codec.tuple_of(*PERSON)
_LONG: Final = codec.tuple_of(*PERSON, codec.boolean)


def _person(value: object) -> bool:
    return _SHORT(value) or _LONG(value)


_ROOM: Final = (
    U63, U63, KIND, codec.boolean, TITLE, TOPIC, codec.boolean, codec.boolean,
    U63, U63, U63, U63, U63,
    codec.list_of(_person, PEOPLE_MAX + REMEMBERED_MAX),
    *KEEP,
)  # fmt: skip


def unpack(data: bytes) -> Room:
    """Return the room in some bytes; empty ones belong to a log without control entries.

    Raises:
        EnvelopeError: they are invalid.
    """
    if not data:
        return Room()
    try:
        fields = codec.unpack_array(data, _ROOM, array_max=PEOPLE_MAX + REMEMBERED_MAX)
        people_at = -len(KEEP) - 1
    except EnvelopeError:  # from before rooms had retention limits
        before = _ROOM[: -len(KEEP)]
        fields = codec.unpack_array(data, before, array_max=PEOPLE_MAX + REMEMBERED_MAX)
        people_at = -1
    rows = cast("list[tuple[str, bytes, int, bool]]", fields.pop(people_at))
    people = {handle: Person(root, Role(role), *rest) for handle, root, role, *rest in rows}
    return made(fields, people)


def made(fields: list[object], people: Mapping[str, Person]) -> Room:
    """Return the room for checked fields, in their order, without the last."""
    created, version, kind, *rest = fields
    if len(rest) > KEEP_AT - 3:
        rest[-1] = tuple(cast("list[int]", rest[-1]))
    else:
        rest += [0, (0, 0, 0)]
    return Room._make((created, version, Kind(cast("int", kind)), *rest, people))
