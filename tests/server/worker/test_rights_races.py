"""Changes of rights that race on several workers with what they forbid, also with a home's death.

Whatever comes first is decided by the log: the checker of the torture tests compares all that is
stored, and all that was shown, with it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from relay.bus.link import Link
from relay.bus.messages import NotFollowed
from relay.chat.accounts import invitation
from relay.chat.accounts import requests as accounts
from relay.chat.entries import Kind as EntryKind
from relay.chat.partition import partition_of
from relay.chat.rooms import requests
from relay.chat.rooms import state as states
from relay.chat.rooms.events import Kind, Role
from relay.client.devices.device_key import DeviceKey
from relay.server.worker.home.log_changes import PendingRequest
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import (
    Account,
    Ack,
    Behind,
    ClientEnvelope,
    Done,
    EntryMessage,
    Error,
    Gap,
    History,
    Join,
    Joined,
    Live,
    Page,
    Refused,
    Removed,
    Room,
    Roster,
    Send,
)
from tests.server.worker.test_lost_names import THERE, Registering, invited
from tests.server.worker.test_rooms import LOG, ask, done, operator, stored
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient, Worker
from tests.torture import rights

ROUNDS = 12
BEFORE = 4
"""Rounds before the change is requested."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 3, rights=True) as running:
        yield running


async def die(cluster: Cluster, home: Worker) -> None:
    await cluster.kill(home.index)
    await cluster.start(home.index)


def others(cluster: Cluster, log: str = LOG) -> list[Worker]:
    home = cluster.home(log)
    return [worker for worker in cluster.workers.values() if worker is not home]


# --- whatever a change forbids --------------------------------------------------------------------
CHANGES: dict[str, tuple[Kind, requests.Change]] = {
    "ban": (Kind.PUBLIC, requests.Ban("bob")),
    "a ban that ends": (Kind.PUBLIC, requests.Ban("bob", 3600)),
    "kick": (Kind.PRIVATE, requests.Kick("bob")),
    "mute": (Kind.PUBLIC, requests.Mute("bob")),
    "no moderator any more": (Kind.PUBLIC, requests.SetRole("bob", Role.MEMBER)),
    "no member any more": (Kind.PRIVATE, requests.SetRole("bob", Role.NONE)),
    "close": (Kind.PUBLIC, requests.Close()),
    "announcements": (Kind.PUBLIC, requests.SetKind(Kind.ANNOUNCE, listed=True)),
    "delete": (Kind.PUBLIC, requests.Delete()),
}


class Doing:
    """One of bob's connections, which does all that there is to do in a room."""

    def __init__(self, client: TestClient, targets: list[EntryMessage]) -> None:
        """Begin; ``targets``: messages of somebody else, for this connection alone: after a
        refusal nothing more is stored of what it sends.
        """
        self.client = client
        self._targets = targets
        self._counter = 0
        self._asked = 0
        self.own: EntryMessage

    async def begins(self) -> None:
        """Follow the room, and write a message to change later."""
        await self.client.join(LOG)
        self._send(EntryKind.MESSAGE)
        ack = await self.client.acked(LOG, 1)
        self.own = await self.client.expect(EntryMessage, lambda e: e.seq == ack.seq)

    def does(self, n: int) -> None:
        """Write, edit, react, erase, change the topic, and read."""
        target = self._targets[n]
        self._send(EntryKind.MESSAGE)
        self._send(EntryKind.EDIT, self.own)
        self._send(EntryKind.REACTION, target)
        self._send(EntryKind.REDACTION, target)
        topic = f"{self.client.producer.hex()} {n}"
        self._ask(lambda number: History(number, LOG, False, 0, 20))
        content = requests.pack(requests.SetTopic(topic), requests.ANYTHING_SEEN)
        self._ask(lambda number: Room(number, LOG, content))
        self._ask(lambda number: Join(number, LOG, None, 0, 5))

    def _send(self, kind: EntryKind, about: EntryMessage | None = None) -> None:
        self._counter += 1
        place = (b"", 0) if about is None else (about.epoch, about.seq)
        body = b"+1" if kind is EntryKind.REACTION else secrets.token_hex(8).encode()
        send = Send(LOG, self._counter, int(kind), "text/plain", body, *place)
        self.client.send_envelopes(send)

    def _ask(self, envelope: Callable[[int], History | Room | Join]) -> None:
        self._asked += 1
        self.client.send_envelopes(envelope(1000 + self._asked))

    @property
    def answered(self) -> bool:
        """True once each send and each request has its answer."""
        received = self.client.received
        sends = sum(isinstance(e, Ack | Refused) for e in received)
        answers = {e.request for e in received if isinstance(e, Done | Error | Page | Joined)}
        return sends >= self._counter and len(answers - {1}) >= self._asked

    def seen(self) -> rights.Seen:
        """Return what it got of the room."""
        live, is_live = [], False
        together: list[int] = []
        answers = [together]
        for one in self.client.received:
            match one:
                case Live():
                    is_live = True
                case Joined() | Behind() | Gap() | Removed():
                    is_live, together = False, []
                    answers.append(together)
                case EntryMessage(seq=seq):
                    together.append(seq)
                    if is_live:
                        live.append(seq)
                case Page(entries=entries):
                    answers.append([entry.seq for entry in entries])
                case _:
                    pass
        return rights.Seen([seq for answer in answers for seq in answer], live, answers)


@pytest.mark.parametrize("killed", [False, True], ids=["", "its home dies"])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_and_all_that_it_forbids(
    cluster: Cluster, change: str, killed: bool
) -> None:
    """On other workers, while it is decided: the log has nothing that it forbids, nobody is shown
    any of it, and it comes to an end.
    """
    kind, request = CHANGES[change]
    home, elsewhere = cluster.home(LOG), others(cluster)
    alice = await TestClient.login(elsewhere[0], "alice")
    await TestClient.login(elsewhere[0], "bob")
    await done(alice, requests.Create(kind))
    await done(alice, requests.SetRole("bob", Role.MODERATOR))
    carol = await TestClient.login(elsewhere[1], "carol")
    if kind is Kind.PRIVATE:
        await done(alice, requests.Invite("carol"))
    places = elsewhere if killed else [*elsewhere, home]
    count = ROUNDS * len(places)
    carol.send(LOG, 1, count)
    await carol.acked(LOG, count)
    of_carol = [entry for entry in stored(home) if entry.sender == "carol"]
    bobs = [
        Doing(await TestClient.login(place, "bob"), of_carol[number :: len(places)])
        for number, place in enumerate(places)
    ]
    for bob in bobs:
        await bob.begins()
    changing: asyncio.Future[bytes] | None = None
    for n in range(ROUNDS):
        if n == BEFORE:
            changing = asyncio.ensure_future(done(alice, request))
        for bob in bobs:
            bob.does(n)
        await asyncio.sleep(0)  # the workers are in this loop
        if n == BEFORE and killed:
            await die(cluster, home)
    assert changing is not None
    await changing
    await until(lambda: all(bob.answered for bob in bobs), "all answers")
    log = stored(cluster.home(LOG))
    kinds = {entry.kind for entry in log}
    assert kinds >= {EntryKind.EDIT, EntryKind.REACTION, EntryKind.REDACTION, EntryKind.ERASED}
    found: list[rights.Finding] = []
    for bob in bobs:
        found += rights.check(log, {"bob": bob.seen()})
    assert found == []


# --- a change whose answer is lost ----------------------------------------------------------------
@pytest.mark.parametrize(
    "request_",
    [
        requests.Kick("bob"), requests.Ban("bob"), requests.Ban("bob", 3600),
        requests.Mute("bob", 3600), requests.Invite("carol"), requests.SetTopic("tea"),
        requests.SetRole("bob", Role.MODERATOR), requests.Close(), requests.Delete(),
    ],
    ids=lambda one: type(one).__name__ + (" for a time" if getattr(one, "seconds", 0) else ""),
)  # fmt: skip
async def test_a_change_that_is_asked_for_again_by_its_next_home(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, request_: requests.Change
) -> None:
    """The home stored it and died before it could answer: nobody else has changed anything."""
    home, (there, _) = cluster.home(LOG), others(cluster)
    alice = await TestClient.login(there, "alice")
    for name in ("bob", "carol"):
        await TestClient.login(there, name)
    await done(alice, requests.Create(Kind.PRIVATE))
    await done(alice, requests.Invite("bob"))
    version = stored(home)[-1].seq
    monkeypatch.setattr(home.parts.home.rooms, "_done", lambda *_: None)
    asking = asyncio.ensure_future(ask(alice, request_, seen=version))
    await until(lambda: stored(home)[-1].seq > version, "the change to be stored")
    await die(cluster, home)
    assert isinstance(await asking, Done)
    assert list(rights.check(stored(cluster.home(LOG)), {})) == []


# --- operators ------------------------------------------------------------------------------------
def hold(patch: pytest.MonkeyPatch, link: Link) -> None:
    """Keep back what is written to a link."""
    flush = Link.flush
    patch.setattr(Link, "flush", lambda self: None if self is link else flush(self))


async def test_what_an_operator_had_sent_arrives_after_the_end_of_their_rights(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is slow to deliver it to a home, which knows by then that the devices are good for
    messages again. Nothing is done by the rights of before.
    """
    home = cluster.home(LOG)
    there, of_mallory = others(cluster)
    mallory = next(cluster.names_of(of_mallory))
    victim = next(cluster.names_of(home))
    opera = await operator(cluster)
    alice = await TestClient.login(home, "alice")
    await done(alice, requests.Create(Kind.PRIVATE))
    alice.send(LOG, 1, 2)
    first, second = [await alice.acked(LOG, counter) for counter in (1, 2)]
    for name in (mallory, victim):
        await TestClient.login(there, name)

    async def promote(number: int, operator: bool) -> None:
        content = accounts.pack(accounts.Promote(operator=operator))
        opera.send_envelopes(Account(number, mallory, content))
        await opera.expect(Done, lambda e: e.request == number)

    await promote(70, True)
    sessions = [await TestClient.login(there, mallory) for _ in range(4)]
    queries, forward = there.parts.member.queries, there.parts.member.forward
    with monkeypatch.context() as patch:
        hold(patch, there.parts.links[home.index])
        place = first.epoch, first.seq
        own = requests.SetRole(mallory, Role.OWNER)
        redact = requests.Redact(second.seq)
        under_way: list[ClientEnvelope] = [
            Send(LOG, 1, int(EntryKind.REDACTION), "text/plain", b"", *place),
            Room(5, LOG, requests.pack(own, requests.ANYTHING_SEEN)),
            Room(5, LOG, requests.pack(redact, requests.ANYTHING_SEEN)),
            Account(5, victim, accounts.pack(accounts.Disable())),
        ]
        for session, envelope in zip(sessions, under_way, strict=True):
            session.send_envelopes(envelope)
        await until(
            lambda: forward.unanswered == 1 and not forward.waiting and len(queries._asked) == 3,
            "all four to be under way",
        )
        await promote(71, False)
        for session in sessions:
            await session.ended()
    late = await TestClient.login(there, "late")
    late.send_envelopes(Join(9, LOG, None, 0, 0))
    error = await late.expect(Error, lambda e: e.request == 9)  # behind all that was held back
    assert error.code == ErrorCode.MEMBERS_ONLY
    await done(alice, requests.SetTopic("after all that waited"))
    room = states.unpack(home.parts.home.partitions.state(LOG))
    assert room.people.keys() == {"alice"}
    assert not any(entry.kind == EntryKind.ERASED for entry in stored(home))
    await TestClient.login(there, victim)


# --- what a lagging worker shows ------------------------------------------------------------------
async def test_who_was_just_invited_joins_at_a_worker_that_lags(cluster: Cluster) -> None:
    """The join waits until this worker has the invitation; a stranger is refused at once."""
    alice = await TestClient.login(cluster.home(LOG), "alice")
    there = others(cluster)[0]
    carol, bob, eve = [await TestClient.login(there, name) for name in ("carol", "bob", "eve")]
    await done(alice, requests.Create(Kind.PRIVATE))
    await done(alice, requests.Invite("carol"))
    await carol.join(LOG)
    feed = there.feed(LOG)
    feed.paused_until = float("inf")
    await done(alice, requests.Invite("bob"))
    bob.send_envelopes(Join(1, LOG, None, 0, 0))
    await until(lambda: feed.awaiting, "a join that waits")
    eve.send_envelopes(Join(1, LOG, None, 0, 0))
    assert (await eve.expect(Error)).code == ErrorCode.MEMBERS_ONLY
    bob.disconnect()
    await bob.gone(there)
    again = await TestClient.login(there, "bob")
    again.send_envelopes(Join(1, LOG, None, 0, 0))
    await until(lambda: len(feed.awaiting) == 2, "another one")
    feed.paused_until = 0.0
    there.parts.wakeup.request()
    assert (await again.expect(Joined)).head_seq == stored(there)[-1].seq
    await again.expect(Live)
    assert feed.awaiting == []


async def test_a_join_that_waits_ends_with_its_feed(cluster: Cluster) -> None:
    """The log was lost here: nobody waits for what will not come."""
    alice = await TestClient.login(cluster.home(LOG), "alice")
    there = others(cluster)[0]
    carol, bob = [await TestClient.login(there, name) for name in ("carol", "bob")]
    await done(alice, requests.Create(Kind.PRIVATE))
    await done(alice, requests.Invite("carol"))
    await carol.join(LOG)
    feed = there.feed(LOG)
    feed.paused_until = float("inf")
    await done(alice, requests.Invite("bob"))
    bob.send_envelopes(Join(1, LOG, None, 0, 0))
    await until(lambda: feed.awaiting, "a join that waits")
    feed.fail()
    assert (await bob.expect(Error)).code == ErrorCode.MEMBERS_ONLY
    await carol.ended()
    await bob.join(LOG)  # at the next one


@pytest.mark.parametrize("code", [ErrorCode.UNAVAILABLE, ErrorCode.DAMAGED])
async def test_a_join_that_waits_ends_with_what_the_home_reports(
    cluster: Cluster, code: ErrorCode
) -> None:
    """The home has been away for long, or the log is damaged: no entry will come from there."""
    alice = await TestClient.login(cluster.home(LOG), "alice")
    there = others(cluster)[0]
    carol, bob = [await TestClient.login(there, name) for name in ("carol", "bob")]
    await done(alice, requests.Create(Kind.PRIVATE))
    await done(alice, requests.Invite("carol"))
    await carol.join(LOG)
    feed, feeds = there.feed(LOG), there.parts.member.feeds
    feed.paused_until = float("inf")
    await done(alice, requests.Invite("bob"))
    bob.send_envelopes(Join(1, LOG, None, 0, 0))
    await until(lambda: feed.awaiting, "a join that waits")
    if code == ErrorCode.UNAVAILABLE:
        feeds.give_up(frozenset({partition_of(LOG)}), "away")
    else:
        feeds.on_not_followed(NotFollowed(LOG, int(code), "damaged"))
    assert (await bob.expect(Error)).code == code


async def test_who_is_banned_sees_nobody_come_afterwards(cluster: Cluster) -> None:
    """Presence is as of now: what is behind the ban must not overtake it."""
    alice = await TestClient.login(cluster.home(LOG), "alice")
    there = others(cluster)[0]
    bob, carol = [await TestClient.login(there, name) for name in ("bob", "carol")]
    await done(alice, requests.Create())
    for client in (bob, carol):
        await client.join(LOG)
    feed = there.feed(LOG)
    await until(lambda: not feed.events and not feed.running, "a quiet room")
    feed.paused_until = float("inf")
    await done(alice, requests.Ban("bob"))
    await until(lambda: feed.running, "the ban")
    dave = await TestClient.login(cluster.home(LOG), "dave")
    await dave.join(LOG)
    await until(lambda: feed.events, "the arrival")
    feed.paused_until = 0.0
    there.parts.wakeup.request()
    await carol.expect(Roster, lambda e: any(name == "dave" for name, _ in e.joined))
    await bob.expect(Removed)
    came = [name for e in bob.received if isinstance(e, Roster) for name, _ in e.joined]
    assert "dave" not in came


# --- invitations to the server --------------------------------------------------------------------
@pytest.mark.parametrize("killed", [False, True], ids=["", "its home dies"])
async def test_an_invitation_is_used_twice_at_once(cluster: Cluster, killed: bool) -> None:
    """For two names, on two workers: one account comes of it."""
    (first,) = await invited(cluster, "paul")
    second = Registering("quentin", first.token)
    log = invitation.log_of(invitation.hash_of(first.token))
    home, index = cluster.home(log), partition_of(log)
    assert index == THERE
    partitions = home.parts.home.partitions
    await until(lambda: partitions.begin_removal(index) is not None, "nobody at work in it")
    for one, worker in zip((first, second), others(cluster, log), strict=True):
        one.client = await TestClient.connect(worker)
        one.client.send_envelopes(one.envelope())
    changes = home.parts.home.accounts._by_log
    await until(lambda: log in changes and changes[log].waiting, "both to ask")
    if killed:
        await die(cluster, home)
    else:
        partitions.end_removal(index)

    def outcomes() -> list[bool]:
        ends = [
            [e for e in one.client.received if isinstance(e, Done | Error)]
            for one in (first, second)
        ]
        return [isinstance(end[0], Done) for end in ends if end]

    await until(lambda: len(outcomes()) == 2, "both answers")
    assert sorted(outcomes()) == [False, True]
    loser = second if outcomes()[0] else first
    await loser.is_refused(ErrorCode.INVITATION_NEEDED)


async def test_a_registration_that_may_be_done_is_asked_for_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The invitation is bound, and the home of the name is not available: the same device goes on,
    and no other one.
    """
    (one,) = await invited(cluster, "paul")
    home = cluster.home("@paul").parts.home.accounts
    decide = home._decide

    def away(asked: PendingRequest) -> None:
        request = accounts.unpack(asked.ask.content)
        if isinstance(request, accounts.Register) and not request.probe:
            asked.refuse(ErrorCode.UNAVAILABLE, "as this test wants it")
        else:
            decide(asked)

    with monkeypatch.context() as patch:
        patch.setattr(home, "_decide", away)
        await one.asks(cluster)
        await one.client.ended()
    assert one.client.closed is not None
    assert one.client.closed.code == CloseCode.LOGIN_UNAVAILABLE
    assert one.client.closed.retry_after_s > 0
    assert not any(isinstance(e, Error) for e in one.client.received)
    key, one.key = one.key, DeviceKey.generate()
    for name in ("paul", "quentin"):
        await one.asks(cluster, name)
        await one.is_refused(ErrorCode.INVITATION_NEEDED)
    one.key = key
    await one.asks(cluster)
    await one.has_registered()
