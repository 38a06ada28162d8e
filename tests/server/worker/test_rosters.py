"""Rosters (invariant "Presence is derived"): derived from the workers' reports, in small and large
rooms.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from relay import limits
from relay.bus.messages import Batch, Event, Members, Message, Presence, Who
from relay.chat.entries import Submission
from relay.chat.partition import partition_of
from relay.server.worker.connection.requests.charges import NAMES_PER_UNIT
from relay.server.worker.connection.schedule import UNITS_OF_WORK
from relay.server.worker.home.followers import rosters as rosters_module
from relay.server.worker.home.followers.rosters import GRACE_S, REST_S_MAX, REST_S_PER_NAME, Rosters
from relay.wire.envelopes import Join, Leave, Roster
from relay.wire.envelopes import Members as Answer
from relay.wire.envelopes import Who as Question
from relay.wire.packing import unpack_server
from tests.support.cluster import until
from tests.support.standing_clock import StandingClock
from tests.support.workers import Cluster, TestClient

LOG = "lobby"


class _Port:
    """The way to a worker; only its identity matters here."""

    index = 1
    generation = 1

    def send(self, message: Message) -> None:
        raise AssertionError(message)

    def submit(self, tag: int, sends: list[Submission]) -> None:
        raise AssertionError(sends)

    def publish(self, message: Batch | Event) -> None:
        raise AssertionError(message)


class _Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _told(rosters: Rosters) -> list[Roster]:
    def envelopes() -> Iterator[Roster]:
        for event in rosters.changes():
            for envelope in unpack_server(event.content):
                assert isinstance(envelope, Roster)
                yield envelope

    return list(envelopes())


def _present(*names: str) -> Presence:
    return Presence(LOG, [[name, "", 1] for name in names])


def _gone(*names: str) -> Presence:
    return Presence(LOG, [[name, "", 0] for name in names])


def test_a_join_storm_is_one_event() -> None:
    """All changes of a turn are in one event."""
    rosters = Rosters(bytes, _Clock())
    rosters.change(_Port(), _present("ada", "bob"))
    rosters.change(_Port(), _present("cyd"))
    (told,) = _told(rosters)
    assert told.total == 3
    assert [name for name, _ in told.joined] == ["ada", "bob", "cyd"]
    assert _told(rosters) == []
    assert rosters.due_at == float("inf")


def test_a_name_on_two_workers_goes_when_both_are_gone() -> None:
    """A dead worker removes only its own connections."""
    clock = _Clock()
    rosters = Rosters(bytes, clock)
    one, two = _Port(), _Port()
    rosters.change(one, _present("ada", "bob"))
    rosters.change(two, _present("ada"))
    _told(rosters)
    rosters.drop(one)
    assert _told(rosters) == []
    clock.now = GRACE_S
    (told,) = _told(rosters)
    assert (told.total, told.joined, told.left) == (1, [], ["bob"])
    rosters.leave(LOG, two)
    clock.now += GRACE_S
    assert _told(rosters) == [], "no worker is left to send to"
    assert rosters.members(Who(1, LOG)) == Members(1, 0, 0, 0, [])


def test_who_comes_back_in_time_never_left() -> None:
    """A worker's clients are back on another one: no event, even if those were all."""
    clock = _Clock()
    rosters = Rosters(bytes, clock)
    one, two = _Port(), _Port()
    rosters.change(one, _present("ada", "bob"))
    (told,) = _told(rosters)
    rosters.drop(one)
    assert _told(rosters) == []
    assert rosters.due_at == GRACE_S
    clock.now = GRACE_S / 2
    rosters.change(two, _present("ada"))
    rosters.change(two, _present("cyd"))
    (later,) = _told(rosters)
    assert (later.version, later.incarnation) == (told.version + 1, told.incarnation)
    assert ([name for name, _ in later.joined], later.left) == (["cyd"], [])
    assert later.total == 3, "bob still counts, for no event has said otherwise"
    clock.now = GRACE_S
    (last,) = _told(rosters)
    assert (last.total, last.joined, last.left) == (2, [], ["bob"])
    assert rosters.due_at == float("inf")


def test_each_departure_has_a_grace_of_its_own() -> None:
    """Back and gone again: the grace period runs from the last departure."""
    clock = _Clock()
    rosters = Rosters(bytes, clock)
    port = _Port()
    rosters.change(port, _present("ada", "bob"))
    _told(rosters)
    rosters.change(port, _gone("bob"))
    clock.now = GRACE_S / 2
    rosters.change(port, _present("bob"))
    rosters.change(port, _gone("bob"))
    clock.now = GRACE_S
    assert _told(rosters) == []
    assert rosters.due_at == GRACE_S * 1.5
    clock.now = GRACE_S * 1.5
    (told,) = _told(rosters)
    assert told.left == ["bob"]


def test_who_asked_meanwhile_is_told_of_the_return() -> None:
    """WHO has the truth at once, so the client that asked gets an event for the name's return."""
    clock = _Clock()
    rosters = Rosters(bytes, clock)
    port = _Port()
    rosters.change(port, _present("ada", "bob"))
    _told(rosters)
    rosters.change(port, _gone("bob"))
    answer = rosters.members(Who(1, LOG))
    assert (answer.total, answer.names) == (1, [["ada", "", 1]])
    clock.now = GRACE_S / 2
    rosters.change(port, _present("bob"))
    (told,) = _told(rosters)
    assert (told.total, told.joined, told.left) == (2, [["bob", ""]], [])
    clock.now = GRACE_S * 2
    assert _told(rosters) == []


def test_nobody_is_told_of_everybody_again() -> None:
    """After a change of the home: one event, without names, when lost clients had time to
    return.
    """
    clock = _Clock()
    rosters = Rosters(secrets.token_bytes, clock)
    one, two = _Port(), _Port()
    rosters.change(one, _present("ada", "bob")._replace(again=True))
    rosters.change(two, _present("carol"))  # she was on the worker that died
    assert _told(rosters) == []
    clock.now = GRACE_S / 2
    rosters.change(two, _present("dora"))
    assert _told(rosters) == []
    assert rosters.due_at == GRACE_S
    clock.now = GRACE_S
    [told] = _told(rosters)
    assert (told.total, told.joined, told.left) == (4, [], [])
    clock.now += GRACE_S
    rosters.change(two, _present("emil"))
    [told] = _told(rosters)
    assert told.joined == [["emil", ""]]
    rosters.forget(one, partition_of(LOG))  # a link was lost, and is there again
    rosters.change(one, _present("ada", "bob")._replace(again=True))
    clock.now += 2 * GRACE_S
    assert _told(rosters) == []


def test_departures_in_their_grace_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound, departures are announced early, the oldest first."""
    monkeypatch.setattr(rosters_module, "DEPARTURES_MAX", 2)
    clock = _Clock()
    rosters = Rosters(bytes, clock)
    port = _Port()
    rosters.change(port, _present("ada", "bob", "cyd", "dan"))
    _told(rosters)
    clock.now = GRACE_S / 2
    rosters.change(port, _gone("bob", "cyd"))
    assert _told(rosters) == []
    rosters.change(port, _gone("dan"))
    (told,) = _told(rosters)
    assert told.left == ["bob"]


def test_asking_again_after_each_change_looks_at_no_other_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also in a large room, where those who are listed leave. The answer is as if made anew."""
    rosters, ports, chance = Rosters(secrets.token_bytes, _Clock()), (_Port(), _Port()), Random(5)
    named = [f"name-{n:04}" for n in range(3 * limits.ROSTER_NAMES_MAX)]
    present: dict[str, int] = {}
    looked: list[str] = []
    display = rosters_module.Roster.display

    def looking(self: rosters_module.Roster, name: str) -> str:
        looked.append(name)
        return display(self, name)

    def change(name: str, count: int) -> None:
        rosters.change(ports[0], Presence(LOG, [[name, "", count]]))
        present[name] = count
        if not count:
            del present[name]

    for name in named[::2]:
        change(name, 1)
    monkeypatch.setattr(rosters_module.Roster, "display", looking)
    changes = 20 * limits.ROSTER_NAMES_MAX
    for n in range(changes):
        room = named if n < changes // 2 else named[:100]  # in a small room, all of them
        if n == changes // 2:
            for name in named[100:]:
                if name in present:
                    change(name, 0)
        change(name := chance.choice(room), 0 if name in present else chance.randrange(1, 3))
        told = rosters.members(Who(1, LOG))
        names = sorted(present)[: limits.ROSTER_NAMES_MAX]
        assert told.names == [[name, "", present[name]] for name in names]
    assert len(looked) < 3 * changes


def test_who_after_every_change() -> None:
    """The cached answer is never outdated: names, display names and counts."""
    rosters = Rosters(bytes, _Clock())
    one, two = _Port(), _Port()

    def listed() -> list[list[str | int]]:
        return rosters.members(Who(1, LOG)).names

    rosters.change(one, Presence(LOG, [["ada", "Ada", 1]]))
    assert listed() == [["ada", "Ada", 1]]
    rosters.change(one, Presence(LOG, [["ada", "Ada", 2]]))
    assert listed() == [["ada", "Ada", 2]]
    rosters.change(two, Presence(LOG, [["ada", "A", 1], ["bob", "", 1]]))
    assert listed() == [["ada", "Ada", 3], ["bob", "", 1]]
    rosters.drop(one)
    assert listed() == [["ada", "A", 1], ["bob", "", 1]]
    rosters.change(two, _gone("bob"))
    assert listed() == [["ada", "A", 1]]


@pytest.mark.parametrize("size", [limits.ROSTER_NAMES_MAX + 1, 1500])
def test_a_large_room_is_a_count_once_in_a_while(size: int) -> None:
    """Above the bound: no names, at most one event per interval, and the last change is
    announced.
    """
    clock = _Clock()
    rosters = Rosters(bytes, clock)
    port = _Port()
    crowd = [f"client{n:04}" for n in range(size)]
    rest_s = min(REST_S_PER_NAME * (size + 1), REST_S_MAX)
    rosters.change(port, _present(*crowd))
    (told,) = _told(rosters)
    assert (told.total, told.joined, told.left) == (len(crowd), [], [])
    rosters.change(port, _present("zoe", "zora"))
    rosters.change(port, _gone("zora"))
    clock.now = rest_s / 2
    assert _told(rosters) == []
    assert rosters.due_at == rest_s
    clock.now = rest_s
    (told,) = _told(rosters)
    assert told.total == len(crowd) + 1, "a user who left a large room is not counted any more"
    assert rosters.due_at == float("inf")
    members = rosters.members(Who(1, LOG))
    assert members.total == len(crowd) + 1
    assert [name for name, _, _ in members.names] == crowd[: limits.ROSTER_NAMES_MAX]


@pytest.mark.parametrize("crowd", [20, limits.ROSTER_NAMES_MAX, 1500])
def test_what_people_who_come_one_by_one_cost_the_others(crowd: int) -> None:
    """The envelopes to all members are bounded by time, not by who comes; nobody is left out."""
    clock = _Clock()
    rosters = Rosters(bytes, clock)
    port = _Port()
    sent = 0
    named: set[str] = set()
    for number in range(crowd):
        rosters.change(port, _present(f"client{number:03}"))
        for told in _told(rosters):
            sent += number + 1
            named.update(name for name, _ in told.joined)
        clock.now += 0.001
    while rosters.due_at < float("inf"):
        clock.now = rosters.due_at
        for told in _told(rosters):
            sent += crowd
            named.update(name for name, _ in told.joined)
    assert told.total == crowd
    if crowd <= limits.ROSTER_NAMES_MAX:
        assert len(named) == crowd
    per_s = 1 / REST_S_PER_NAME
    # and those of the first event, and of the last one
    assert sent <= max(per_s, crowd / REST_S_MAX) * clock.now + 2 * crowd


def test_a_room_rests_alone() -> None:
    """Changes of one room wait for its own events, not for those of another one."""
    clock = _Clock()
    rosters = Rosters(bytes, clock)
    port = _Port()
    rosters.change(port, _present(*(f"client{number:03}" for number in range(100))))
    (_,) = _told(rosters)
    rosters.change(port, _present("zoe"))
    assert _told(rosters) == []
    rosters.change(port, Presence("elsewhere", [["ada", "", 1]]))
    (told,) = _told(rosters)
    assert told.log == "elsewhere"
    clock.now = rosters.due_at
    (told,) = _told(rosters)
    assert (told.log, [name for name, _ in told.joined]) == (LOG, ["zoe"])


def test_the_largest_answers_fit_their_messages() -> None:
    """The longest names and display names, and as many as are listed."""
    rosters = Rosters(lambda count: b"\xff" * count, _Clock())
    display = "\U0001f600" * limits.DISPLAY_NAME_CHARS_MAX
    port = _Port()
    for number in range(limits.ROSTER_NAMES_MAX):
        name = f"{number:0{limits.NAME_CHARS_MAX}}"
        rosters.change(port, Presence("r" * limits.NAME_CHARS_MAX, [[name, display, 2**31]]))
    for event in rosters.changes():
        assert len(event.content) <= limits.RECORD_CONTENT_BYTES_MAX


async def test_flapping_in_one_record_tells_nobody(cluster: Cluster) -> None:
    """LEAVE and JOIN in one turn cause no event."""
    quiet = await TestClient.login(cluster.home(LOG), "quiet")
    flapper = await TestClient.login(cluster.other(LOG), "flapper")
    await quiet.join(LOG)
    await flapper.join(LOG)
    await quiet.expect(Roster, lambda e: e.total == 2)
    before = len(quiet.received)
    for number in range(50):
        flapper.send_envelopes(Leave(number + 1, LOG), Join(number + 1, LOG, None, 0, 0))
    flapper.send(LOG, 1)
    await quiet.has(LOG, 1)
    assert [e for e in quiet.received[before:] if isinstance(e, Roster)] == []


async def test_a_departure_is_told_after_the_grace(cluster: Cluster) -> None:
    """By itself, without any other event in the room; WHO has it at once."""
    quiet = await TestClient.login(cluster.home(LOG), "quiet")
    leaver = await TestClient.login(cluster.other(LOG), "leaver")
    await quiet.join(LOG)
    await leaver.join(LOG)
    await quiet.expect(Roster, lambda e: e.total == 2)
    rosters = cluster.home(LOG).parts.home.rosters
    leaver.disconnect()
    await until(lambda: rosters.members(Who(1, LOG)).total == 1, "the roster without the leaver")
    told = await quiet.expect(Roster, lambda e: e.left)
    assert (told.left, told.total) == (["leaver"], 1)


async def test_the_roster_after_its_home_died(cluster: Cluster) -> None:
    """Workers report again who is there; users who left meanwhile are not listed."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    stays = await TestClient.login(other, "stays")
    leaves = await TestClient.login(other, "leaves")
    for client in (stays, leaves):
        await client.join(LOG)
    await cluster.kill(home.index)
    leaves.send_envelopes(Leave(1, LOG))
    leaves.disconnect()
    await leaves.gone(other)
    await cluster.start(home.index)
    stays.send_envelopes(Question(5, LOG))
    answer = await stays.expect(Answer, lambda e: e.request == 5)
    assert answer.names == [["stays", "", 1]]


async def test_who_asks_for_many_names_is_charged_for_them(cluster: Cluster) -> None:
    """What the answer costs depends on the room, not on the question."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    asks = await TestClient.login(other, "asks")
    await asks.join(LOG)
    names: list[list[str | int]] = [[f"name-{n:03}", "", 1] for n in range(limits.ROSTER_NAMES_MAX)]
    home.parts.home.rosters.change(_Port(), Presence(LOG, [*names]))
    reading = cluster.session("asks").reading
    assert not reading.is_heavy
    asks.send_envelopes(Question(1, LOG))
    await asks.expect(Answer)
    assert reading._owed == limits.ROSTER_NAMES_MAX // NAMES_PER_UNIT * UNITS_OF_WORK > 0


async def test_a_room_whose_home_died(tmp_path: Path) -> None:
    """Members get one event that the roster has changed: without names, and nobody who is gone."""
    clock = StandingClock()
    clock.resume()
    async with Cluster(tmp_path, 2, needs={"clock": clock}) as cluster:
        await _a_room_whose_home_died(cluster, clock)


async def _a_room_whose_home_died(cluster: Cluster, clock: StandingClock) -> None:
    home, other = cluster.home(LOG), cluster.other(LOG)
    stays = await TestClient.login(other, "stays")
    await stays.join(LOG)
    for name in ("returns", "stays-away"):
        client = await TestClient.login(home, name)
        await client.join(LOG)
    before = await stays.expect(Roster, lambda e: e.total == 3)
    stays.received.clear()
    await cluster.kill(home.index)
    clock.stand()  # however long a busy machine needs, the client returns within the grace
    await cluster.start(home.index)
    back = await TestClient.login(other, "returns")
    await back.join(LOG)
    clock.resume()
    told = await stays.expect(Roster)
    assert (told.total, told.joined, told.left) == (2, [], [])
    assert told.incarnation != before.incarnation
    new = await TestClient.login(other, "new")
    await new.join(LOG)
    told = await stays.expect(Roster, count=2)
    assert (told.total, told.joined, told.version) == (3, [["new", ""]], 2)


async def test_a_room_of_three_hundred(cluster: Cluster) -> None:
    """A real large room: everybody is counted, on both workers, and leaves again."""
    clients = await asyncio.gather(
        *(TestClient.login(cluster.workers[n % 2], f"client{n:03}") for n in range(300))
    )
    await asyncio.gather(*(client.join(LOG) for client in clients))
    clients[0].send_envelopes(Question(1, LOG))
    answer = await clients[0].expect(Answer)
    assert answer.total == 300
    assert [name for name, _, _ in answer.names] == [f"client{n:03}" for n in range(200)]
    await clients[0].expect(Roster, lambda e: e.total == 300)
    for client in clients[100:]:
        client.disconnect()
    rosters = cluster.home(LOG).parts.home.rosters
    await until(lambda: rosters.members(Who(1, LOG)).total == 100, "the others to be gone")
    await clients[0].expect(Roster, lambda e: e.total == 100)
