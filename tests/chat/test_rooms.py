"""Rooms: the table of permissions, decisions about requests, and the state folded from events."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.chat.rooms import events, requests, shown
from relay.chat.rooms import state as states
from relay.chat.rooms.decide import Context, check_redact, decide, ended
from relay.chat.rooms.events import Kind, Role
from relay.chat.rooms.refusal import Reason, Refused
from relay.chat.rooms.rights import Actor, Right, refusal, rights
from relay.chat.rooms.state import Person, Room
from relay.errors import EnvelopeError

ROOTS = {name: name.encode().ljust(32, b".") for name in ("ann", "bob", "cat", "dan", "eve")}
ANN, BOB, CAT, DAN, EVE = (Actor(name, root) for name, root in ROOTS.items())
OPERATOR = Actor("ops", b"o" * 32, operator=True)
GUEST = Actor("~bob")
READ, WRITE = Right.READ, Right.WRITE
MEMBER = READ | WRITE | Right.ENTER
MODERATOR = MEMBER | Right.TOPIC | Right.INVITE | Right.MODERATE
OWNER = MODERATOR | Right.MANAGE
POWER = Right.TOPIC | Right.INVITE | Right.MODERATE | Right.MANAGE
NOTHING = Right(0)
EPOCH = b"epoch..."


def room(kind: Kind = Kind.PUBLIC, **fields: object) -> Room:
    """Ann owns it, Bob moderates, Cat is a member, Dan is banned."""
    people = {
        "ann": Person(ROOTS["ann"], Role.OWNER, seq=1),
        "bob": Person(ROOTS["bob"], Role.MODERATOR, seq=2),
        "cat": Person(ROOTS["cat"], Role.MEMBER, seq=3),
        "dan": Person(ROOTS["dan"], banned=True, seq=4),
    }
    return Room(1, 4, kind, people=people)._replace(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "ann", "bob", "cat", "dan", "eve", "guest", "operator"),
    [
        (Kind.PUBLIC, OWNER, MODERATOR, MEMBER, NOTHING, MEMBER, READ | WRITE, MEMBER | POWER),
        (Kind.PRIVATE, OWNER, MODERATOR, MEMBER, NOTHING, NOTHING, NOTHING, POWER),
        (
            Kind.ANNOUNCE, OWNER, MODERATOR, READ | Right.ENTER, NOTHING, READ | Right.ENTER, READ,
            READ | Right.ENTER | POWER,
        ),
    ],
)  # fmt: skip
def test_the_table_of_rights(
    kind: Kind,
    ann: Right,
    bob: Right,
    cat: Right,
    dan: Right,
    eve: Right,
    guest: Right,
    operator: Right,
) -> None:
    """As in docs/trust.md."""
    found = [rights(room(kind), one) for one in (ANN, BOB, CAT, DAN, EVE, GUEST, OPERATOR)]
    assert found == [ann, bob, cat, dan, eve, guest, operator]


@pytest.mark.parametrize("kind", Kind)
def test_nobody_writes_in_a_closed_room(kind: Kind) -> None:
    closed = room(kind, closed=True)
    for actor in (ANN, BOB, CAT, DAN, EVE, GUEST, OPERATOR):
        assert WRITE not in rights(closed, actor)
    assert Right.MANAGE in rights(closed, ANN)


def test_roles_belong_to_an_account_and_bans_to_a_name() -> None:
    """The owner of a name after a reset has no role of the previous account."""
    other = Actor("ann", b"x" * 32)
    assert rights(room(), other) == MEMBER
    assert rights(room(Kind.PRIVATE), other) == NOTHING
    assert rights(room(), Actor("dan", b"x" * 32)) == NOTHING


def test_a_room_from_before_is_public_and_has_no_owner() -> None:
    assert rights(Room(), EVE) == MEMBER
    assert rights(Room(), OPERATOR) == MEMBER | POWER
    named = decided(Room(), requests.SetRole("ann", Role.OWNER), OPERATOR, subject=ANN)
    assert rights(states.applied(Room(), named, "ops", 9), ANN) == OWNER


def test_each_refusal_has_its_reason() -> None:
    muted = room()
    muted = muted._replace(people={**muted.people, "cat": Person(ROOTS["cat"], muted=True)})
    found = {
        (name, right): refused.reason
        for name, one, actor, right in (
            ("public", room(), DAN, READ),
            ("private", room(Kind.PRIVATE), EVE, READ),
            ("private", room(Kind.PRIVATE), EVE, WRITE),
            ("announce", room(Kind.ANNOUNCE), EVE, WRITE),
            ("closed", room(closed=True), ANN, WRITE),
            ("muted", muted, CAT, WRITE),
            ("public", room(), EVE, Right.MODERATE),
            ("public", room(), BOB, Right.MANAGE),
            ("public", room(), GUEST, Right.ENTER),
        )
        if (refused := refusal(one, actor, right)) is not None
    }
    assert found == {
        ("public", READ): Reason.BANNED,
        ("private", READ): Reason.MEMBERS_ONLY,
        ("private", WRITE): Reason.MEMBERS_ONLY,
        ("announce", WRITE): Reason.READ_ONLY,
        ("closed", WRITE): Reason.READ_ONLY,
        ("muted", WRITE): Reason.MUTED,
        ("public", Right.MODERATE): Reason.NOT_ALLOWED,
        ("public", Right.MANAGE): Reason.NOT_ALLOWED,
        ("public", Right.ENTER): Reason.NOT_ALLOWED,
    }


def decided(
    one: Room,
    request: requests.Change,
    actor: Actor,
    *,
    subject: Actor = EVE,
    seen: int = requests.ANYTHING_SEEN,
    head: int = 100,
    anyone: bool = True,
) -> events.Event | None:
    return decide(one, request, Context(actor, seen, 1000, head, subject.root, anyone))


def test_nobody_has_power_over_themselves_or_their_like() -> None:
    operator = ANN._replace(operator=True)  # may act on owners, and would lock itself out
    for name, actor, why in (("ann", ANN, "yourself"), ("bob", BOB, "yourself"),
                             ("ann", operator, "yourself"),
                             ("ann", BOB, "not below yours")):  # fmt: skip
        for request in (requests.Kick(name), requests.Ban(name), requests.Mute(name)):
            with pytest.raises(Refused, match=why):
                decided(room(), request, actor, subject=ANN if name == "ann" else BOB)


def refused(
    one: Room, request: requests.Change, actor: Actor, subject: Actor = EVE, **context: int
) -> Reason:
    with pytest.raises(Refused) as caught:
        decided(one, request, actor, subject=subject, **context)  # type: ignore[arg-type]
    return caught.value.reason


NEEDS: list[tuple[requests.Change, Right]] = [
    (requests.SetTopic("tea"), Right.TOPIC),
    (requests.SetTitle("Tea"), Right.TOPIC),
    (requests.SetKind(Kind.PRIVATE, listed=False), Right.MANAGE),
    (requests.SetRole("eve", Role.MEMBER), Right.MANAGE),
    (requests.Invite("eve"), Right.INVITE),
    (requests.Kick("eve"), Right.MODERATE),
    (requests.Ban("eve"), Right.MODERATE),
    (requests.Unban("dan"), Right.MODERATE),
    (requests.Mute("eve"), Right.MODERATE),
    (requests.Unmute("eve"), Right.MODERATE),
    (requests.Close(), Right.MANAGE),
    (requests.Reopen(), Right.MANAGE),
    (requests.SetKeep(1, 2, 3), Right.MANAGE),
    (requests.Enter(), Right.ENTER),
    (requests.Delete(), Right.MANAGE),
]


def test_each_request_needs_its_right() -> None:
    """A user without it is refused, whatever else the result would be."""
    without = {requests.Create, requests.Leave, requests.Depart}
    assert {type(one) for one, _ in NEEDS} | without == set(get_args(requests.Change))
    for request, right in NEEDS:
        subject = DAN if "dan" in request else EVE
        for kind, actor in itertools.product(Kind, (ANN, BOB, CAT, DAN, EVE, GUEST, OPERATOR)):
            for one in (room(kind), room(kind, closed=True)):
                if right in rights(one, actor):
                    continue
                reason = refused(one, request, actor, subject)
                assert reason in (Reason.NOT_ALLOWED, Reason.MEMBERS_ONLY, Reason.BANNED), request
        decided(room(), request, OPERATOR if right is not Right.ENTER else EVE, subject=subject)


def test_a_bar_gives_nobody_the_role_of_who_had_the_name_before() -> None:
    muted = states.applied(room(), events.Muted("bob", b"x" * 32, 0, ""), "ann", 10)
    assert (muted.people["bob"].role, muted.people["bob"].root) == (Role.NONE, b"x" * 32)


def test_nobody_reads_or_writes_in_a_deleted_room() -> None:
    gone = states.applied(room(), events.Deleted(""), "ann", 10)
    assert gone.people == {}
    for actor in (ANN, BOB, CAT, DAN, EVE, GUEST):
        assert rights(gone, actor) == NOTHING


def test_a_guest_creates_no_room_that_needs_an_owner() -> None:
    for kind in (Kind.PRIVATE, Kind.ANNOUNCE):
        assert refused(Room(), requests.Create(kind), GUEST, head=0) is Reason.NOT_ALLOWED
    made = decided(Room(), requests.Create(Kind.PUBLIC), GUEST, head=0)
    assert states.applied(Room(), made, "~bob", 1).people == {}


def test_a_room_is_created_once() -> None:
    made = decided(Room(), requests.Create(Kind.PRIVATE, False), ANN, head=0)
    assert made == events.Created(Kind.PRIVATE, False, ANN.root)
    begun = states.applied(Room(), made, "ann", 1)
    assert decided(begun, requests.Create(Kind.PRIVATE, False), ANN, head=1) is None
    assert refused(begun, requests.Create(Kind.PUBLIC, True), ANN, head=1) is Reason.EXISTS
    assert refused(begun, requests.Create(Kind.PRIVATE, False), BOB, head=1) is Reason.EXISTS
    only = refused(Room(), requests.Create(), ANN, head=0, anyone=False)
    assert only is Reason.NOT_ALLOWED


def test_power_ends_at_ones_own_rank() -> None:
    for subject, actor, reason in (
        (ANN, BOB, Reason.NOT_ALLOWED),
        (BOB, BOB, Reason.NOT_ALLOWED),
        (ANN, ANN, Reason.NOT_ALLOWED),
        (EVE, CAT, Reason.NOT_ALLOWED),
    ):
        for request in (
            requests.Kick(subject.handle),
            requests.Ban(subject.handle),
            requests.Mute(subject.handle),
        ):
            assert refused(room(), request, actor, subject) is reason
    banned = decided(room(), requests.Ban("cat", 60, "spam"), BOB, subject=CAT)
    assert banned == events.Banned("cat", CAT.root, 61_000, "spam")
    assert decided(room(), requests.Kick("ann"), OPERATOR, subject=ANN) is not None


def test_the_only_owner_stays() -> None:
    assert refused(room(), requests.Leave(), ANN) is Reason.BAD_REQUEST
    down = requests.SetRole("ann", Role.MEMBER)
    assert refused(room(), down, ANN, ANN) is Reason.BAD_REQUEST
    assert refused(room(), down, ANN._replace(operator=True), ANN) is Reason.BAD_REQUEST
    assert decided(room(), down, OPERATOR, subject=ANN) is not None
    shared = states.applied(room(), events.RoleSet("bob", BOB.root, Role.OWNER), "ann", 9)
    assert decided(shared, requests.Leave(), ANN) == events.Left()
    assert decided(shared, down, ANN, subject=ANN) is not None
    assert refused(shared, requests.SetRole("bob", Role.NONE), ANN, BOB) is Reason.NOT_ALLOWED


def test_nobody_becomes_a_permanent_member_by_what_others_do() -> None:
    """A role that is given counts for rights; it lasts once its owner has entered."""
    given = states.applied(room(), events.RoleSet("eve", EVE.root, Role.MEMBER), "ann", 9)
    assert not given.people["eve"].lasting
    given = states.applied(given, events.RoleSet("eve", EVE.root, Role.OWNER), "ann", 10)
    assert rights(given, EVE) == OWNER
    assert not given.people["eve"].lasting
    assert (given.owners, states.unpack(states.pack(given))) == (1, given)
    assert refused(given, requests.Leave(), ANN) is Reason.BAD_REQUEST
    assert decided(given, requests.Leave(), EVE) == events.Left(), "it was not asked for"
    entered = states.applied(given, decided(given, requests.Enter(), EVE), "eve", 11)
    assert rights(entered, EVE) == OWNER
    assert entered.people["eve"].lasting
    assert decided(entered, requests.Enter(), EVE) is None
    assert decided(entered, requests.Leave(), ANN) == events.Left()
    down = states.applied(entered, events.RoleSet("eve", EVE.root, Role.MEMBER), "ann", 12)
    assert down.people["eve"].lasting


def test_who_is_invited_enters_a_full_room() -> None:
    """They were counted when they were invited."""
    people = {f"m{n}": Person(b"m" * 32, Role.MEMBER, seq=5) for n in range(states.MEMBERS_MAX - 3)}
    full = room()._replace(people={**room().people, **people})
    invited = full._replace(people={**full.people, "m0": Person(EVE.root, Role.INVITED, seq=6)})
    assert refused(full, requests.Enter(), EVE) is Reason.LIMIT
    assert decided(invited, requests.Enter(), Actor("m0", EVE.root)) == events.Entered(EVE.root)


def test_a_private_room_stays_private() -> None:
    for kind in (Kind.PUBLIC, Kind.ANNOUNCE):
        for actor in (ANN, OPERATOR):
            wanted = requests.SetKind(kind)
            assert refused(room(Kind.PRIVATE), wanted, actor) is Reason.BAD_REQUEST


def test_what_is_so_already_needs_no_entry() -> None:
    for request, actor, subject in (
        (requests.SetTopic(""), ANN, EVE),
        (requests.SetRole("bob", Role.MODERATOR), ANN, BOB),
        (requests.Invite("cat"), BOB, CAT),
        (requests.Ban("dan"), BOB, DAN),
        (requests.Unban("cat"), BOB, CAT),
        (requests.Enter(), CAT, EVE),
        (requests.Leave(), EVE, EVE),
        (requests.Reopen(), ANN, EVE),
    ):
        assert decided(room(), request, actor, subject=subject, seen=0) is None, request


def test_two_moderators_cannot_undo_each_other_unseen() -> None:
    """CHANGED is per subject: a user, the topic."""
    one = states.applied(room(), events.TopicSet("tea"), "bob", 10)
    one = states.applied(one, events.Muted("eve", EVE.root, 0, ""), "bob", 11)
    assert refused(one, requests.SetTopic("coffee"), ANN, seen=9) is Reason.CHANGED
    assert decided(one, requests.SetTopic("coffee"), ANN, seen=10) is not None
    assert refused(one, requests.Unmute("eve"), ANN, EVE, seen=10) is Reason.CHANGED
    assert decided(one, requests.Ban("cat"), ANN, subject=CAT, seen=3) is not None
    gone = states.applied(one, events.Freed("eve"), "bob", 12)
    assert refused(gone, requests.Ban("eve"), ANN, EVE, seen=11) is Reason.CHANGED


def test_a_request_that_is_repeated_is_no_conflict() -> None:
    """Because its answer was lost: it finds its own effect. Another change of one's own is one."""
    ban = events.Banned("cat", CAT.root, 5000, "")
    one = states.applied(room(), ban, "ann", 10)
    again = requests.Ban("cat", 60)
    context = Context(ANN, 9, 1000, 100, CAT.root)
    with pytest.raises(Refused) as caught:
        decide(one, again, context)
    assert caught.value.reason is Reason.CHANGED
    own = context._replace(own_event={10: ban}.get)
    assert decide(one, again, own) == ban._replace(until_ms=61_000)
    for other in (requests.Ban("cat"), requests.Ban("cat", 60, "spam"), requests.Unban("cat")):
        with pytest.raises(Refused) as caught:
            decide(one, other, own)
        assert caught.value.reason is Reason.CHANGED
    named = states.applied(one, events.TopicSet("tea"), "ann", 11)
    own = context._replace(own_event={11: events.TopicSet("tea")}.get)
    with pytest.raises(Refused) as caught:
        decide(named, requests.SetTopic("cocoa"), own)
    assert caught.value.reason is Reason.CHANGED
    gone = states.applied(one, events.Deleted(""), "ann", 11)
    own = context._replace(own_event={11: events.Deleted("")}.get)
    assert decide(gone, requests.Delete(), own) is None


def test_a_room_is_deleted_once() -> None:
    """Nobody is told that they have deleted what somebody else has, and a repeated request does not
    delete a later room of the name.
    """
    gone = states.applied(room(), events.Deleted(""), "ann", 10)
    assert refused(gone, requests.Delete(), EVE) is Reason.NO_SUCH_ROOM
    anew = states.applied(gone, events.Created(Kind.PUBLIC, True, ANN.root), "ann", 11)
    assert refused(anew, requests.Delete(), ANN, seen=9) is Reason.CHANGED
    assert decided(anew, requests.Delete(), ANN, seen=11) == events.Deleted("")


def test_rights_come_before_whether_it_is_so_already() -> None:
    """The answer reveals nothing to a user without the permission."""
    assert refused(room(), requests.Ban("dan"), EVE, DAN) is Reason.NOT_ALLOWED
    assert refused(room(Kind.PRIVATE), requests.SetTopic(""), EVE) is Reason.NOT_ALLOWED


def test_bounds() -> None:
    people = {
        f"u{number}": Person(number.to_bytes(32, "big"), Role.MEMBER, seq=number)
        for number in range(states.MEMBERS_MAX - 1)
    }
    full = room()._replace(people={"ann": room().people["ann"], **people})
    assert refused(full, requests.Enter(), EVE) is Reason.LIMIT
    assert refused(full, requests.Invite("eve"), ANN) is Reason.LIMIT
    assert decided(full, requests.Ban("eve"), ANN) is not None
    barred = {f"b{number}": Person(b"b" * 32, banned=True) for number in range(500)}
    most = full._replace(people={**full.people, **barred})
    assert refused(most, requests.Ban("eve"), ANN) is Reason.LIMIT
    assert refused(most, requests.Mute("eve"), ANN) is Reason.LIMIT
    for request in (requests.Ban("u7"), requests.Mute("u7"), requests.Ban("b7", 60)):
        assert decided(most, request, ANN) is not None, "there is a record of them already"
    longest = {
        "h" * 28 + f"{n:04}": Person(b"r" * 32, Role.OWNER, True, True, 2**62, 2**62)
        for n in range(states.PEOPLE_MAX + states.REMEMBERED_MAX)
    }
    most = room(topic="t" * 400, title="i" * 256)._replace(people=longest)
    packed = states.pack(most)
    assert len(packed) <= states.PACKED_BYTES_MAX
    assert states.unpack(packed) == most


def test_those_who_are_nothing_any_more_are_forgotten_at_last() -> None:
    one = room()
    for seq in range(10, 10 + 3 * states.REMEMBERED_MAX):
        one = states.applied(one, events.Kicked(f"u{seq}", ""), "ann", seq)
    assert len(one.people) == 4 + states.REMEMBERED_MAX
    assert one.seq_of("u10") == one.forgotten_seq > 10


def test_the_end_of_a_ban_is_an_entry() -> None:
    one = states.applied(room(), events.Banned("eve", EVE.root, 5000, ""), "bob", 10)
    assert one.due_ms == 5000
    assert ended(one, 4999) == []
    assert ended(one, 5000) == [events.Freed("eve")]
    assert rights(one, EVE) == NOTHING, "no clock decides about permissions"
    free = states.applied(one, events.Freed("eve"), events.RELAY, 11)
    assert rights(free, EVE) == MEMBER
    assert free.due_ms == 0


@pytest.mark.parametrize("kind", Kind)
def test_a_ban_ends_the_role_for_good(kind: Kind) -> None:
    """After the ban the user has no role: no moderator, and no member of a private room."""
    before = room(kind)
    banned = states.applied(before, events.Banned("bob", BOB.root, 5000, ""), "ann", 10)
    assert rights(banned, BOB) == NOTHING
    free = states.applied(banned, events.Freed("bob"), events.RELAY, 11)
    assert rights(free, BOB) == rights(free, EVE)
    assert states.role_changes(before, banned) == (("bob", BOB.root, 0, False),)


def test_a_deleted_room_begins_anew() -> None:
    gone = states.applied(room(Kind.PRIVATE), events.Deleted(""), "ann", 10)
    assert refused(gone, requests.SetTopic("tea"), ANN) is Reason.NO_SUCH_ROOM
    assert gone.floor == 10
    assert decided(gone, requests.Create(), EVE) is not None
    new = states.applied(gone, events.Created(Kind.PUBLIC, True, EVE.root), "eve", 11)
    assert rights(new, EVE) == OWNER
    assert rights(new, ANN) == MEMBER
    assert new.floor == 10
    for seq in (1, 10, 21):  # of the room before, or not there yet
        with pytest.raises(Refused) as caught:
            check_redact(new, EVE, requests.Redact(seq), 20)
        assert caught.value.reason is Reason.NO_SUCH_ENTRY
    check_redact(new, EVE, requests.Redact(11), 20)


@pytest.mark.parametrize("number", [0, 14, 255])
def test_an_event_of_a_later_version_changes_nothing(number: int) -> None:
    assert events.unpack(b"\x92" + bytes((0xCC, number)) + b"\x01") is None
    after = states.applied(room(), None, "ann", 50)
    assert after == room()._replace(version=50)


@pytest.mark.parametrize("body", [b"", b"\x90", b"\x91\x02", b"\x92\x02\x01", b"\xc0", b"\x01"])
def test_bytes_that_are_no_event(body: bytes) -> None:
    with pytest.raises(EnvelopeError):
        events.unpack(body)
    with pytest.raises(EnvelopeError):
        requests.unpack(body)


def test_what_is_told_of_a_room() -> None:
    part = shown.unpack(shown.pack(room(), "", EPOCH))
    assert part == (room(), True, EPOCH)
    assert shown.unpack(shown.pack(room(), "bob", EPOCH)).room.people.keys() == {"cat", "dan"}
    for kind, is_listed, actor, seen in (
        (Kind.PUBLIC, True, EVE, True),
        (Kind.PUBLIC, False, EVE, False),
        (Kind.PUBLIC, False, CAT, True),
        (Kind.PUBLIC, True, DAN, False),
        (Kind.PRIVATE, True, EVE, False),
        (Kind.PRIVATE, True, CAT, True),
        (Kind.PRIVATE, True, OPERATOR, False),
    ):
        found = shown.listed("lobby", room(kind, listed=is_listed), 7, actor)
        assert (found is not None) is seen, (kind, is_listed, actor)
        if found is not None:
            assert shown.unpack_list(shown.pack_list([found], "x", False)) == ([found], "x", False)


# --- whatever people do ---------------------------------------------------------------------------
PEOPLE = (ANN, BOB, CAT, DAN, EVE, GUEST, OPERATOR)
HANDLES = st.sampled_from([one.handle for one in PEOPLE])
SECONDS = st.sampled_from([0, 1, 3600])
CHANGES = st.one_of(
    st.builds(requests.Create, st.sampled_from(Kind), st.booleans()),
    st.builds(requests.SetKeep, st.integers(0, 2), st.integers(0, 2), st.just(0)),
    st.builds(requests.SetTopic, st.sampled_from(["", "tea", "coffee"])),
    st.builds(requests.SetKind, st.sampled_from(Kind), st.booleans()),
    st.builds(requests.SetRole, HANDLES, st.sampled_from(Role)),
    st.builds(requests.Invite, HANDLES),
    st.builds(requests.Kick, HANDLES),
    st.builds(requests.Ban, HANDLES, SECONDS),
    st.builds(requests.Unban, HANDLES),
    st.builds(requests.Mute, HANDLES, SECONDS),
    st.builds(requests.Unmute, HANDLES),
    st.sampled_from(
        [requests.Close(), requests.Reopen(), requests.Enter(), requests.Leave(), requests.Delete()]
    ),
)


class People(RuleBasedStateMachine):
    """Users with random requests in one room and its successors."""

    def __init__(self) -> None:
        super().__init__()
        self.room = Room()
        self.head = 0
        self.now_ms = 0
        self.roles: dict[str, tuple[bytes, int, bool]] = {}
        """The state as known from the changes."""
        self.members: set[str] = set()
        """Those who made themselves permanent members."""

    @rule(actor=st.sampled_from(PEOPLE), change=CHANGES, behind=st.integers(0, 3))
    def ask(self, actor: Actor, change: requests.Change, behind: int) -> None:
        before = self.room
        handle = requests.named(change)
        subject = next((one.root for one in PEOPLE if one.handle == handle), b"")
        seen = max(0, self.head - behind)
        context = Context(actor, seen, self.now_ms, self.head, subject)
        try:
            event = decide(before, change, context)
        except Refused:
            return
        if event is None:
            return
        self.append(event, actor.handle)
        again = decide_or_none(self.room, change, context._replace(head=self.head, seen=self.head))
        if not isinstance(change, requests.Kick | requests.Ban | requests.Mute | requests.Delete):
            assert again is None, "the answer was lost: a repeat changes nothing"
        if not isinstance(change, requests.Create):
            assert not before.deleted
            power = rights(before, actor)
            assert power or isinstance(change, requests.Leave)
        if before.kind is Kind.PRIVATE and not before.deleted and not self.room.deleted:
            assert self.room.kind is Kind.PRIVATE

    @rule(handle=HANDLES, role=st.sampled_from(Role))
    def appoint(self, handle: str, role: Role) -> None:
        """Random users seldom are somebody who may."""
        for actor in PEOPLE:
            if Right.MANAGE in rights(self.room, actor):
                self.ask(actor=actor, change=requests.SetRole(handle, role), behind=0)
                return

    @rule(ms=st.integers(1, 5000))
    def wait(self, ms: int) -> None:
        self.now_ms += ms
        while over := ended(self.room, self.now_ms):
            self.append(over[0], events.RELAY)

    def append(self, event: events.Event, sender: str) -> None:
        self.head += 1
        assert events.unpack(events.pack(event)) == event
        before, self.room = self.room, states.applied(self.room, event, sender, self.head)
        if isinstance(event, events.Created | events.Entered):
            self.members.add(sender)
        elif isinstance(event, events.RoleSet) and event.handle == sender:
            self.members.add(sender)  # an operator
        for handle, root, role, lasting in states.role_changes(before, self.room):
            self.roles.pop(handle, None)
            if role:
                self.roles[handle] = root, role, lasting
            if role < Role.MEMBER:
                self.members.discard(handle)

    @invariant()
    def it_is_sound(self) -> None:
        one = self.room
        assert states.unpack(states.pack(one)) == one
        assert one.version <= self.head
        people = one.people.items()
        roles = {name: (who.root, int(who.role), who.lasting) for name, who in people if who.role}
        assert self.roles == roles
        assert {name for name, who in people if who.lasting} <= self.members
        for actor in PEOPLE:
            person, found = one.people.get(actor.handle), rights(one, actor)
            if person is not None and person.banned:
                assert not found & (READ | WRITE)
                assert person.role is Role.NONE
            if one.kind is Kind.PRIVATE and not one.deleted and READ in found:
                assert person is not None
                assert person.role is not Role.NONE
            if WRITE in found:
                assert READ in found
            if one.everybody_writes:
                assert WRITE in found, "a sender without a permission check may write"


def decide_or_none(one: Room, change: requests.Change, context: Context) -> events.Event | None:
    try:
        return decide(one, change, context)
    except Refused:
        return None


TestPeople = People.TestCase
TestPeople.settings = settings(max_examples=50, stateful_step_count=30)


@pytest.mark.parametrize("until_ms", [0, 1_795_000_000_000, (1 << 63) - 1])
def test_who_is_banned_or_muted_is_told_until_when(until_ms: int) -> None:
    """If it ends by itself; whatever time the log has."""
    for person in (
        Person(b"", banned=True, until_ms=until_ms),
        Person(b"", muted=True, until_ms=until_ms),
    ):
        found = refusal(room()._replace(people={"eve": person}), EVE, WRITE)
        assert found is not None
        assert (" until 20" in found.text or " until 9" in found.text) is bool(until_ms)
