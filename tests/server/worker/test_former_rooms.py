"""What is meant for a room that was deleted never reaches the next room of its name.

Attacks over real sockets and several workers: a private room is deleted while somebody is away, and
a stranger creates a public one of its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import msgpack
import pytest

from relay.chat.entries import NO_EPOCH
from relay.chat.entries import Kind as EntryKind
from relay.chat.rooms import requests
from relay.chat.rooms.events import Kind, Role
from relay.client.aio import Client
from relay.client.aio.posts import Post
from relay.client.events import Message, State, Stored, Unfollowed
from relay.client.refusals import NoSuchRoom, NotAMember
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import (
    Ack,
    Done,
    EntryMessage,
    Error,
    History,
    Join,
    Joined,
    Op,
    Refused,
    Removed,
    Room,
    Send,
    Who,
)
from relay.wire.identity import fingerprint
from relay.wire.packing import pack
from tests.server.worker.test_rights_races import die, hold, others
from tests.server.worker.test_rooms import EVERYTHING, LOG, done, operator, stored
from tests.support.cluster import DEADLINE_S, until
from tests.support.devices import device
from tests.support.pair import server_key
from tests.support.workers import Cluster, TestClient
from tests.torture.proxy import Gate

GONE = "that room no longer exists"
PENDING = 5
STREAM = 60
"""Messages of each of those who race with the deletion."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 3, rights=True) as running:
        yield running


def client_at(port: int, name: str, window: int = 256) -> Client:
    address = f"relay://{fingerprint(server_key().spki)}@127.0.0.1:{port}"
    return Client(address, name=name, key=device(name), window=window)


class Public:
    """The room of a stranger, where everybody may write, in place of a deleted private one."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._worker = others(cluster)[-1]
        """Where the stranger is: one that lives on when the home of the room dies."""
        self.began = 0
        """The seq of its first entry."""
        self.mallory: TestClient
        """The stranger."""
        self.identity = b""

    async def replaces(self, owner: TestClient) -> None:
        """The owner deletes the room, and the stranger creates the next one."""
        await done(owner, requests.Delete())
        await self.begins()

    async def begins(self) -> None:
        """The stranger creates it."""
        self.mallory = await TestClient.login(self._worker, "mallory")
        await done(self.mallory, requests.Create(Kind.PUBLIC))
        self.identity = (await joined(self.mallory)).identity
        (created,) = self.mallory.entries(LOG)
        self.began = created.seq

    def entries(self) -> list[EntryMessage]:
        """Return what is stored in it, but for the entry with which it began."""
        return [e for e in stored(self._cluster.home(LOG)) if e.seq > self.began]

    def bodies(self) -> list[bytes]:
        """Return the contents of these."""
        return [entry.body for entry in self.entries()]


async def private(cluster: Cluster, *members: str) -> TestClient:
    """A private room of alice, whose connection survives its home."""
    alice = await TestClient.login(others(cluster)[-1], "alice")
    for name in members:
        await TestClient.login(cluster.home(LOG), name)
    await done(alice, requests.Create(Kind.PRIVATE))
    for name in members:
        await done(alice, requests.Invite(name))
    return alice


async def joined(client: TestClient, log: str = LOG) -> Joined:
    """Follow a log; return the answer."""
    await client.join(log, last=10)
    return [e for e in client.received if isinstance(e, Joined)][-1]


def named(
    answer: Joined | bytes, counter: int, about: EntryMessage | None = None, kind: int = 0
) -> Send:
    """A message for the room of an answer to a join, or with any identity."""
    identity = answer.identity if isinstance(answer, Joined) else answer
    place = (b"", 0) if about is None else (about.epoch, about.seq)
    return Send(LOG, counter, kind, "", f"secret {counter}".encode(), *place, identity)


# --- the client library ---------------------------------------------------------------------------
@pytest.mark.parametrize("killed", [False, True], ids=["", "its home dies"])
async def test_who_was_away_says_nothing_to_strangers(cluster: Cluster, killed: bool) -> None:
    """Each pending message and request ends with the refusal; so do later ones, until the program
    has joined the new room.
    """
    alice = await private(cluster, "bob")
    await TestClient.login(cluster.home(LOG), "eve")
    room = Public(cluster)
    async with Gate() as gate:
        gate.target = others(cluster)[0].port
        async with client_at(gate.port, "bob") as bob:
            await bob.join(LOG)
            message = await seen(bob, await bob.send(LOG, "before"))
            gate.shut()
            await until(lambda: bob.state is not State.ONLINE, "bob to be away")
            pending: list[Awaitable[object]] = [
                await bob.post(LOG, f"secret {n}") for n in range(PENDING)
            ]
            pending += [
                asyncio.ensure_future(one)
                for one in (
                    bob.edit(message, "secret edit"),
                    bob.react(message, "+1"),
                    bob.redact(message),
                    bob.change_room(LOG, "topic", text="secret topic"),
                    bob.change_room(LOG, "invite", "eve"),
                )
            ]
            await asyncio.sleep(0)  # each of them begins
            await room.replaces(alice)
            if killed:
                await die(cluster, cluster.home(LOG))
            gate.open.set()
            for answer in pending:
                await is_gone(answer)
            assert GONE in (await unfollowed(bob)).detail
            await is_gone(bob.send(LOG, "secret"))
            await is_gone(bob.change_room(LOG, "topic", text="secret"))
            assert room.entries() == []
            assert (await bob.join(LOG)).another
            await bob.send(LOG, "hello, mallory")
    assert room.bodies() == [b"hello, mallory"]


async def test_what_a_program_saved_before_its_restart_is_for_its_room(cluster: Cluster) -> None:
    """It names the room that it meant then, also if it joins the next one of the name first."""
    alice = await private(cluster, "bob")
    room = Public(cluster)
    async with client_at(others(cluster)[0].port, "bob") as bob:
        assert bob.room_identities == {}
        await bob.join(LOG)
        saved = bob.room_identities[LOG]
        assert saved == stored(cluster.home(LOG))[0].epoch
        await bob.send(LOG, "before", room_identity=saved)
    await room.replaces(alice)
    async with client_at(others(cluster)[0].port, "bob") as bob:
        await is_gone(bob.send(LOG, "secret 1", room_identity=saved))
        posted = await bob.post(LOG, "secret 2", room_identity=saved)
        await is_gone(posted)
        async with bob.room(LOG) as other:
            assert other.identity == bob.room_identities[LOG] == room.identity != saved
            await is_gone(bob.send(LOG, "secret 3", room_identity=saved))
            await other.send("for all")
        assert other.identity == b""
        await bob.send(LOG, "for whoever is there")
    assert room.bodies() == [b"for all", b"for whoever is there"]


async def test_what_waited_for_space_is_meant_for_the_room_of_its_call(cluster: Cluster) -> None:
    """The window is full, and the program joins the new room before there is space."""
    alice = await private(cluster, "bob")
    room = Public(cluster)
    async with Gate() as gate:
        gate.target = others(cluster)[0].port
        async with client_at(gate.port, "bob", window=2) as bob:
            await bob.join(LOG)
            gate.shut()
            await until(lambda: bob.state is not State.ONLINE, "bob to be away")
            sends = [asyncio.ensure_future(bob.send(LOG, f"secret {n}")) for n in range(PENDING)]
            await asyncio.sleep(0)  # each of them begins
            await room.replaces(alice)
            joining = asyncio.ensure_future(joins_again(bob))
            gate.open.set()
            for send in sends:
                await is_gone(send)
            await joining
            await bob.send(LOG, "hello, mallory")
    assert room.bodies() == [b"hello, mallory"]


async def joins_again(client: Client) -> None:
    """What a program may do that wants to be in a room whatever happens."""
    await unfollowed(client)
    await client.join(LOG)


@contextlib.asynccontextmanager
async def put_out(cluster: Cluster) -> AsyncIterator[tuple[Client, Public]]:
    """A client whose room was deleted, and the next room of its name, which is not there yet."""
    alice = await private(cluster, "bob")
    room = Public(cluster)
    async with client_at(others(cluster)[0].port, "bob") as bob:
        await bob.join(LOG)
        await done(alice, requests.Delete())
        await unfollowed(bob)
        yield bob, room


@pytest.mark.parametrize("how", ["joins", "leaves", "creates", "enters"])
async def test_what_a_program_means_after_it_was_removed(cluster: Cluster, how: str) -> None:
    """The room that it was in, until it joins, leaves, creates or enters one."""
    async with put_out(cluster) as (bob, room):
        if how == "creates":
            await bob.create_room(LOG)
        else:
            await room.begins()
            await is_gone(bob.send(LOG, "secret"))
            await is_gone(bob.change_room(LOG, "topic", text="secret"))
            assert room.entries() == []
        if how == "joins":
            await bob.join(LOG)
        elif how == "enters":
            await bob.change_room(LOG, "enter")
        elif how == "leaves":
            with pytest.raises(NotAMember):
                await bob.leave(LOG)
        await bob.send(LOG, "hello")
    assert b"hello" in [entry.body for entry in stored(cluster.home(LOG))]


async def test_a_join_that_fails_changes_nothing(cluster: Cluster) -> None:
    """There is no room then; the next one of the name is not the one that was joined."""
    async with put_out(cluster) as (bob, room):
        with pytest.raises(NoSuchRoom):
            await bob.join(LOG)
        await room.begins()
        await is_gone(bob.send(LOG, "secret"))
    assert room.entries() == []


@pytest.mark.parametrize("repeated", [False, True], ids=["once", "again, while it is joined"])
@pytest.mark.parametrize("how", ["creates", "enters"])
async def test_a_room_that_was_created_or_entered_is_meant(
    cluster: Cluster, how: str, repeated: bool
) -> None:
    """Without a join, and whether or not it was so already: nothing of it reaches the next one."""
    owner = await TestClient.login(others(cluster)[-1], "bob" if how == "creates" else "alice")
    await TestClient.login(cluster.home(LOG), "bob")
    room = Public(cluster)
    if how == "enters":
        await done(owner, requests.Create(Kind.PRIVATE))
        await done(owner, requests.Invite("bob"))
    async with client_at(others(cluster)[0].port, "bob") as bob:

        async def act() -> None:
            if how == "creates":
                await bob.create_room(LOG, kind="private")
            else:
                await bob.change_room(LOG, "enter")

        await act()
        if repeated:
            await bob.join(LOG)
            await act()
        await bob.send(LOG, "before")
        await done(owner, requests.Delete())
        await room.begins()
        await is_gone(bob.send(LOG, "secret"))
        await is_gone(bob.change_room(LOG, "topic", text="secret"))
    assert room.entries() == []


@pytest.mark.parametrize("killed", [False, True], ids=["", "its home dies"])
async def test_a_stream_of_messages_races_the_deletion(cluster: Cluster, killed: bool) -> None:
    """On every worker: each is in the log before the deletion, or refused. Never behind it."""
    names = [f"bob{n}" for n in range(6)]
    alice = await private(cluster, *names)
    room = Public(cluster)
    workers = others(cluster) if killed else list(cluster.workers.values())
    async with contextlib.AsyncExitStack() as stack:
        bobs = [
            await stack.enter_async_context(client_at(workers[n % len(workers)].port, name))
            for n, name in enumerate(names)
        ]
        for bob in bobs:
            await bob.join(LOG)
        posts: list[Post] = [await bob.post(LOG, "before") for bob in bobs]
        await asyncio.gather(*posts)
        replacing: asyncio.Future[None] | None = None
        for n in range(STREAM):
            posts += [await bob.post(LOG, f"secret {bob.name} {n}") for bob in bobs]
            await asyncio.sleep(0)  # the workers are in this loop
            if n == STREAM // 4:
                replacing = asyncio.ensure_future(room.replaces(alice))
            if n == STREAM // 2 and killed:
                await die(cluster, cluster.home(LOG))
        assert replacing is not None
        await replacing
        posts += [await bob.post(LOG, "secret, and late") for bob in bobs]
        outcomes = await asyncio.gather(*posts, return_exceptions=True)
        for bob in bobs:
            await is_gone(bob.send(LOG, "secret"))
        assert room.entries() == []
        places = [one.seq for one in outcomes if isinstance(one, Stored)]
        assert places, "some came before the deletion"
        assert max(places) < room.began - 1, "the entry before it is the deletion"
        others_ = [one for one in outcomes if not isinstance(one, Stored)]
        assert others_, "some came after the deletion"
        assert {type(one) for one in others_} == {NoSuchRoom}


async def seen(client: Client, what: Stored) -> Message:
    """Return a message that was stored, once it has come."""
    async with asyncio.timeout(DEADLINE_S):
        async for event in client:
            if isinstance(event, Message) and event.cursor == what.cursor:
                return event
    raise AssertionError


async def unfollowed(client: Client) -> Unfollowed:
    """Wait until a client is no longer in its room."""
    async with asyncio.timeout(DEADLINE_S):
        async for event in client:
            if isinstance(event, Unfollowed):
                return event
    raise AssertionError


async def is_gone(answer: Awaitable[object]) -> None:
    """Its room no longer exists."""
    with pytest.raises(NoSuchRoom, match=GONE):
        await answer


# --- other clients --------------------------------------------------------------------------------
async def test_the_identity_of_a_room(cluster: Cluster) -> None:
    """Is the same on every worker and for every user, and another one for the next room."""
    alice = await private(cluster, "bob")
    bobs = [await TestClient.login(worker, "bob") for worker in cluster.workers.values()]
    (identity,) = {(await joined(client)).identity for client in (alice, *bobs)}
    assert identity == alice.entries(LOG)[0].epoch
    room = Public(cluster)
    await room.replaces(alice)
    (other,) = {(await joined(bob)).identity for bob in bobs}
    assert other == room.identity == room.mallory.entries(LOG)[0].epoch != identity
    assert (await joined(bobs[0], "nowhere")).identity == b""
    assert (await joined(bobs[0], "@bob")).identity == b""


@pytest.mark.parametrize(
    "wrong",
    ["of the first room", "of the second room", "unknown", "shortened", "empty epoch"],
)
async def test_a_wrong_identity(cluster: Cluster, wrong: str) -> None:
    """Is refused for good, whatever it is for, by the home and by other workers."""
    alice = await private(cluster)
    first = (await joined(alice)).identity
    middle = Public(cluster)
    await middle.replaces(alice)
    room = Public(cluster)
    await done(middle.mallory, requests.Delete())
    await room.begins()
    identity = {
        "of the first room": first,
        "of the second room": middle.identity,
        "unknown": secrets.token_bytes(8),
        "shortened": room.identity[:7],
        "empty epoch": NO_EPOCH,
    }[wrong]
    state = cluster.home(LOG).parts.home.partitions.state(LOG)
    topic = requests.pack(requests.SetTopic("secret"), EVERYTHING)
    for worker in cluster.workers.values():
        client = await TestClient.login(worker, "mallory")
        client.send_envelopes(
            named(identity, 1), Room(7, LOG, topic, identity), Join(8, LOG, None, 0, 9, identity)
        )
        refused = await client.expect(Refused)
        assert (refused.code, GONE in refused.text) == (ErrorCode.NO_SUCH_ROOM, True)
        for number in (7, 8):
            error = await client.expect(Error, lambda e, n=number: e.request == n)  # type: ignore[misc]
            assert (error.code, GONE in error.text) == (ErrorCode.NO_SUCH_ROOM, True)
        assert client.entries(LOG) == []
        assert (await joined(client)).identity == room.identity
        client.send_envelopes(named(room.identity, 1), named(b"", 2))  # none: whichever it is
        await client.expect(Ack, count=2)
    assert room.bodies() == [b"secret 1", b"secret 2"] * 3
    assert cluster.home(LOG).parts.home.partitions.state(LOG) == state


@pytest.mark.parametrize("value", [b"123456789", b"x" * 60_000, "12345678", 0, None, True, [b""]])
@pytest.mark.parametrize("what", ["SEND", "JOIN", "ROOM"])
async def test_an_illegal_identity(cluster: Cluster, what: str, value: object) -> None:
    """Violates the protocol: nothing of the record is done."""
    alice = await private(cluster)
    fields: dict[str, tuple[object, ...]] = {
        "SEND": (LOG, 1, 0, "", b"secret", b"", 0),
        "JOIN": (5, LOG, None, 0, 9),
        "ROOM": (5, LOG, requests.pack(requests.Delete(), EVERYTHING)),
    }
    packed = msgpack.packb([Op[what], *fields[what], value])
    before = stored(cluster.home(LOG))
    alice.transport.write(alice.sealed(pack(Send(LOG, 1, 0, "", b"first")) + packed))
    await alice.ended()
    assert alice.closed is not None
    assert alice.closed.code == CloseCode.PROTOCOL
    assert stored(cluster.home(LOG)) == before


async def test_a_room_that_never_was(cluster: Cluster) -> None:
    """A message for a certain room begins no other one."""
    alice = await TestClient.login(cluster.other(LOG), "alice")
    for number, identity in enumerate((NO_EPOCH, secrets.token_bytes(8)), 1):
        alice.send_envelopes(named(identity, 1), Join(number, LOG, None, 0, 9, identity))
        refused = await alice.expect(Refused, count=number)
        error = await alice.expect(Error, lambda e, n=number: e.request == n)  # type: ignore[misc]
        assert refused.code == error.code == ErrorCode.NO_SUCH_ROOM
    assert stored(cluster.home(LOG)) == []


async def test_a_room_from_before_there_were_entries_that_begin_one(tmp_path: Path) -> None:
    """Has an identity, too: the one that no entry gives."""
    async with Cluster(tmp_path, 2) as before:
        alice = await TestClient.login(before.home(LOG), "alice")
        alice.send(LOG, 1)
        await alice.acked(LOG, 1)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    async with Cluster(tmp_path, 2, rights=True) as cluster:
        opera = await operator(cluster)
        bob = await TestClient.login(cluster.other(LOG), "bob")
        answer = await joined(bob)
        assert answer.identity == NO_EPOCH
        bob.send_envelopes(named(answer, 1))
        assert (await bob.acked(LOG, 1)).seq == 2
        await done(opera, requests.SetRole("bob", Role.OWNER))
        room = Public(cluster)
        await room.replaces(bob)
        bob.send_envelopes(named(answer, 2))
        assert (await bob.expect(Refused)).code == ErrorCode.NO_SUCH_ROOM
        assert room.entries() == []


async def test_a_repeat_stays_a_repeat(cluster: Cluster) -> None:
    """Whatever has become of the room, what was stored in it is acknowledged again."""
    alice = await private(cluster)
    secret = secrets.token_bytes(16)
    sender = await TestClient.login(others(cluster)[0], "alice", secret=secret)
    answer = await joined(sender)
    sender.send_envelopes(named(answer, 1))
    first = await sender.acked(LOG, 1)
    room = Public(cluster)
    await room.replaces(alice)
    await die(cluster, cluster.home(LOG))
    for worker in cluster.workers.values():
        again = await TestClient.login(worker, "alice", secret=secret)
        again.send_envelopes(named(answer, 1), named(answer, 2))
        assert (await again.expect(Ack))[:4] == first[:4]
        refused = await again.expect(Refused)
        assert (refused.counter, refused.code) == (2, ErrorCode.NO_SUCH_ROOM)
    assert room.entries() == []


async def test_what_is_about_a_message_of_the_former_room(cluster: Cluster) -> None:
    """And what is about one of the new room, but was meant for the former one."""
    alice = await private(cluster)
    answer = await joined(alice)
    alice.send_envelopes(named(answer, 1))
    await alice.acked(LOG, 1)
    room = Public(cluster)
    old = alice.entries(LOG)[-1]
    await room.replaces(alice)
    room.mallory.send(LOG, 1)
    await room.mallory.acked(LOG, 1)
    new = room.mallory.entries(LOG)[-1]
    await done(room.mallory, requests.SetRole("alice", Role.MODERATOR))
    before = room.entries()
    kinds = (EntryKind.MESSAGE, EntryKind.EDIT, EntryKind.REACTION, EntryKind.REDACTION)
    for worker in cluster.workers.values():
        again = await TestClient.login(worker, "alice")
        cases = [(kind, about) for kind in kinds for about in (old, new)]
        for count, (kind, about) in enumerate(cases, 1):
            again.send_envelopes(named(answer, 1, about, kind))
            refused = await again.expect(Refused, count=count)
            assert refused.code == ErrorCode.NO_SUCH_ROOM, (kind, about)
    assert room.entries() == before


REQUESTS: tuple[requests.Request, ...] = (
    requests.SetTopic("secret"), requests.SetTitle("secret"), requests.Invite("carol"),
    requests.Kick("bob"), requests.Ban("bob"), requests.Ban("bob", 60), requests.Unban("eve"),
    requests.Mute("bob"), requests.Unmute("mute"), requests.SetRole("bob", Role.OWNER),
    requests.SetKind(Kind.ANNOUNCE, listed=True), requests.Close(), requests.Reopen(),
    requests.SetKeep(60, 0, 0), requests.Enter(), requests.Leave(), requests.Delete(),
    requests.Show(""), requests.Create(Kind.PUBLIC),
)  # fmt: skip


async def test_requests_for_the_former_room(cluster: Cluster) -> None:
    """Nothing of the new room is changed, though its owner asks."""
    alice = await private(cluster)
    identity = (await joined(alice)).identity
    room = Public(cluster)
    for name in ("bob", "carol", "eve", "mute"):
        await TestClient.login(cluster.home(LOG), name)
    await room.replaces(alice)
    await done(room.mallory, requests.SetRole("alice", Role.OWNER))
    await done(room.mallory, requests.SetRole("bob", Role.MEMBER))
    await done(room.mallory, requests.Ban("eve"))
    await done(room.mallory, requests.Mute("mute"))
    room.mallory.send(LOG, 1)
    message = await room.mallory.acked(LOG, 1)
    before = room.entries()
    for worker in cluster.workers.values():
        again = await TestClient.login(worker, "alice")
        for number, request in enumerate((*REQUESTS, requests.Redact(message.seq)), 10):
            content = requests.pack(request, EVERYTHING)
            again.send_envelopes(Room(number, LOG, content, identity))
            error = await again.expect(Error, lambda e, n=number: e.request == n)  # type: ignore[misc]
            assert error.code == ErrorCode.NO_SUCH_ROOM, request
    assert room.entries() == before
    for request in (requests.Redact(message.seq), requests.SetTopic("tea"), requests.Ban("bob")):
        room.mallory.send_envelopes(
            Room(99, LOG, requests.pack(request, EVERYTHING), room.identity)
        )
    await room.mallory.expect(Done, lambda e: e.request == 99, 3)


async def test_what_a_moderator_asked_for_arrives_after_the_recreation(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what others wrote: a worker is slow to deliver it all."""
    alice = await private(cluster, "bob", "mona")
    await done(alice, requests.SetRole("mona", Role.MODERATOR))
    home, there = cluster.home(LOG), others(cluster)[0]
    room = Public(cluster)
    async with contextlib.AsyncExitStack() as stack:
        bob, *monas = [
            await stack.enter_async_context(client_at(there.port, name))
            for name in ("bob", "mona", "mona", "mona")
        ]
        for client in (bob, *monas):
            await client.join(LOG)
        queries, forward = there.parts.member.queries, there.parts.member.forward
        with monkeypatch.context() as patch:
            hold(patch, there.parts.links[home.index])
            under_way = [
                asyncio.ensure_future(one)
                for one in (
                    bob.send(LOG, "secret"),
                    monas[0].change_room(LOG, "ban", "bob"),
                    monas[1].change_room(LOG, "topic", text="secret"),
                    monas[2].change_room(LOG, "kick", "bob"),
                )
            ]
            await until(
                lambda: forward.unanswered == 1 and len(queries._asked) == 3,
                "all four to be under way",
            )
            await room.replaces(alice)
            await done(room.mallory, requests.SetRole("mona", Role.OWNER))
            before = room.entries()
        there.parts.links[home.index].flush()
        for one in under_way:
            await is_gone(one)
    assert room.entries() == before


async def test_a_cursor_of_the_former_room(cluster: Cluster) -> None:
    """With its identity it leads to no entry of the new one, wherever it is tried."""
    alice = await private(cluster)
    answer = await joined(alice)
    alice.send_envelopes(named(answer, 1))
    await alice.acked(LOG, 1)
    old = alice.entries(LOG)[-1]
    room = Public(cluster)
    await room.replaces(alice)
    room.mallory.send(LOG, 1, 3)
    await room.mallory.acked(LOG, 3)
    for worker in cluster.workers.values():
        again = await TestClient.login(worker, "alice")
        for number, seq in enumerate((0, old.seq, room.began, room.began + 3), 5):
            for epoch in (old.epoch, room.identity):
                again.received.clear()
                again.send_envelopes(Join(number, LOG, epoch, seq, 0, answer.identity))
                assert (await again.expect(Error)).code == ErrorCode.NO_SUCH_ROOM
        again.send_envelopes(History(20, LOG, False, 0, 9), Who(21, LOG))
        for number in (20, 21):
            error = await again.expect(Error, lambda e, n=number: e.request == n)  # type: ignore[misc]
            assert error.code == ErrorCode.NOT_A_MEMBER
        assert again.entries(LOG) == []
        again.send_envelopes(Join(22, LOG, old.epoch, old.seq, 0, room.identity))
        assert (await again.expect(Joined)).identity == room.identity


async def test_a_worker_that_lags(cluster: Cluster) -> None:
    """It has not heard of the deletion: who comes back there sees nothing of the new room, and who
    comes from the new room waits until it is there.
    """
    alice = await private(cluster, "bob")
    there = others(cluster)[0]
    bob = await TestClient.login(there, "bob")
    answer = await joined(bob)
    feed = there.feed(LOG)
    feed.paused_until = float("inf")
    room = Public(cluster)
    await room.replaces(alice)
    room.mallory.send(LOG, 1, 3)
    last = await room.mallory.acked(LOG, 3)
    late, new = [await TestClient.login(there, name) for name in ("alice", "mallory")]
    late.send_envelopes(Join(1, LOG, None, 0, 9, answer.identity))
    new.send_envelopes(Join(1, LOG, None, 0, 9, room.identity))
    await until(lambda: feed.awaiting, "a join that waits")
    assert (await late.expect(Joined)).identity == answer.identity
    feed.paused_until = 0.0
    there.parts.wakeup.request()
    for client in (bob, late):
        assert (await client.expect(Removed)).code == ErrorCode.NO_SUCH_ROOM
    assert (await new.expect(Joined)).identity == room.identity
    await new.ends_with(LOG, last.seq)
    for client in (bob, late):
        client.send_envelopes(Who(9, LOG))
        await client.expect(Error, lambda e: e.request == 9)
        assert max(client.seqs(LOG), default=0) < room.began
        client.send_envelopes(named(answer, 1))
        assert (await client.expect(Refused)).code == ErrorCode.NO_SUCH_ROOM
    assert room.bodies() == [b"mallory 1", b"mallory 2", b"mallory 3"]
