"""The decisions behind the budgets, without sockets: tables and simple models."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.chat.accounts import requests as account_requests
from relay.chat.rooms import requests as room_requests
from relay.chat.rooms.rights import Actor
from relay.codec import Unknown
from relay.limit_settings import Limits
from relay.server.metrics import Budget
from relay.server.sources import UNIX
from relay.server.worker.connection.budgets.admission import (
    DEFER_FROM,
    FEW,
    LOGINS_MANY,
    NEWEST,
    PATIENCE_MAX_S,
    PATIENCE_S,
    Admission,
    Verdict,
)
from relay.server.worker.connection.budgets.ledger import IDLE_MAX
from relay.server.worker.connection.budgets.source_usage import Source, Sources
from relay.server.worker.connection.budgets.spending import Refusal, Spending, spending
from relay.server.worker.connection.budgets.token_bucket import TokenBucket
from relay.server.worker.connection.budgets.users import (
    BEGUN_MAX,
    BEGUN_S,
    LOOKS,
    RoomsBegun,
    User,
    Users,
)
from relay.server.worker.connection.received import ReceivedBytes
from relay.server.worker.connection.requests.commands import OPERATIONS
from relay.server.worker.connection.stages import Stage
from relay.server.worker.delivery.rush import Rush
from relay.server.worker.process.storage.disk_reserve import Disk, DiskReserve, is_short, measure
from relay.server.worker.refusals import LOG_EVERY_S, Refusals
from relay.wire import envelopes as wire
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Send

MIB = 1 << 20


def limits(**given: int | bool) -> Limits:
    return msgspec.convert({"loopback_exempt": False} | given, Limits)


# --- token buckets ------------------------------------------------------------------------------
@given(
    rate=st.floats(0.1, 1000),
    burst=st.floats(1, 10_000),
    takes=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 2000)), max_size=50),
)
def test_a_bucket_gives_no_more_than_its_rate_its_burst_and_one_piece(
    rate: float, burst: float, takes: list[tuple[float, int]]
) -> None:
    """After the returned wait there is a token."""
    bucket = TokenBucket(rate, burst, 0.0)
    now = taken = 0.0
    largest = 0
    for pause, count in takes:
        now += pause
        wait = bucket.wait_s(now)
        assert wait >= 0
        if wait == 0:
            bucket.take(count, now)
            taken += count
            largest = max(largest, count)
            assert taken <= burst + rate * now + largest + 1e-6 * taken
        else:
            now += wait * 1.0001 + 1e-6
            assert bucket.wait_s(now) == 0


def test_a_clock_that_stands_still_gives_nothing() -> None:
    bucket = TokenBucket(10, 5, 100.0)
    for _ in range(5):
        assert bucket.wait_s(100.0) == 0
        bucket.take(1, 100.0)
    assert bucket.wait_s(100.0) == pytest.approx(0.1)
    assert bucket.wait_s(99.0) == pytest.approx(0.1)
    assert not bucket.full(100.0)
    assert bucket.full(200.0)


# --- who comes in -------------------------------------------------------------------------------
class FakeConnection:
    def __init__(self, source: Source, *, silent: bool = True, since_s: float = 0.0) -> None:
        self.source = source
        self.silent = silent
        self.since_us = round(since_s * 1e6)

    def make_room(self) -> None:
        raise AssertionError("the rule only names who goes")


def source_named(name: str, *, exempt: bool = False) -> Source:
    made = Source(name, limits())
    made.loopback = made.exempt = exempt
    return made


def enter_all(admission: Admission, *entering: FakeConnection) -> None:
    for one in entering:
        assert admission.admit(one.source) == Verdict(True)
        admission.enter(one)


def test_the_oldest_silent_one_makes_room() -> None:
    admission = Admission(100, limits(unauthenticated=16), Rush())
    busy = FakeConnection(source_named("a"), silent=False)
    old, *others = [FakeConnection(source_named(f"b{n}")) for n in range(15)]
    enter_all(admission, busy, old, *others)
    assert not admission.closed()
    new = source_named("c")
    assert admission.admit(new) == Verdict(True, Budget.UNAUTHENTICATED, old)
    assert admission.unauthenticated == 15, "it is not counted any more"
    assert old.source.unauthenticated == 0
    admission.leave(old)  # its socket is closed: no effect
    assert admission.unauthenticated == 15


def test_who_waits_for_the_server_keeps_the_slot() -> None:
    admission = Admission(100, limits(unauthenticated=16), Rush())
    enter_all(admission, *(FakeConnection(source_named(f"a{n}"), silent=False) for n in range(16)))
    assert admission.closed()
    assert admission.admit(source_named("b")) == Verdict(False, Budget.UNAUTHENTICATED)


@pytest.mark.parametrize(("takes_s", "logins_per_s"), [(0.5, 1e6), (0.02, 300), (0.3, 40)])
def test_who_comes_with_thousands_waits_for_those_before(
    takes_s: float, logins_per_s: float
) -> None:
    """Otherwise each new one would close a connection that had no time to answer."""
    admission = Admission(10_000, limits(unauthenticated=1024), Rush())
    inside: deque[FakeConnection] = deque()
    now = logged_in = credit = 0.0
    while logged_in < 2000:
        now += 0.005
        assert now < 90.0
        while not admission.defers(now):
            one = FakeConnection(source_named("crowd"), since_s=now)
            assert admission.admit(one.source).evicted is None, f"{logged_in} are there, {now} s"
            admission.enter(one)
            inside.append(one)
        credit = min(credit + logins_per_s * 0.005, logins_per_s)
        while inside and credit >= 1 and inside[0].since_us <= (now - takes_s) * 1e6:
            admission.log_in(inside.popleft(), now)
            credit -= 1
            logged_in += 1


def test_idle_connections_are_not_taken_for_logins() -> None:
    """They cost nothing, so nobody gets the CPU time of those who log in because of them."""
    admission = Admission(100, limits(unauthenticated=1024), Rush())
    idle = [FakeConnection(source_named(f"a{n}")) for n in range(2 * NEWEST)]
    enter_all(admission, *idle[: LOGINS_MANY - 1])
    assert admission.logging_in(60.0) == LOGINS_MANY - 1, "few are not looked at"
    enter_all(admission, *idle[LOGINS_MANY - 1 :])
    assert admission.logging_in(PATIENCE_S / 2) == 2 * NEWEST
    assert admission.logging_in(60.0) == 0
    waits = FakeConnection(source_named("b"), silent=False)
    new = [FakeConnection(source_named(f"c{n}"), since_s=60.0) for n in range(LOGINS_MANY - 2)]
    enter_all(admission, waits, *new)
    assert admission.logging_in(60.0) == LOGINS_MANY - 1, "who waits for the server, and the new"
    enter_all(admission, FakeConnection(source_named("d"), since_s=60.0))
    assert admission.logging_in(60.0) == admission.unauthenticated


@given(st.data())
def test_the_count_of_those_who_log_in_is_what_a_recount_finds(data: st.DataObject) -> None:
    """Whoever comes, logs in, ends, is evicted or just goes, in any order."""
    admission = Admission(10_000, limits(unauthenticated=128), Rush())
    source, now = source_named("a"), 0.0
    inside: list[FakeConnection] = []
    slow: set[FakeConnection] = set()
    members: list[FakeConnection] = []
    leaving: list[FakeConnection] = []

    def one_of(connections: list[FakeConnection]) -> FakeConnection:
        return connections[data.draw(st.integers(0, len(connections) - 1))]

    for _ in range(data.draw(st.integers(1, 30))):
        step = data.draw(st.sampled_from(["come", "wait", "act", "log in", "end", "go", "vanish"]))
        if step == "come":
            for _ in range(data.draw(st.integers(1, LOGINS_MANY + 8))):
                verdict = admission.admit(source)
                if verdict.evicted is not None:
                    evicted = cast("FakeConnection", verdict.evicted)
                    (inside if evicted in inside else leaving).remove(evicted)
                if verdict.admitted:
                    silent = data.draw(st.booleans())
                    inside.append(FakeConnection(source, silent=silent, since_s=now))
                    admission.enter(inside[-1])
        elif step == "wait":
            now += data.draw(st.sampled_from([0.0, 0.1, 0.5, PATIENCE_S, PATIENCE_MAX_S]))
        elif step == "act" and inside:
            acting = one_of(inside)
            acting.silent = not acting.silent
        elif step == "log in" and inside:
            members.append(one_of(inside))
            inside.remove(members[-1])
            admission.log_in(members[-1], now)
        elif step == "end" and members:
            leaving.append(one_of(members))
            members.remove(leaving[-1])
            admission.log_out(leaving[-1])
        elif step == "go" and leaving:
            admission.leave(gone := one_of(leaving))
            leaving.remove(gone)
        elif step == "vanish" and inside:
            admission.leave(gone := one_of(inside))
            admission.leave(gone)  # again: no effect
            inside.remove(gone)
        if len(inside) >= LOGINS_MANY:
            slow.update(one for one in inside if one.since_us <= (now - _login_s(admission)) * 1e6)
        found = len(inside)
        if found >= LOGINS_MANY:
            late = [one for one in inside if one in slow][-NEWEST:]
            fresh = sum(one not in slow for one in inside)
            found = fresh + (0 if fresh >= LOGINS_MANY else sum(not one.silent for one in late))
            if found >= LOGINS_MANY:
                found = len(inside)
        assert admission.logging_in(now) == found
        assert admission.unauthenticated == len(inside) + len(leaving)
        assert source.unauthenticated == admission.unauthenticated
        assert (admission.authenticated, source.authenticated) == (len(members), len(members))


def _login_s(admission: Admission) -> float:
    return admission._login_s_max


def test_who_is_sent_away_does_not_log_in() -> None:
    """Hundreds may be at once, and those who do log in would wait with heavy users."""
    admission = Admission(100, limits(unauthenticated=1024), Rush())
    members = [FakeConnection(source_named(f"a{n}")) for n in range(LOGINS_MANY)]
    enter_all(admission, *members)
    for one in members:
        admission.log_in(one, 0.0)
    for one in members:
        admission.log_out(one)
    assert admission.unauthenticated == LOGINS_MANY
    assert admission.logging_in(0.0) == 0
    enter_all(admission, FakeConnection(source_named("b")))
    assert admission.logging_in(0.0) == 1


def test_those_who_never_log_in_hold_nobody_back_for_long() -> None:
    """A few may be a port scan and do not delay others; of many, the oldest are closed."""
    admission = Admission(10_000, limits(unauthenticated=1024), Rush())
    enter_all(admission, *(FakeConnection(source_named(f"a{n}")) for n in range(DEFER_FROM)))
    assert not admission.defers(0.0)
    enter_all(admission, FakeConnection(source_named("b")))
    assert admission.defers(0.0)
    slow = FakeConnection(source_named("c"))
    for _ in range(100):
        enter_all(admission, slow)
        admission.log_in(slow, 600.0)
    now = PATIENCE_MAX_S
    while admission.unauthenticated < 1024:
        assert not admission.defers(now)
        enter_all(admission, FakeConnection(source_named("d"), since_s=now))
    for _ in range(3000):  # however fast they come
        now += 0.0005
        assert not admission.defers(now), "a new one takes the slot of the oldest"
        assert admission.admit(source_named("e")).evicted is not None
        admission.enter(FakeConnection(source_named("e"), since_s=now))


def test_few_enter_while_another_worker_is_about_to_accept() -> None:
    """Those who never log in do not count for that either."""
    admission = Admission(10_000, limits(unauthenticated=1024), Rush())
    enter_all(admission, *(FakeConnection(source_named(f"a{n}")) for n in range(FEW + 1)))
    assert not admission.defers(0.0)
    assert admission.defers(0.0, few=True)
    assert not admission.defers(PATIENCE_MAX_S, few=True)


def test_a_source_pays_with_its_own() -> None:
    admission = Admission(100, limits(unauthenticated=16, unauthenticated_per_source=2), Rush())
    oldest, source = FakeConnection(source_named("a")), source_named("b")
    first, second = FakeConnection(source, silent=False), FakeConnection(source)
    enter_all(admission, oldest, first, second)
    assert admission.admit(source) == Verdict(True, Budget.UNAUTHENTICATED_PER_SOURCE, second)
    admission.enter(FakeConnection(source, silent=False))
    assert admission.admit(source) == Verdict(False, Budget.UNAUTHENTICATED_PER_SOURCE)
    exempt = source_named("127.0.0.1", exempt=True)
    enter_all(admission, *(FakeConnection(exempt) for _ in range(10)))


def test_members_have_slots_of_their_own() -> None:
    admission = Admission(2, limits(unauthenticated=16, connections_per_source=1), Rush())
    source, exempt = source_named("a"), source_named("127.0.0.1", exempt=True)
    one, two = FakeConnection(source), FakeConnection(exempt)
    enter_all(admission, one, two)
    assert admission.login_refusal(source) is None
    admission.log_in(one, 0.0)
    assert admission.login_refusal(source) is Budget.CONNECTIONS_PER_SOURCE
    assert admission.login_refusal(exempt) is None
    admission.log_in(two, 0.0)
    assert admission.unauthenticated == 0
    assert admission.login_refusal(source_named("b")) is Budget.CONNECTIONS
    admission.log_out(one)
    assert (admission.authenticated, admission.unauthenticated) == (1, 1)
    assert admission.login_refusal(source) is None
    admission.leave(one)
    assert (source.authenticated, source.unauthenticated) == (0, 0)


# --- sources ------------------------------------------------------------------------------------
def test_a_source_is_remembered_while_it_has_spent() -> None:
    now = [0.0]
    sources = Sources(
        limits(send_bytes_per_s_per_source=100, rooms_per_minute_per_source=6), lambda: now[0]
    )
    first = sources.open("192.0.2.7")
    assert sources.open("::ffff:192.0.2.7") is first
    sources.close(first)
    sent = first.sent(0.0)
    assert sent is not None
    sent.take(1000, 0.0)
    sources.close(first)
    sources.sweep()
    assert sources.open("192.0.2.7") is first, "a new connection does not refill the bucket"
    sources.close(first)
    now[0] = 10.0
    sources.sweep()
    assert len(sources) == 0
    assert sources.open("192.0.2.7") is not first


def test_addresses_of_one_network_are_one_source() -> None:
    sources = Sources(limits(), lambda: 0.0)
    assert sources.open("2001:db8::1") is sources.open("2001:db8::2:3")
    assert sources.open("2001:db8::1") is not sources.open("2001:db8:0:1::1")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_exempt_if_so_set(peer: str) -> None:
    assert Sources(limits(loopback_exempt=True), lambda: 0.0).open(peer).exempt
    assert not Sources(limits(), lambda: 0.0).open(peer).exempt


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", UNIX])
def test_who_comes_through_a_proxy_of_this_machine_is_not_exempt(peer: str) -> None:
    """Not even while a program of this machine is connected, nor is that one limited for them."""
    sources = Sources(limits(loopback_exempt=True), lambda: 0.0)
    for order in ((True, False, True), (False, True, False)):
        opened = [sources.open(peer, proxied=proxied) for proxied in order]
        assert [source.exempt for source in opened] == [not proxied for proxied in order]
        for source in opened:
            sources.close(source)


def test_sources_that_have_spent_are_bounded() -> None:
    sources = Sources(limits(), lambda: 0.0)
    for number in range(IDLE_MAX + 10):
        one = sources.open(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        rooms = one.rooms(0.0)
        assert rooms is not None
        rooms.take(1, 0.0)
        sources.close(one)
    assert len(sources) == IDLE_MAX


def test_sources_are_forgotten_when_it_is_as_if_they_had_spent_nothing() -> None:
    clock = [0.0]
    sources = Sources(limits(rooms_per_minute_per_source=60), lambda: clock[0])
    for count in (3, 200, 40):
        source = sources.open("192.0.2.1")
        rooms = source.rooms(clock[0])
        assert rooms is not None
        rooms.take(count, clock[0])
        sources.close(source)
        sources.sweep()
        assert len(sources) == 1
    clock[0] = 60.0
    back = sources.open("192.0.2.1")
    assert back is source, "it is spent, whichever address of the source connects"
    clock[0] = 300.0
    sources.sweep()
    assert len(sources) == 1, "it has a connection"
    sources.close(back)
    assert len(sources) == 0
    other = sources.open("192.0.2.2")
    rooms = other.rooms(clock[0])
    assert rooms is not None
    rooms.take(90, clock[0])
    sources.close(other)
    clock[0] += 89
    sources.sweep()
    assert len(sources) == 1
    clock[0] += 60
    sources.sweep()
    assert len(sources) == 0


# --- spending -----------------------------------------------------------------------------------
class Stored:
    """The rooms of a server, and an account that has a budget."""

    def __init__(self, exists: Callable[[str], bool], owned: int = 0) -> None:
        self.log_exists = exists
        self.owned = owned
        self.actor = Actor("ann", bytes(32))
        self.own: set[str] = set()
        """Those of the account that the test looks at by name."""

    def rooms_owned(self, actor: Actor) -> int:
        assert actor == self.actor
        return self.owned

    def owns_room(self, log: str, actor: Actor) -> bool:
        assert actor == self.actor
        return log in self.own


def budget(source: Source, user: User | None, given: Limits, stored: Stored) -> Spending | None:
    return spending(source, user, given, stored, stored)


def test_what_is_refused_costs_nothing() -> None:
    """The fullest of four buckets decides, and no bucket is charged for a refused request."""
    sources = Sources(
        given := limits(
            send_bytes_per_s=1000,
            send_bytes_per_s_per_source=1_000_000,
            rooms_per_minute=2,
            rooms_per_minute_per_source=100,
        ),
        lambda: 0.0,
    )
    source = sources.open("192.0.2.7")
    looked: list[str] = []

    def exists(log: str) -> bool:
        looked.append(log)
        return log == "old"

    one = budget(source, None, given, Stored(exists))
    assert one is not None
    assert [one.refusal(log, 10, 0.0) for log in ("a", "b", "old", "a", "old")] == [None] * 5
    assert looked == ["a", "b", "old"], "each is looked up once"
    refused = one.refusal("c", 10, 0.0)
    assert refused is not None
    assert refused.budget is Budget.ROOMS
    assert refused.wait_ms == 30_001
    assert one.refusal("old", 50_000, 0.0) is None
    refused = one.refusal("old", 10, 0.0)
    assert refused is not None
    assert refused.budget is Budget.SEND_BYTES
    assert one.refusal("c", 10, 60.0) is None, "both were charged by then"


def test_a_room_that_is_created_again_is_paid_for() -> None:
    """Each creation has an epoch of its own, for ever. Messages to it do not cost a room."""
    given = limits(rooms_per_minute=2, rooms_per_minute_per_source=100)
    sources = Sources(given, lambda: 0.0)
    one = budget(sources.open("192.0.2.7"), None, given, Stored(lambda _: True))
    assert one is not None
    assert [one.room("a", 0.0), one.refusal("a", 10, 0.0), one.room("a", 0.0)] == [None] * 3
    refused = one.room("a", 0.0)
    assert refused is not None
    assert refused.budget is Budget.ROOMS
    assert one.refusal("a", 10, 0.0) is None


@pytest.mark.parametrize(
    ("given", "bounded"),
    [
        ({}, True),
        ({"loopback_exempt": True}, False),
        (
            {
                "send_bytes_per_s": 0,
                "send_bytes_per_s_per_source": 0,
                "rooms_per_minute": 0,
                "rooms_per_minute_per_source": 0,
                "work_per_s_per_source": 0,
                "accounts_per_hour_per_source": 0,
            },
            False,
        ),
    ],
)
def test_who_is_not_bounded_costs_nothing(given: dict[str, Any], bounded: bool) -> None:
    settings = limits(**given)
    sources = Sources(settings, lambda: 0.0)
    source = sources.open("127.0.0.1")
    found = budget(source, None, settings, Stored(lambda _: True))
    assert (found is not None) is bounded


def test_an_account_pays_for_all_its_connections() -> None:
    """Whatever their addresses are, and what it has spent is remembered between connections."""
    now = [0.0]
    given = limits(
        send_bytes_per_s_per_user=100, send_mib_per_day_per_user=0, rooms_per_minute_per_user=2,
        rooms_per_user=5, work_per_s_per_user=10,
    )  # fmt: skip
    sources, users = Sources(given, lambda: now[0]), Users(given, lambda: now[0])
    owning = Stored(lambda _: False, 3)
    phone, desk = (
        budget(sources.open(peer), users.open("ann"), given, owning)
        for peer in ("192.0.2.7", "192.0.2.8")
    )
    assert phone is not None
    assert desk is not None
    other = budget(sources.open("192.0.2.8"), users.open("bob"), given, Stored(lambda _: False))
    assert other is not None

    assert phone.refusal("a", -150, 0.0) is None
    owning.owned = 5
    refused = desk.refusal("b", 10, 0.0)
    assert refused is not None
    assert (refused.budget, refused.most) == (Budget.ROOMS_OWNED, 5)
    owning.owned, owning.own = 3, {"a"}
    assert desk.refusal("b", 600, 0.0) is None
    refused = phone.refusal("c", 10, 0.0)
    assert refused is not None
    assert refused.budget is Budget.SEND_BYTES_PER_USER
    refused = phone.refusal("c", 10, 10.0)
    assert refused is not None
    assert refused.budget is Budget.ROOMS_PER_USER

    assert phone.work(100, 20.0) is None
    refused = desk.work(1, 20.0)
    assert refused is not None
    assert (refused.budget, refused.wait_ms) == (Budget.WORK_PER_USER, 5101)
    refused = desk.refusal("not looked at", 1, 20.0)
    assert refused is not None
    assert refused.budget is Budget.WORK_PER_USER, "a lookup of whether a room exists costs work"
    assert other.work(1, 20.0) is None

    ann = users.get("ann")
    assert ann is not None
    users.close(ann)
    users.close(ann)
    users.sweep()
    assert users.open("ann") is ann
    users.close(ann)
    now[0] = 120.0
    users.sweep()
    assert users.get("ann") is None


def test_rooms_that_are_being_created_count() -> None:
    """A burst of creations does not exceed the limit; the client tries again until it is known
    which of them were stored. One that was refused counts for a while.
    """
    given = limits(rooms_per_user=100, rooms_per_minute_per_user=0, rooms_per_minute=0)
    users, stored = Users(given, lambda: 0.0), Stored(lambda _: False, 82)
    phone, desk = (
        budget(Sources(given, lambda: 0.0).open(peer), users.open("ann"), given, stored)
        for peer in ("192.0.2.7", "192.0.2.8")
    )
    assert phone is not None
    assert desk is not None
    assert phone.room("a", 0.0) is None
    assert desk.refusal("b", 10, 0.0) is None
    for refused in (phone.room("c", 0.0), desk.refusal("c", 10, 0.0)):
        assert refused is not None
        assert (refused.budget, refused.most) == (Budget.ROOMS_OWNED, 0)
        assert refused.wait_ms > 0
    stored.own, stored.owned = {"a"}, 83
    assert phone.room("c", 1.0) is not None, "84 with the one that is being created"
    stored.own, stored.owned = {"a", "b"}, 84
    for owned, room in enumerate("cdef", 84):
        assert phone.room(room, owned) is None, "one after the other"
        assert desk.room("next", owned) is not None
        stored.own.add(room)
        stored.owned = owned + 1
    stored.owned = 99
    assert phone.room("last", 90.0) is None
    assert desk.room("next", 90.0) is not None
    assert desk.room("next", BEGUN_S + 89.0) is not None, "the last one may yet be stored"
    assert desk.room("next", BEGUN_S + 90.0) is None
    stored.own, stored.owned = {"next"}, 100
    refused = phone.room("more", BEGUN_S + 91.0)
    assert refused is not None
    assert refused.most == 100


def test_few_of_the_rooms_that_are_being_created_are_looked_at_each_time() -> None:
    """In turn: in the end each was looked at."""
    begun, stored = RoomsBegun(), set[str]()
    for number in range(2 * BEGUN_MAX):
        begun.add(f"room-{number}", 0.0)
    looked: list[str] = []

    def is_stored(log: str) -> bool:
        looked.append(log)
        return log in stored

    assert begun.count(is_stored, 1.0) == BEGUN_MAX
    assert len(looked) == LOOKS
    stored = {f"room-{number}" for number in range(2 * BEGUN_MAX - 3)}
    for _ in range(BEGUN_MAX // LOOKS + 1):
        begun.count(is_stored, 1.0)
    assert begun.count(is_stored, 1.0) == 3
    assert begun.count(is_stored, BEGUN_S) == 0


def test_a_day_has_its_own_bound() -> None:
    given = limits(send_bytes_per_s_per_user=0, send_mib_per_day_per_user=1)
    users = Users(given, lambda: 0.0)
    one = budget(
        Sources(given, lambda: 0.0).open("192.0.2.7"), users.open("ann"), given,
        Stored(lambda _: True),
    )  # fmt: skip
    assert one is not None
    sent, now = 0, 0.0
    while one.refusal("a", 32_768, now) is None:
        sent += 32_968
        now += 0.1
    assert MIB <= sent <= MIB + 40_000
    refused = one.refusal("a", 1, now)
    assert refused is not None
    assert refused.budget is Budget.SEND_DAY_PER_USER


def test_connections_of_an_account() -> None:
    users = Users(limits(connections_per_user=2), lambda: 0.0)
    assert not users.is_full("ann")
    first, second = users.open("ann"), users.open("ann")
    assert first is second
    assert users.is_full("ann")
    assert not users.is_full("bob")
    users.close(first)
    assert not users.is_full("ann")


# --- what is held -------------------------------------------------------------------------------
def test_the_largest_holders_go() -> None:
    received = ReceivedBytes(100)
    gone: list[str] = []

    class Holder:
        def __init__(self, name: str) -> None:
            self.name = name
            self.unprocessed = 0

        def set_held(self, count: int) -> None:
            received.change(self, count)

        def shed(self) -> None:
            gone.append(self.name)

    a, b, c = map(Holder, "abc")
    for held, count in ((a, 60), (b, 40), (a, 30), (c, 30), (b, 0), (b, 40)):
        held.set_held(count)
    assert (received.total, gone) == (100, [])
    c.set_held(31)
    assert (received.total, gone) == (61, ["b"])
    a.set_held(1000)
    assert (received.total, gone, a.unprocessed) == (31, ["b", "a"], 0)
    for held in (a, b, c):
        held.set_held(0)
    assert received.total == 0


# --- refusals -----------------------------------------------------------------------------------
def test_a_line_now_and_then_one_for_all_that_followed(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    for n in range(1000):
        refusals.count(Budget.ROOMS, f"source {n}", n / 1000)
    refusals.count(Budget.RECEIVED, "other", 1.0, 3)
    refusals.add(Budget.DISK_RESERVE, 7)
    refusals.sweep(LOG_EVERY_S - 0.1)
    refusals.sweep(LOG_EVERY_S + 1)
    refusals.sweep(LOG_EVERY_S * 9)
    lines = [vars(record) for record in caplog.records if record.levelno == logging.WARNING]
    assert [(line["budget"], line["refused"], line["source"]) for line in lines] == [
        ("rooms", 1, "source 0"),
        ("received", 3, "other"),
        ("rooms", 999, "source 999"),
    ]
    assert refusals.counts[Budget.ROOMS] == 1000
    assert refusals.counts[Budget.DISK_RESERVE] == 7


# --- the disk -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("free", "total", "was_short", "short"),
    [
        (255, 100_000, False, True),
        (256, 100_000, False, False),
        (280, 100_000, True, True),
        (282, 100_000, True, False),
        (4, 100, False, True),
        (5, 100, False, False),
        (0, 0, False, False),
    ],
)
def test_when_a_disk_is_short(free: int, total: int, was_short: bool, short: bool) -> None:
    """In MiB: a reserve of 256, on a small file system a twentieth; recovered at a tenth more."""
    disk = Disk(free * MIB, total * MIB)
    assert is_short(disk, 256 * MIB, was_short=was_short) is short


def test_a_partition_counts_by_the_disk_that_it_really_is_on(tmp_path: Path) -> None:
    """A disk that cannot be read counts as unknown; without a reserve none is read."""
    (tmp_path / "1").touch()
    assert measure(tmp_path / "1").total_bytes > 0
    reserve = DiskReserve(lambda index: tmp_path / str(index), 1 << 60)
    free = measure(tmp_path / "1").free_bytes > measure(tmp_path / "1").total_bytes // 20
    assert reserve.check([0, 1]) == (frozenset() if free else {1})
    assert DiskReserve(lambda _: tmp_path / "1", 0).check([1]) == frozenset()


# --- what costs -----------------------------------------------------------------------------------
class Broke:
    """A connection that can only pay for the first requests."""

    actor = Actor("alice", bytes(32))
    key_id = bytes(16)

    def __init__(self, paid: int = 0) -> None:
        self.sends = self
        self.refused: list[int] = []
        self._paid = paid

    def spend_work(self, units: int) -> Refusal | None:
        assert units > 0
        self._paid -= 1
        return Refusal(Budget.WORK_PER_USER, 1, "too much") if self._paid < 0 else None

    def refuse(self, number: int, code: int, arg: int = 0, text: str = "") -> None:
        self.refused.append(code)


FREE = frozenset({Send, Unknown})
"""Count requests that cost bytes or waste, but no work."""


PRICED = sorted(set(OPERATIONS[Stage.READY]) - FREE, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", PRICED, ids=lambda kind: kind.__name__)
def test_every_request_has_a_price(kind: type) -> None:
    """And no work is done for a connection that cannot pay."""
    broke = Broke()
    asked = SimpleNamespace(request=7)
    assert OPERATIONS[Stage.READY][kind](cast("Any", broke), asked) is None
    assert broke.refused == [ErrorCode.BUSY]


@pytest.mark.parametrize(
    "asked",
    [
        wire.Account(7, "", account_requests.pack(account_requests.Prefer(1, 1))),
        wire.Room(7, "lobby", room_requests.pack(room_requests.SetTopic("tea"), 0)),
    ],
    ids=["account", "room"],
)
def test_what_is_committed_costs_more(asked: Any) -> None:  # noqa: ANN401
    broke = Broke(paid=1)
    coroutine = OPERATIONS[Stage.READY][type(asked)](cast("Any", broke), asked)
    assert coroutine is not None
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert broke.refused == [ErrorCode.BUSY]
