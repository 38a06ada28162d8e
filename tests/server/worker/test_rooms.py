"""Attacks on rooms, over real sockets and several workers; each with its outcome."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from relay import limits
from relay.bus import messages as bus
from relay.bus.messages import Heads
from relay.chat.accounts import invitation
from relay.chat.accounts import requests as accounts
from relay.chat.entries import NO_EPOCH
from relay.chat.entries import Kind as EntryKind
from relay.chat.partition import partition_of
from relay.chat.rooms import events, requests, shown
from relay.chat.rooms import state as states
from relay.chat.rooms.events import Kind, Role
from relay.client.devices.device_key import DeviceKey
from relay.server.worker.home.rooms.entries import entry_of
from relay.server.worker.home.rooms.rules import RoomRules
from relay.server.worker.member.reply import Reply
from relay.store.errors import StoreUnavailable
from relay.store.log import Denied, Reader
from relay.store.rules import Kept
from relay.store.sqlite import SqlitePartition
from relay.store.state import LogEnd
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import (
    Account,
    Ack,
    Done,
    EntryMessage,
    Error,
    Gap,
    History,
    Join,
    Joined,
    Live,
    Members,
    Page,
    Refused,
    Removed,
    Room,
    Send,
    Welcome,
    Who,
)
from relay.wire.packing import unpack_entry
from tests.support.cluster import until
from tests.support.devices import hello, register
from tests.support.operators import an_operator
from tests.support.variants import VARIANTS
from tests.support.workers import Cluster, TestClient, Worker
from tests.torture.rights import check

LOG = "lobby"
EVERYTHING = requests.ANYTHING_SEEN


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2, rights=True) as running:
        yield running


async def ask(
    client: TestClient, request: requests.Request, seen: int = EVERYTHING, log: str = LOG
) -> Done | Error:
    """Send a request about a room, and return the answer."""
    number = 1000 + len(client.received) * 7 + client.records
    client.send_envelopes(Room(number, log, requests.pack(request, seen)))

    def answers() -> list[Done | Error]:
        return [e for e in client.received if isinstance(e, Done | Error) and e.request == number]

    await client.until(answers, f"an answer to {request}")
    return answers()[0]


async def done(
    client: TestClient, request: requests.Request, seen: int = EVERYTHING, log: str = LOG
) -> bytes:
    answer = await ask(client, request, seen, log)
    assert isinstance(answer, Done), answer
    return answer.content


async def refused(
    client: TestClient, request: requests.Request, seen: int = EVERYTHING, log: str = LOG
) -> int:
    answer = await ask(client, request, seen, log)
    assert isinstance(answer, Error), answer
    return answer.code


async def error_of(client: TestClient, number: int) -> int:
    return (await client.expect(Error, lambda e: e.request == number)).code


def stored(worker: Worker, log: str = LOG) -> list[EntryMessage]:
    """Return the log as it is stored."""
    page = worker.parts.services.reader_of(log).read(log, 0, 2**40 - 1, 10**9)
    return [unpack_entry(packed) for _, packed in page.rows]


def changes(client: TestClient, log: str = LOG) -> list[events.Event | None]:
    return [
        events.unpack(e.body) for e in client.entries(log) if e.content_type == events.CONTENT_TYPE
    ]


async def begun(cluster: Cluster, kind: Kind = Kind.PUBLIC) -> tuple[TestClient, TestClient]:
    """A room of alice, and bob, who follows it (and is a member) on the other worker."""
    alice = await TestClient.login(cluster.home(LOG), "alice")
    bob = await TestClient.login(cluster.other(LOG), "bob")
    await done(alice, requests.Create(kind))
    if kind is Kind.PRIVATE:
        await done(alice, requests.Invite("bob"))
    await alice.join(LOG)
    await bob.join(LOG)
    return alice, bob


# --- how a room begins ----------------------------------------------------------------------------
async def test_the_first_message_begins_a_room_which_its_sender_owns(cluster: Cluster) -> None:
    """The create entry is the first; followers from before receive it."""
    reader = await TestClient.login(cluster.other(LOG), "reader")
    await reader.join(LOG)
    alice = await TestClient.login(cluster.home(LOG), "alice")
    bob = await TestClient.login(cluster.other(LOG), "bob")
    alice.send(LOG, 1, 3)
    assert (await alice.acked(LOG, 1)).seq == 2
    bob.send(LOG, 1)
    await bob.acked(LOG, 1)
    await reader.has(LOG, 5)
    assert reader.seqs(LOG) == [1, 2, 3, 4, 5]
    first = reader.entries(LOG)[0]
    created = events.unpack(first.body)
    assert isinstance(created, events.Created)
    assert (first.sender, created.kind, len(created.root)) == ("alice", Kind.PUBLIC, 32)
    assert await refused(bob, requests.SetTopic("mine")) == ErrorCode.NOT_ALLOWED
    await done(alice, requests.SetTopic("alice's"))


async def test_many_begin_one_room_at_once(cluster: Cluster) -> None:
    """One of them owns it, and every message is stored."""
    workers = [cluster.home(LOG), cluster.other(LOG)]
    clients = [await TestClient.login(workers[n % 2], f"user{n}") for n in range(6)]
    for client in clients:
        client.send(LOG, 1, 2)
    for client in clients:
        await client.acked(LOG, 2)
    entries = stored(workers[0])
    assert [e.content_type == events.CONTENT_TYPE for e in entries] == [True] + [False] * 12
    assert [e.prev for e in entries] == list(range(13))


async def test_a_first_message_and_a_request_that_begin_one_room(cluster: Cluster) -> None:
    """In one commit, in either order: the first creates it, and the other finds it."""
    clients = [await TestClient.login(cluster.home(LOG), name) for name in ("alice", "bob")]
    for number in range(12):
        log = f"room-{number}"
        sender, creator = clients if number % 2 else clients[::-1]
        asking = asyncio.ensure_future(ask(creator, requests.Create(Kind.PRIVATE), log=log))
        await asyncio.sleep(0)
        sender.send(log, 1)
        answer = await asking
        await sender.until(
            lambda log=log, sender=sender: any(  # type: ignore[misc]
                isinstance(e, Ack | Refused) and e.log == log for e in sender.received
            ),
            "an answer",
        )
        entries = stored(cluster.home(log), log)
        assert len([e for e in entries if e.content_type == events.CONTENT_TYPE]) == 1
        owner = creator if isinstance(answer, Done) else sender
        assert entries[0].sender == owner.name
        if isinstance(answer, Error):
            assert answer.code == ErrorCode.ROOM_EXISTS


async def test_a_guest_owns_nothing(cluster: Cluster) -> None:
    guest = await TestClient.login(cluster.home(LOG), "~guest-1")
    guest.send(LOG, 1)
    await guest.acked(LOG, 1)
    assert await refused(guest, requests.SetTopic("mine")) == ErrorCode.NOT_ALLOWED
    assert await refused(guest, requests.Enter()) == ErrorCode.NOT_ALLOWED


async def test_only_operators_begin_rooms(cluster: Cluster) -> None:
    """rooms.create = operators: by a message and by a request."""
    for worker in cluster.workers.values():
        worker.parts.home.rules.anyone_creates = False
    alice = await TestClient.login(cluster.home(LOG), "alice")
    alice.send(LOG, 1)
    assert (await alice.expect(Refused)).code == ErrorCode.NOT_ALLOWED
    assert await refused(alice, requests.Create()) == ErrorCode.NOT_ALLOWED
    assert stored(cluster.home(LOG)) == []
    opera = await operator(cluster)
    opera.send(LOG, 1)
    await opera.acked(LOG, 1)
    alice.received.clear()
    alice.send(LOG, 1)
    await alice.acked(LOG, 1)


async def operator(cluster: Cluster) -> TestClient:
    """An operator who is connected to the home of the room."""
    return await an_operator(cluster, worker=cluster.home(LOG))


# --- a banned user on every path ------------------------------------------------------------------
@pytest.mark.parametrize("restarted", [False, True])
async def test_somebody_who_is_banned_on_every_path(cluster: Cluster, restarted: bool) -> None:
    """Removed at the ban on every worker, and refused ever after, by a new home as well."""
    alice, bob = await begun(cluster)
    also = await TestClient.login(cluster.home(LOG), "bob")
    await also.join(LOG)
    alice.send(LOG, 1)
    await bob.has(LOG, 1)
    cursor = bob.entries(LOG)[-1]
    await done(alice, requests.Ban("bob", 0, "spam"))
    for client in (bob, also):
        removed = await client.expect(Removed)
        assert (removed.log, removed.code) == (LOG, ErrorCode.BANNED)
    alice.send(LOG, 2, 3)
    await alice.acked(LOG, 3)
    if restarted:
        home = cluster.home(LOG).index
        await cluster.kill(home)
        await cluster.start(home)
        await cluster.linked()
    for worker in (cluster.home(LOG), cluster.other(LOG)):
        client = await TestClient.login(worker, "bob")
        client.send_envelopes(
            Join(1, LOG, None, 0, 10),
            Join(2, LOG, cursor.epoch, cursor.seq, 0),
            History(3, LOG, True, 0, 10),
            History(4, LOG, False, 0, 10),
            Who(5, LOG),
            Send(LOG, 1, 0, "", b"let me in"),
        )
        assert [await error_of(client, n) for n in (1, 2)] == [ErrorCode.BANNED] * 2
        assert [await error_of(client, n) for n in (3, 4, 5)] == [ErrorCode.NOT_A_MEMBER] * 3
        assert (await client.expect(Refused)).code == ErrorCode.BANNED
        for request in (requests.Show(), requests.Enter(), requests.Unban("bob")):
            assert await refused(client, request) == ErrorCode.BANNED
        assert LOG not in await listed(client)
        assert client.entries(LOG) == []
    assert max(bob.seqs(LOG)) == max(also.seqs(LOG)) == 3, "the ban is the last entry they get"


async def listed(client: TestClient) -> dict[str, shown.Listed]:
    """Return the rooms that a user may see."""
    found: dict[str, shown.Listed] = {}
    for partition in range(16):
        after, end = "", False
        while not end:
            data = await done(client, requests.List(partition, after), 0, "")
            some, after, end = shown.unpack_list(data)
            found |= {one.name: one for one in some}
    return found


async def race(cluster: Cluster, *, guarded: bool) -> tuple[TestClient, TestClient, TestClient]:
    """Ban bob while he writes on both workers. Return alice and his two clients, all answered.

    With ``guarded``, a user is muted before, so that the permissions of each message are checked,
    and not only of those after the ban. Otherwise everybody may write until then.
    """
    alice, bob = await begun(cluster)
    other = await TestClient.login(cluster.home(LOG), "bob")
    if guarded:
        await TestClient.login(cluster.home(LOG), "carol")
        await done(alice, requests.Mute("carol"))
    for client in (bob, other):
        client.send(LOG, 1, 20)
    await bob.acked(LOG, 1)
    await other.acked(LOG, 1)
    asking = asyncio.ensure_future(done(alice, requests.Ban("bob")))
    for first in range(21, 181, 20):
        for client in (bob, other):
            client.send(LOG, first, first + 19)
        await asyncio.sleep(0)  # the workers are in this loop
    await asking
    for client in (bob, other):
        client.send(LOG, 181, 200)  # after the ban in any case
    for client in (bob, other):
        answers = answers_of(client)
        await client.until(lambda: len(answers()) >= 200, "all answers")  # noqa: B023
    return alice, bob, other


def answers_of(client: TestClient) -> Callable[[], list[Ack | Refused]]:
    return lambda: [e for e in client.received if isinstance(e, Ack | Refused)]


@pytest.mark.parametrize("guarded", [False, True], ids=["all write", "somebody is muted"])
async def test_a_ban_and_messages_that_race(cluster: Cluster, guarded: bool) -> None:
    """The order in the log decides: none of bob's messages is after the ban; those before it are
    stored, acknowledged, and acknowledged again on a repeat.
    """
    alice, bob, other = await race(cluster, guarded=guarded)
    entries = stored(cluster.home(LOG))
    of_bob = [e for e in entries if e.sender == "bob"]
    seen = bob.seqs(LOG) + other.seqs(LOG)
    assert list(check(entries, {"bob": seen, "alice": alice.seqs(LOG)})) == []
    refusals: set[int] = set()
    for client in (bob, other):
        mine = {e.counter: e.seq for e in of_bob if e.producer == client.producer}
        answers = answers_of(client)()
        acks = {e.counter: e.seq for e in answers if isinstance(e, Ack)}
        assert acks == mine
        refusals |= {e.code for e in answers if isinstance(e, Refused)}
        again = await TestClient.login(cluster.other(LOG), "bob", secret=client.secret)
        again.send(LOG, 1)
        assert (await again.acked(LOG, 1)).seq == acks[1], "a stored id is acknowledged"
    assert refusals == {ErrorCode.BANNED, ErrorCode.EXPECTED}


async def test_messages_behind_a_ban_are_found(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race detects a home that uses the permissions of a moment ago."""
    monkeypatch.setattr(RoomRules, "before", RoomRules.before)  # it is restored at the end
    for worker in cluster.workers.values():
        VARIANTS["rights-of-a-moment-ago"](worker._context)
    await race(cluster, guarded=True)
    findings = list(check(stored(cluster.home(LOG)), {}))
    assert {(finding.fault, finding.who) for finding in findings} == {("wrote", "bob")}


def shown_to(client: TestClient) -> dict[int, EntryMessage]:
    """Return what a client has received of the room, live or by pages."""
    pages = [e for e in client.received if isinstance(e, Page)]
    found = [*client.entries(LOG), *(entry for page in pages for entry in page.entries)]
    return {entry.seq: entry for entry in found}


def is_ban(entry: EntryMessage) -> bool:
    if entry.content_type != events.CONTENT_TYPE:
        return False
    return isinstance(events.unpack(entry.body), events.Banned)


async def test_readings_that_race_with_a_ban(cluster: Cluster) -> None:
    """Live, by pages and by resuming at a cursor, on both workers, while the ban is committed.

    The order in the log decides which of them are answered: each is checked against it.
    """
    alice, bob = await begun(cluster)
    alice.send(LOG, 1, 40)
    await alice.acked(LOG, 40)
    await bob.ends_with(LOG, 41)
    place = bob.entries(LOG)[9]
    workers = (cluster.home(LOG), cluster.other(LOG))
    readers = [await TestClient.login(workers[n % 2], "bob") for n in range(40)]
    resuming, paging = readers[:20], readers[20:]
    for reader in paging:
        await reader.join(LOG)
    pages = itertools.count(2)

    def read(n: int) -> None:
        resuming[n].send_envelopes(Join(1, LOG, place.epoch, place.seq, 0))
        paging[n].send_envelopes(
            History(next(pages), LOG, True, place.seq, 1000), History(next(pages), LOG, False, 0, 9)
        )

    alice.send(LOG, 41, 60)
    for n in range(10):
        read(n)
    asking = asyncio.ensure_future(done(alice, requests.Ban("bob")))
    alice.send(LOG, 61, 80)
    for n in range(10, 20):
        read(n)
        await asyncio.sleep(0)
    await asking
    alice.send(LOG, 81)
    await alice.acked(LOG, 81)
    for reader in (*resuming, *paging):  # in the order of the requests: earlier ones are over
        reader.send_envelopes(Who(9999, LOG))
        await reader.expect(Error, lambda e: e.request == 9999)
    log = stored(workers[0])
    (ban,) = [e.seq for e in log if e.sender == "alice" and is_ban(e)]
    for reader in (bob, *resuming, *paging):
        got = shown_to(reader)
        assert list(check(log, {"bob": got})) == [], "an entry after the ban"
        assert all(log[seq - 1] == entry for seq, entry in got.items())
        refusals = {e.code for e in reader.received if isinstance(e, Error)}
        assert refusals <= {ErrorCode.BANNED, ErrorCode.NOT_A_MEMBER}
    for reader in resuming:
        seqs = sorted(shown_to(reader))
        assert seqs == list(range(place.seq + 1, place.seq + 1 + len(seqs))), "none is missing"
    whole = [shown_to(reader) for reader in resuming[:10]]
    assert any(max(got, default=0) >= 41 for got in whole), "no request came before the ban"
    late = await TestClient.login(workers[1], "bob")
    late.send_envelopes(Join(1, LOG, place.epoch, place.seq, 0))
    assert await error_of(late, 1) == ErrorCode.BANNED
    assert ban < len(log)


async def test_a_batch_ends_at_an_entry_that_puts_somebody_out(cluster: Cluster) -> None:
    """[m1, kick bob, m2] committed together never reaches bob whole, and m1 does."""
    alice, bob = await begun(cluster)
    for worker in cluster.workers.values():
        worker.parts.member.feeds.by_log[LOG].paused_until = float(
            "inf"
        )  # all of it is one distribution
    alice.send(LOG, 1)
    await alice.acked(LOG, 1)
    await done(alice, requests.Kick("bob", "out"))
    alice.send(LOG, 2)
    await alice.acked(LOG, 2)
    for worker in cluster.workers.values():
        worker.parts.member.feeds.by_log[LOG].paused_until = 0.0
        worker.parts.wakeup.request()
    removed = await bob.expect(Removed)
    assert (removed.code, removed.text) == (ErrorCode.KICKED_OUT, "out")
    await alice.ends_with(LOG, 4)
    assert bob.seqs(LOG) == [2, 3]
    await bob.join(LOG, last=10)  # a kick is no ban
    assert bob.seqs(LOG)[-4:] == [1, 2, 3, 4]


async def test_repair_ends_batches_as_well(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry lost on the bus and read from the store removes the same users."""
    from tests.support.workers import drop_publishes

    alice, bob = await begun(cluster)
    losing = True
    drop_publishes(monkeypatch, lambda message: losing and message.log == LOG)
    alice.send(LOG, 1)
    await alice.acked(LOG, 1)
    await done(alice, requests.Ban("bob"))
    alice.send(LOG, 2)
    await alice.acked(LOG, 2)
    losing = False
    await bob.expect(Removed)
    assert bob.seqs(LOG) == [2, 3]
    alice.send(LOG, 3)
    await alice.ends_with(LOG, 5)
    assert bob.seqs(LOG) == [2, 3]


# --- two moderators -------------------------------------------------------------------------------
def test_what_was_decided_on_an_older_state_is_not_stored() -> None:
    """Whatever has changed in between, the commit checks the current state."""
    rules = RoomRules(anyone_creates=True)
    before = states.applied(states.Room(), events.Created(Kind.PUBLIC, True, b""), "alice", 1)
    topic = entry_of(LOG, before.version, events.TopicSet("tea"), "alice", b"")
    log = LogEnd(1, b"epoch..8", 1, 1, 0, 1, packed_state=states.pack(before))
    assert isinstance(rules.after(log, topic), Kept)
    after = states.applied(before, events.Closed(True), "alice", 2)
    log = LogEnd(1, b"epoch..8", 1, 2, 0, 1, packed_state=states.pack(after))
    assert isinstance(rules.after(log, topic), Denied)


async def test_two_moderators(cluster: Cluster) -> None:
    """Neither undoes a change that they have not seen; changes of other things do not conflict."""
    alice, bob = await begun(cluster)
    await TestClient.login(cluster.home(LOG), "carol")
    await done(alice, requests.SetRole("bob", Role.MODERATOR))
    seen = 2
    await done(bob, requests.Mute("carol"), seen)
    await done(bob, requests.SetTopic("bob's"), seen)
    assert await refused(alice, requests.SetTopic("alice's"), seen) == ErrorCode.CHANGED
    assert await refused(alice, requests.Ban("carol"), seen) == ErrorCode.CHANGED
    await done(alice, requests.SetKind(Kind.ANNOUNCE), seen)
    await done(alice, requests.Ban("carol"), seen + 1)
    assert await refused(bob, requests.Kick("alice")) == ErrorCode.NOT_ALLOWED
    assert await refused(bob, requests.SetRole("bob", Role.OWNER)) == ErrorCode.NOT_ALLOWED
    both = [
        asyncio.ensure_future(ask(one, requests.SetTopic(text), 5))
        for one, text in ((alice, "one"), (bob, "two"))
    ]
    answers = await asyncio.gather(*both)
    assert sorted(type(one).__name__ for one in answers) == ["Done", "Error"]


# --- a stranger at a private room -----------------------------------------------------------------
async def test_a_stranger_at_a_private_room_on_every_path(cluster: Cluster) -> None:
    """Nothing of it: not live (also for followers from before), and not by any request."""
    early = await TestClient.login(cluster.other(LOG), "early")
    await early.join(LOG)
    alice, bob = await begun(cluster, Kind.PRIVATE)
    assert (await early.expect(Removed)).code == ErrorCode.MEMBERS_ONLY
    alice.send(LOG, 1, 3)
    await bob.has(LOG, 3)
    cursor = bob.entries(LOG)[0]
    opera = await operator(cluster)
    strangers = [early, opera]
    for worker in (cluster.home(LOG), cluster.other(LOG)):
        strangers += [
            await TestClient.login(worker, "stranger"),
            await TestClient.login(worker, f"~guest-{worker.index}"),
        ]
    for client in strangers:
        client.received.clear()
        client.send_envelopes(
            Join(1, LOG, None, 0, 10),
            Join(2, LOG, None, 0, 0),
            Join(3, LOG, cursor.epoch, cursor.seq, 0),
            History(4, LOG, True, 0, 10),
            Who(5, LOG),
            Send(LOG, 1, 0, "", b"let me in"),
        )
        assert [await error_of(client, n) for n in (1, 2, 3)] == [ErrorCode.MEMBERS_ONLY] * 3
        assert [await error_of(client, n) for n in (4, 5)] == [ErrorCode.NOT_A_MEMBER] * 2
        assert (await client.expect(Refused)).code == ErrorCode.MEMBERS_ONLY
        assert LOG not in await listed(client)
        if client is not opera:
            assert await refused(client, requests.Show()) == ErrorCode.MEMBERS_ONLY
            assert await refused(client, requests.Enter()) == ErrorCode.MEMBERS_ONLY
            assert await refused(client, requests.SetTopic("")) == ErrorCode.NOT_ALLOWED
    alice.send(LOG, 4)
    await bob.has(LOG, 4)
    for client in strangers:
        told = [e for e in client.received if not isinstance(e, Error | Refused | Done)]
        assert told == [] or (client is early and told == [])
    assert (await listed(bob))[LOG].role is Role.INVITED
    # An operator may act, and reads only after an entry that records it.
    await done(opera, requests.SetRole("opera", Role.MEMBER))
    await opera.join(LOG, last=10)
    assert isinstance(changes(bob)[-1], events.RoleSet)


@pytest.mark.parametrize("kind", [Kind.PRIVATE, Kind.PUBLIC])
async def test_no_refusal_tells_what_is_in_a_room(cluster: Cluster, kind: Kind) -> None:
    """To a user who may not read it: whether an entry exists, is a message, is their own, was
    erased.
    """
    alice, bob = await begun(cluster, kind)
    bob.send(LOG, 1)
    await bob.acked(LOG, 1)
    alice.send(LOG, 1, 2)
    await alice.acked(LOG, 2)
    entries = stored(cluster.workers[0])
    own, epoch = next(e.seq for e in entries if e.sender == "bob"), entries[-1].epoch
    await done(alice, requests.Redact(entries[-1].seq, ""))
    await done(alice, requests.Ban("bob"))
    await TestClient.login(cluster.home(LOG), "stranger")
    names = ["bob", "stranger", "~guest-"] if kind is Kind.PRIVATE else ["bob"]
    places = (own, own + 1, *range(1, len(entries) + 4), 10**6)
    about = (EntryKind.MESSAGE, EntryKind.EDIT, EntryKind.REDACTION, EntryKind.REACTION)
    for worker in (cluster.home(LOG), cluster.other(LOG)):
        for name in names:
            own_name = f"{name}{worker.index}" if name.endswith("-") else name
            client = await TestClient.login(worker, own_name)
            expected = ErrorCode.BANNED if name == "bob" else ErrorCode.MEMBERS_ONLY
            for seq in places:
                assert await refused(client, requests.Redact(seq, "")) == expected, seq
                for one in about:
                    client.received.clear()
                    client.send_envelopes(Send(LOG, 1, int(one), "", b"x", epoch, seq))
                    answer = await client.expect(Refused)
                    assert (answer.code, answer.arg) == (expected, 0), (one, seq)
    # A user who may erase without reading gets an answer about the entry.
    opera = await operator(cluster)
    assert await refused(opera, requests.Redact(10**6, "")) == ErrorCode.NO_SUCH_ENTRY
    assert await refused(opera, requests.Redact(1, "")) == ErrorCode.NO_SUCH_ENTRY
    await done(opera, requests.Redact(own, ""))


async def test_a_request_that_waits_is_judged_when_it_is_answered(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page and a list of members that bob requested in time are not sent to him any more."""
    alice, bob = await begun(cluster, Kind.PRIVATE)
    alice.send(LOG, 1)
    await bob.has(LOG, 1)
    worker = cluster.other(LOG)
    turns: list[Reply[None]] = []

    def turn() -> Reply[None]:
        turns.append(Reply())
        return turns[-1]

    monkeypatch.setattr(worker.parts.member.catchup, "turn", turn)
    bob.send_envelopes(History(11, LOG, True, 0, 10))
    await until(lambda: turns, "the request for a page")
    await done(alice, requests.Kick("bob"))
    await bob.expect(Removed)
    turns[0].resolve(None)
    assert await error_of(bob, 11) == ErrorCode.NOT_A_MEMBER
    await done(alice, requests.Invite("bob"))
    monkeypatch.undo()
    await bob.join(LOG)
    listed: list[Reply[bus.Members | None]] = []

    def asking(log: str) -> Reply[bus.Members | None]:
        listed.append(Reply())
        return listed[-1]

    monkeypatch.setattr(worker.parts.member.queries, "who", asking)
    bob.send_envelopes(Who(12, LOG))
    await until(lambda: listed, "the request for the members")
    await done(alice, requests.Kick("bob"))
    await bob.expect(Removed, count=2)
    listed[0].resolve(bus.Members(1, 1, 1, 1, [["alice", "", 1]]))
    assert await error_of(bob, 12) == ErrorCode.NOT_A_MEMBER
    assert not any(isinstance(e, Page | Members) for e in bob.received)


async def test_a_head_that_was_under_way_opens_no_private_room(cluster: Cluster) -> None:
    """Heads that a home sends once a second carry no permissions.

    One sent for an earlier feed of this worker arrives before the answer to SUBSCRIBE.
    """
    alice = await TestClient.login(cluster.home(LOG), "alice")
    await done(alice, requests.Create(Kind.PRIVATE))
    alice.send(LOG, 1)
    ack = await alice.acked(LOG, 1)
    worker = cluster.other(LOG)
    eve = await TestClient.login(worker, "eve")
    home = worker.parts.member.routes.port_of(LOG)
    assert home is not None
    feed = worker.parts.member.feeds.open(LOG)
    worker.parts.dispatcher.handlers[Heads](home, Heads([[LOG, ack.epoch, ack.seq]]))
    assert not feed.known
    eve.send_envelopes(Join(7, LOG, None, 0, 10))
    assert await error_of(eve, 7) == ErrorCode.MEMBERS_ONLY


async def test_a_room_that_becomes_private_keeps_its_members(cluster: Cluster) -> None:
    alice, bob = await begun(cluster)
    carol = await TestClient.login(cluster.other(LOG), "carol")
    await carol.join(LOG)
    await done(bob, requests.Enter())
    await done(alice, requests.SetKind(Kind.PRIVATE))
    assert (await carol.expect(Removed)).code == ErrorCode.MEMBERS_ONLY
    alice.send(LOG, 1)
    await bob.ends_with(LOG, 4)
    assert max(carol.seqs(LOG)) == 3
    assert await refused(alice, requests.SetKind(Kind.PUBLIC)) == ErrorCode.BAD_REQUEST
    await done(bob, requests.Leave())
    assert (await bob.expect(Removed)).code == ErrorCode.MEMBERS_ONLY


# --- writing --------------------------------------------------------------------------------------
async def test_who_may_not_write(cluster: Cluster) -> None:
    """Muted, announced, closed: reading goes on, and each has its own error.

    Whatever they would write: about their own message, or another user's.
    """
    alice, bob = await begun(cluster)
    for client in (alice, bob):
        client.send(LOG, 1)
        await client.acked(LOG, 1)
    messages = [e for e in stored(cluster.workers[0]) if e.kind == EntryKind.MESSAGE]
    other, own = messages
    assert (other.sender, own.sender) == ("alice", "bob")
    tries = [
        (EntryKind.MESSAGE, 0), (EntryKind.MESSAGE, other.seq), (EntryKind.EDIT, own.seq),
        (EntryKind.REACTION, own.seq), (EntryKind.REACTION, other.seq),
        (EntryKind.REDACTION, own.seq),
    ]  # fmt: skip
    for request, code, back in (
        (requests.Mute("bob"), ErrorCode.MUTED, requests.Unmute("bob")),
        (requests.SetKind(Kind.ANNOUNCE), ErrorCode.READ_ONLY, requests.SetKind(Kind.PUBLIC)),
        (requests.Close(), ErrorCode.READ_ONLY, requests.Reopen()),
    ):
        await done(alice, request)
        for kind, seq in tries:
            bob.received.clear()
            epoch = own.epoch if seq else b""
            bob.send_envelopes(Send(LOG, 2, int(kind), "", b"x", epoch, seq))
            assert (await bob.expect(Refused)).code == code, (kind, seq)
        await done(alice, back)
    bob.received.clear()
    bob.send(LOG, 2)
    assert (await bob.acked(LOG, 2)).seq == 10
    await alice.ends_with(LOG, 10)


async def test_the_time_of_a_ban_ends_by_an_entry(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a new home; changes of the wall clock have no effect."""
    alice, bob = await begun(cluster)
    await done(alice, requests.Ban("bob", 3600))
    await alice.until(lambda: events.Banned in map(type, changes(alice)), "the ban")
    home = cluster.home(LOG)
    await cluster.kill(home.index)
    await cluster.start(home.index)
    await cluster.linked()
    home = cluster.home(LOG)
    later = time.time_ns() + 7200 * 10**9
    with monkeypatch.context() as clock:
        clock.setattr(time, "time_ns", lambda: later)
        due = home.parts.home.partitions.due(partition_of(LOG), home.parts.home.rooms._steady_ms())
        assert due == []
    now = home.parts.home.rooms._steady_ms()
    home.parts.home.rooms._steady_ms = lambda: now + 3_601_000
    bob = await TestClient.login(cluster.other(LOG), "bob")
    reader = await TestClient.login(cluster.other(LOG), "reader")
    await reader.join(LOG, last=10)
    await reader.until(lambda: changes(reader)[-1:] == [events.Freed("bob")], "the end of the ban")
    assert reader.entries(LOG)[-1].sender == events.RELAY
    await bob.join(LOG)


# --- the end of a room ----------------------------------------------------------------------------
async def test_a_deleted_room_and_the_next_of_its_name(cluster: Cluster) -> None:
    """All members are removed; nothing of it is sent any more, not for a saved cursor either."""
    alice, bob = await begun(cluster)
    alice.send(LOG, 1, 3)
    await bob.has(LOG, 3)
    old = bob.entries(LOG)[-1]
    await done(alice, requests.Delete("over"))
    for client in (alice, bob):
        assert (await client.expect(Removed)).code == ErrorCode.NO_SUCH_ROOM
    assert await refused(alice, requests.Show()) == ErrorCode.NO_SUCH_ROOM
    assert LOG not in await listed(alice)
    late = await TestClient.login(cluster.other(LOG), "late")
    late.send_envelopes(Join(1, LOG, None, 0, 100), Join(2, LOG, old.epoch, old.seq, 0))
    assert [await error_of(late, n) for n in (1, 2)] == [ErrorCode.NO_SUCH_ROOM] * 2
    for client in (alice, bob, late):  # a message meant for the room must not create a public one
        client.send(LOG, 4 if client is alice else 1)
        told = await client.expect(Refused)
        assert told.code == ErrorCode.NO_SUCH_ROOM
        client.received.remove(told)
    await done(bob, requests.Create())
    waiting = await TestClient.login(cluster.other(LOG), "waiting")
    await waiting.join(LOG, last=100)
    assert [type(events.unpack(e.body)) for e in waiting.entries(LOG)] == [events.Created]
    bob.send(LOG, 1)
    ack = await bob.acked(LOG, 1)
    assert ack.epoch != old.epoch
    await waiting.ends_with(LOG, ack.seq)
    assert [e.seq for e in waiting.entries(LOG)] == [ack.seq - 1, ack.seq]
    assert await refused(alice, requests.SetTopic("mine")) == ErrorCode.NOT_ALLOWED
    await done(bob, requests.SetTopic("bob's"))
    for worker in (cluster.home(LOG), cluster.other(LOG)):
        carol = await TestClient.login(worker, "carol")
        carol.send_envelopes(Join(1, LOG, old.epoch, old.seq - 1, 0))
        gap = await carol.expect(Gap)
        assert gap.to_seq == ack.seq - 2
        await carol.expect(Live)
        carol.send_envelopes(
            History(2, LOG, False, 0, 100), History(3, LOG, True, 0, 100), Who(4, LOG)
        )
        pages = [await carol.expect(Page, count=n) for n in (1, 2)]
        assert all([e.seq for e in p.entries] == [ack.seq - 1, ack.seq, ack.seq + 1] for p in pages)
        assert pages[0].end


async def test_a_room_from_before_has_no_owner_until_an_operator_names_one(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, 2) as before:
        alice = await TestClient.login(before.home(LOG), "alice")
        alice.send(LOG, 1, 3)
        assert (await alice.acked(LOG, 3)).seq == 3
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    async with Cluster(tmp_path, 2, rights=True) as cluster:
        alice = await TestClient.login(cluster.home(LOG), "alice")
        bob = await TestClient.login(cluster.other(LOG), "bob")
        bob.send(LOG, 1)
        assert (await bob.acked(LOG, 1)).seq == 4
        assert await refused(alice, requests.SetTopic("mine")) == ErrorCode.NOT_ALLOWED
        assert await refused(alice, requests.Create()) == ErrorCode.ROOM_EXISTS
        assert (await listed(bob))[LOG].members == 0
        opera = await operator(cluster)
        await done(opera, requests.SetRole("alice", Role.OWNER))
        await done(alice, requests.Ban("bob"))
        bob.received.clear()
        bob.send(LOG, 2)
        assert (await bob.expect(Refused)).code == ErrorCode.BANNED


async def test_requests_that_make_no_sense(cluster: Cluster) -> None:
    """Each costs its sender an answer."""
    alice, _ = await begun(cluster)
    for request, code, log in (
        (requests.Ban("nobody-here"), ErrorCode.NOT_REGISTERED, LOG),
        (requests.Ban("@bob"), ErrorCode.BAD_REQUEST, LOG),
        (requests.SetTopic("tea"), ErrorCode.NO_SUCH_ROOM, "elsewhere"),
        (requests.SetTopic("a\nb"), ErrorCode.BAD_REQUEST, LOG),
        (requests.SetTopic("tea"), ErrorCode.NAME_INVALID, "@bob"),
        (requests.SetTopic("tea"), ErrorCode.NAME_INVALID, "a"),
        (requests.Redact(10**9), ErrorCode.NO_SUCH_ENTRY, LOG),
        (requests.SetRole("bob", Role.INVITED), ErrorCode.BAD_REQUEST, LOG),
    ):
        assert await refused(alice, request, log=log) == code, request
    alice.send_envelopes(Room(5, LOG, b"\x91\x63"))
    assert await error_of(alice, 5) == ErrorCode.BAD_REQUEST
    assert await refused(alice, requests.Create(Kind.PRIVATE)) == ErrorCode.ROOM_EXISTS
    assert isinstance(await alice.expect(Joined), Joined)


# --- erasing --------------------------------------------------------------------------------------
def bodies(worker: Worker) -> list[bytes]:
    """Return the bodies in the log, without control entries."""
    return [e.body for e in stored(worker) if e.kind != EntryKind.SYSTEM]


def erase(client: TestClient, counter: int, what: EntryMessage, why: bytes = b"") -> None:
    """Send a redaction."""
    kind = int(EntryKind.REDACTION)
    client.send_envelopes(Send(LOG, counter, kind, "text/plain", why, what.epoch, what.seq))


async def refused_send(client: TestClient, counter: int) -> int:
    found = await client.expect(Refused, lambda e: (e.log, e.counter) == (LOG, counter))
    client.received.remove(found)
    return found.code


async def test_a_moderator_erases_what_those_below_have_written(cluster: Cluster) -> None:
    """By SEND and by ROOM: the same entry, the same permissions; edits go with the message."""
    alice, bob = await begun(cluster)
    carol = await TestClient.login(cluster.other(LOG), "carol")
    home = cluster.home(LOG)
    alice.send(LOG, 1, 1)
    await alice.acked(LOG, 1)
    carol.send(LOG, 1, 3)
    await carol.acked(LOG, 3)
    messages = [e for e in stored(home) if e.kind == EntryKind.MESSAGE]
    of_alice = next(e for e in messages if e.sender == "alice")
    first, second, third = (e for e in messages if e.sender == "carol")
    edit = int(EntryKind.EDIT)
    carol.send_envelopes(Send(LOG, 4, edit, "text/plain", b"better", first.epoch, first.seq))
    await carol.acked(LOG, 4)
    # Not allowed for anybody yet, by either operation.
    erase(bob, 1, first)
    assert await refused_send(bob, 1) == ErrorCode.NOT_ALLOWED
    assert await refused(bob, requests.Redact(first.seq)) == ErrorCode.NOT_ALLOWED
    await done(alice, requests.SetRole("bob", Role.MODERATOR))
    erase(bob, 1, first, b"spam")
    await bob.acked(LOG, 1)
    await done(bob, requests.Redact(second.seq, "spam"))
    await done(bob, requests.Redact(second.seq, "spam"))  # the answer was lost
    assert await refused(bob, requests.Redact(second.seq, "why")) == ErrorCode.NO_SUCH_ENTRY
    await done(carol, requests.Redact(third.seq, "mine"))
    # A moderator edits nothing, and erases nothing of users of the same role.
    bob.send_envelopes(Send(LOG, 2, edit, "text/plain", b"x", of_alice.epoch, of_alice.seq))
    assert await refused_send(bob, 2) == ErrorCode.NOT_ALLOWED
    assert await refused(bob, requests.Redact(of_alice.seq)) == ErrorCode.NOT_ALLOWED
    dave = await TestClient.login(home, "dave")
    dave.send(LOG, 1)
    mine = await dave.acked(LOG, 1)
    await done(alice, requests.SetRole("dave", Role.MODERATOR))
    assert await refused(bob, requests.Redact(mine.seq)) == ErrorCode.NOT_ALLOWED
    await done(alice, requests.Redact(mine.seq))
    erased = [e for e in stored(home) if e.kind == EntryKind.ERASED]
    assert [(e.sender, e.body) for e in erased] == [
        *[("carol", b"")] * 4, ("dave", b""),
    ]  # fmt: skip
    assert bodies(home) == [
        of_alice.body, b"", b"", b"", b"", b"spam", b"spam", b"mine", b"", b"",
    ]  # fmt: skip


async def test_who_may_erase_is_judged_in_the_order_of_the_log(cluster: Cluster) -> None:
    """A moderator in a closed room; a banned user; a moderator of a moment ago."""
    alice, bob = await begun(cluster)
    home = cluster.home(LOG)
    bob.send(LOG, 1, 2)
    await bob.acked(LOG, 2)
    first, second = (e for e in stored(home) if e.sender == "bob")
    await done(alice, requests.Close())
    erase(bob, 3, first)
    assert await refused_send(bob, 3) == ErrorCode.READ_ONLY  # not even one's own
    erase(alice, 1, first)
    await alice.acked(LOG, 1)
    await done(alice, requests.SetRole("bob", Role.MODERATOR))
    await done(bob, requests.Redact(second.seq))
    await done(alice, requests.Reopen())
    carol = await TestClient.login(cluster.other(LOG), "carol")
    carol.send(LOG, 1)
    await carol.acked(LOG, 1)
    of_carol = stored(home)[-1]
    await done(alice, requests.Ban("bob"))
    erase(bob, 3, of_carol)
    assert await refused_send(bob, 3) == ErrorCode.BANNED
    assert await refused(bob, requests.Redact(of_carol.seq)) == ErrorCode.BANNED
    assert stored(home)[of_carol.seq - 1].body == of_carol.body


async def begun_anew(cluster: Cluster, name: str) -> TestClient:
    """Log in with a name after an operator's reset, from another device."""
    token, opera = secrets.token_bytes(32), await operator(cluster)
    reset = accounts.Reset(invitation.hash_of(token), 2**50)
    opera.send_envelopes(Account(9, name, accounts.pack(reset)))
    await opera.expect(Done, lambda e: e.request == 9)
    client, key = await TestClient.connect(cluster.other(LOG)), DeviceKey.generate()
    client.name, client.secret = name, secrets.token_bytes(16)
    client.send_envelopes(
        register(client.connection, client.spki, name, key, token),
        hello(client.connection, client.spki, name, client.secret, key=key),
    )
    await client.expect(Welcome)
    return client


async def test_what_was_written_before_a_reset_is_another_accounts(cluster: Cluster) -> None:
    """The new owner of the name edits and erases none of it, in rooms and in the inbox."""
    alice, _ = await begun(cluster)
    before = await TestClient.login(cluster.other(LOG), "carol")
    before.send(LOG, 1)
    await before.acked(LOG, 1)
    before.send_envelopes(Send("@bob", 1, 0, "text/plain", b"hush"))
    direct = await before.acked("@carol", 1)
    old = stored(cluster.home(LOG))[-1]
    carol = await begun_anew(cluster, "carol")
    edit = int(EntryKind.EDIT)
    sessions = cluster.other(LOG).parts.connections.sessions
    session = max((one for one in sessions if one.name == "carol"), key=lambda one: one.since_us)
    readable = session.services

    def without(unreadable: str) -> Callable[[str], Reader]:
        def reader_of(log: str) -> Reader:
            if log == unreadable:
                raise StoreUnavailable("the test's disk")
            return readable.reader_of(log)

        return reader_of

    for log in ("@carol", LOG):  # the fields that identify the author, and the entry to change
        session.services = replace(readable, reader_of=without(log))
        carol.send_envelopes(Send(LOG, 1, edit, "text/plain", b"x", old.epoch, old.seq))
        assert await refused_send(carol, 1) == ErrorCode.UNAVAILABLE
        assert await refused(carol, requests.Redact(old.seq)) == ErrorCode.UNAVAILABLE
    session.services = readable
    carol.send_envelopes(Send(LOG, 1, edit, "text/plain", b"x", old.epoch, old.seq))
    assert await refused_send(carol, 1) == ErrorCode.NOT_ALLOWED
    erase(carol, 1, old)
    assert await refused_send(carol, 1) == ErrorCode.NOT_ALLOWED
    assert await refused(carol, requests.Redact(old.seq)) == ErrorCode.NOT_ALLOWED
    carol.send_envelopes(Send("@bob", 1, edit, "text/plain", b"x", direct.epoch, direct.seq))
    of_inbox = await carol.expect(Refused, lambda e: e.log == "@carol")
    assert of_inbox.code == ErrorCode.NOT_ALLOWED
    carol.received.remove(of_inbox)
    # The new account's own messages are its own; and it has the rights that it is given.
    carol.send(LOG, 1)
    await carol.acked(LOG, 1)
    own = stored(cluster.home(LOG))[-1]
    carol.send_envelopes(Send(LOG, 2, edit, "text/plain", b"mine", own.epoch, own.seq))
    await carol.acked(LOG, 2)
    await done(alice, requests.SetRole("carol", Role.MODERATOR))
    erase(carol, 3, old)
    await carol.acked(LOG, 3)
    assert stored(cluster.home(LOG))[old.seq - 1].kind == EntryKind.ERASED


async def test_an_operator_erases_by_number_what_they_may_not_read(cluster: Cluster) -> None:
    alice, _ = await begun(cluster, Kind.PRIVATE)
    alice.send(LOG, 1)
    at = (await alice.acked(LOG, 1)).seq
    opera = await operator(cluster)
    await done(opera, requests.Redact(at, "the law"))
    assert bodies(cluster.home(LOG)) == [b"", b"the law"]


async def test_what_an_earlier_room_of_a_name_had_is_nobodys(cluster: Cluster) -> None:
    """Not even the owner of the next room may; and a message about an entry creates no room."""
    alice, bob = await begun(cluster)
    alice.send(LOG, 1)
    await alice.acked(LOG, 1)
    last = stored(cluster.home(LOG))[-1]
    await done(alice, requests.Delete())
    erase(bob, 1, last)
    assert await refused_send(bob, 1) == ErrorCode.NO_SUCH_ENTRY
    await done(bob, requests.Create())
    erase(bob, 1, last)
    assert await refused_send(bob, 1) == ErrorCode.NO_SUCH_ENTRY
    assert await refused(bob, requests.Redact(last.seq)) == ErrorCode.NO_SUCH_ENTRY


async def test_erased_pages_are_not_served_by_other_workers(cluster: Cluster) -> None:
    """A follower's cached page is dropped before any client gets it."""
    alice, bob = await begun(cluster)
    alice.send(LOG, 1, 4, size=limits.PAGE_BYTES_MAX // 3)
    await alice.acked(LOG, 4)
    other = cluster.other(LOG)
    reader = await TestClient.login(other, "reader")
    reader.send_envelopes(Join(9, LOG, NO_EPOCH, 0, 0))
    await reader.until(lambda: len(reader.entries(LOG)) == 5, "the log")
    read = other.parts.member.catchup.pages_read
    third = await TestClient.login(other, "third")
    third.send_envelopes(Join(9, LOG, NO_EPOCH, 0, 0))
    await third.until(lambda: len(third.entries(LOG)) == 5, "the log")
    assert other.parts.member.catchup.pages_read == read, "the same pages are served again"
    await done(alice, requests.Redact(3))
    await bob.until(lambda: bob.entries(LOG)[-1].kind == EntryKind.REDACTION, "the redaction")
    second = await TestClient.login(other, "second")
    second.send_envelopes(Join(9, LOG, NO_EPOCH, 0, 0))
    await second.until(lambda: len(second.entries(LOG)) == 6, "the log")
    assert [e.body for e in second.entries(LOG) if e.seq == 3] == [b""]


# --- a damaged state ------------------------------------------------------------------------------
async def test_a_room_whose_state_is_damaged_is_closed_to_all_and_nothing_else_is(
    cluster: Cluster,
) -> None:
    """Neither its readers nor its writers break the link between the workers."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    same = next(f"room{n}" for n in range(999) if partition_of(f"room{n}") == partition_of(LOG))
    alice = await TestClient.login(home, "alice")
    await done(alice, requests.Create(Kind.PRIVATE))
    opened = home.parts.home.partitions.partition(partition_of(LOG))
    assert isinstance(opened, SqlitePartition)
    assert opened._opened is not None
    end = opened._opened.committed.log(LOG)
    assert end is not None
    end.packed_state, end.state = b"\xc1", None
    link = other.parts.links[home.index]
    bob = await TestClient.login(other, "bob")
    bob.send_envelopes(Join(3, LOG, None, 0, 0))
    assert await error_of(bob, 3) == ErrorCode.MEMBERS_ONLY
    assert await refused(bob, requests.SetTopic("tea")) == ErrorCode.DAMAGED
    bob.send(LOG, 1)
    assert (await bob.expect(Refused, lambda e: e.log == LOG)).code == ErrorCode.DAMAGED
    carol = await TestClient.login(other, "carol")
    await carol.join(same)
    carol.send(same, 1)
    await carol.acked(same, 1)
    assert other.parts.links[home.index] is link
    assert link.up
