"""Removed devices: when the answer is "done", and their late messages, whichever worker is slow."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from relay.bus.messages import Claimed, Revoke, Revoked
from relay.chat.accounts import requests as account_requests
from relay.chat.entries import Extra, Kind, Submission
from relay.chat.partition import partition_of
from relay.chat.rooms import requests
from relay.chat.rooms import state as rooms_state
from relay.client.devices.device_key import DeviceKey
from relay.server.scoreboard import Owner
from relay.server.worker.home.accounts.revocations import Revocations
from relay.server.worker.home.committing.revoked_devices import RevokedDevices
from relay.server.worker.home.submissions import Waiting
from relay.server.worker.member.claims import Claims, Grant
from relay.server.worker.member.routes import Routes
from relay.server.worker.process.messaging.own_home import OwnHome
from relay.server.worker.wakeup import Wakeup
from relay.store.log import Outcome, Partition
from relay.store.read_budget import ReadBudget
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Account, Done, Error, Refused, Room
from tests.server.worker.test_logins import add_device, ask, login_as, removal
from tests.support.cluster import DEADLINE_S, until
from tests.support.devices import device
from tests.support.operators import an_operator
from tests.support.workers import Cluster, TestClient

LOG = "lobby"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2) as running:
        yield running


class Way:
    """The way to a worker; it keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: object) -> None:
        self.sent.append(message)


def started(ways: list[Way]) -> tuple[Revocations, list[str]]:
    done: list[str] = []
    revocations = Revocations(lambda: cast("Any", ways))
    revocations.start(
        "bob", [bytes(16)], by_operator=False, lifted=False, done=lambda: done.append("done")
    )
    return revocations, done


def confirm(revocations: Revocations, way: Way) -> None:
    revocations.confirmed(cast("Any", way), Revoked(way.sent[0].tag))


def test_it_is_done_when_all_live_workers_have_confirmed() -> None:
    """Not with the first confirmation, and once; repeated confirmations count once."""
    one, two, three = ways = [Way(), Way(), Way()]
    revocations, done = started(ways)
    assert all(len(way.sent) == 1 for way in ways)
    confirm(revocations, one)
    confirm(revocations, one)
    confirm(revocations, two)
    assert not done
    confirm(revocations, three)
    assert done == ["done"]
    confirm(revocations, three)
    assert done == ["done"]


def test_nobody_waits_for_a_worker_that_died() -> None:
    one, two = ways = [Way(), Way()]
    revocations, done = started(ways)
    revocations.drop(cast("Any", one))
    assert not done
    confirm(revocations, two)
    assert done == ["done"]


def test_the_devices_that_were_revoked_last_are_remembered() -> None:
    """Messages of them may still be under way. Devices that are restored are forgotten."""
    revoked = RevokedDevices(most=2)
    for name in ("ann", "bob", "ann", "cat"):
        revoked.add(name, [bytes(16)])
    assert [name for name, _ in revoked.devices] == ["ann", "cat"]
    revoked.lift("ann", [bytes(16)])
    assert [name for name, _ in revoked.devices] == ["cat"]


@pytest.mark.parametrize(
    ("log", "kind", "extra", "included"),
    [
        (LOG, Kind.MESSAGE, None, True),
        (LOG, Kind.SYSTEM, None, True),
        ("@ann", Kind.SYSTEM, None, True),
        ("@bob", Kind.SYSTEM, None, False),  # its list of devices decides
        ("@bob", Kind.MESSAGE, Extra(to="ann"), True),
        ("@ann", Kind.MESSAGE, Extra(origin_epoch=b"epoch..8", origin_seq=1), False),  # a copy
    ],
)
def test_what_is_stored_of_a_revoked_device(
    log: str, kind: Kind, extra: Extra | None, included: bool
) -> None:
    revoked = RevokedDevices()
    revoked.add("bob", [b"device-1"])
    port = OwnHome(0, 1, Wakeup(lambda _: None)).to_member
    for key_id, of_it in ((b"device-1", True), (b"device-2", False)):
        sent = Submission(log, "bob", key_id, bytes(16), 1, int(kind), "", b"x", extra=extra)
        assert revoked.includes(Waiting(port, 1, sent)) == (included and of_it)


async def test_what_was_removed_meanwhile_does_not_come_back_with_the_others(
    cluster: Cluster,
) -> None:
    """Devices are to be restored, one of which was removed meanwhile."""
    alice = await TestClient.login(cluster.other("@alice"), "alice")
    phone = DeviceKey.generate()
    await add_device(alice, "alice", phone, 5)
    removing = account_requests.Extend(await removal(alice, "alice", phone))
    assert isinstance(await ask(alice, 6, removing, "alice"), Done)
    home = cluster.home("@alice").parts.home
    done: list[bool] = []
    both = [device("alice").public, phone.public]
    home.accounts._lift("alice", both, lambda: done.append(True))
    await until(lambda: done, "all workers to have heard of it")
    assert set(home.queues.revoked.devices) == {("alice", phone.key_id)}


async def test_a_home_stores_nothing_more_of_a_removed_device(cluster: Cluster) -> None:
    """What its worker had sent before it was told arrives after the home was told."""
    phone = await TestClient.login(cluster.other(LOG), "bob")
    phone.send(LOG, 1)
    await phone.acked(LOG, 1)
    queues = cluster.home(LOG).parts.home.queues
    queues.revoke("bob", [device("bob").key_id], lifted=False)  # and the other worker knows nothing
    phone.send(LOG, 2)
    await phone.expect(Refused)
    alice = await TestClient.login(cluster.home(LOG), "alice")
    await alice.join(LOG, last=10)
    await alice.has(LOG, 1)
    alice.send(LOG, 1)
    await alice.acked(LOG, 1)
    await alice.has(LOG, 2)
    assert [(e.sender, e.counter) for e in alice.entries(LOG)] == [("bob", 1), ("alice", 1)]


@contextlib.asynccontextmanager
async def committing(
    tmp_path: Path, sender: str
) -> AsyncIterator[tuple[Cluster, TestClient, threading.Event]]:
    """A commit of two messages runs in a thread until it may continue, and processes one of
    them.
    """
    async with Cluster(tmp_path, 1, durability="power") as cluster:
        parts, index = cluster.workers[0].parts, partition_of(LOG)
        client = await TestClient.login(cluster.workers[0], sender)
        client.send(LOG, 1)
        await client.acked(LOG, 1)
        await until(lambda: parts.home.partitions.begin_removal(index) is not None, "no commit")
        client.send(LOG, 2)
        client.send(LOG, 3)
        await until(lambda: parts.home.queues.by_partition[index].count == 2, "both in the queue")
        real = parts.home.partitions.opened[index]
        held = HeldOnce(real)
        parts.home.partitions.opened[index] = cast("Partition", held)
        parts.home.partitions.end_removal(index)
        try:
            await until(held.reached.is_set, "a commit in a thread")
            yield cluster, client, held.may_go_on
        finally:
            held.may_go_on.set()
            parts.home.partitions.opened[index] = real


class HeldOnce:
    """A partition whose next commit waits until it may continue, and processes its first entry
    only.
    """

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self.reached = threading.Event()
        self.may_go_on = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._partition, name)

    def begin(
        self, batch: list[Submission], now_ms: int, budget: ReadBudget | None = None
    ) -> list[Outcome] | Callable[[], list[Outcome]]:
        if self.reached.is_set():
            return self._partition.begin(batch, now_ms, budget)
        begun = self._partition.begin(batch[:1], now_ms, budget)
        assert callable(begun)
        commit = begun

        def when_it_may_go_on() -> list[Outcome]:
            self.reached.set()
            self.may_go_on.wait(DEADLINE_S)
            return commit()

        return when_it_may_go_on


async def test_it_is_confirmed_when_no_thread_stores_anything_of_them(tmp_path: Path) -> None:
    """And what that commit did not process is refused."""
    async with committing(tmp_path, "bob") as (cluster, _, may_go_on):
        worker, way = cluster.workers[0], Way()
        revoke = Revoke(1, "bob", [cluster.session("bob").key_id], by_operator=False, lifted=False)
        worker.parts.dispatcher.handlers[Revoke](cast("Any", way), revoke)
        alice = await TestClient.login(worker, "alice")  # some turns
        assert not way.sent, "confirmed, though a thread still stores an entry"
        may_go_on.set()
        await until(lambda: way.sent == [Revoked(1)], "the confirmation")
        alice.send(LOG, 1)
        await alice.acked(LOG, 1)
        await alice.join(LOG, last=10)
        await alice.has(LOG, 3)
        stored = [(e.sender, e.counter) for e in alice.entries(LOG)]
        assert stored == [("bob", 1), ("bob", 2), ("alice", 1)]
        worker.parts.dispatcher.handlers[Revoke](cast("Any", way), revoke._replace(tag=2))
        assert way.sent[1:] == [Revoked(2)], "at once: no commit runs"


async def test_what_is_sent_anew_is_not_given_back_as_well(tmp_path: Path) -> None:
    """By a commit in a thread that was under way when its worker confirmed."""
    async with committing(tmp_path, "bob") as (cluster, client, may_go_on):
        worker, index = cluster.workers[0], partition_of(LOG)
        queues = worker.parts.home.queues
        queues.forget(worker.parts.own_home.to_member, index)
        may_go_on.set()
        await client.acked(LOG, 2)
        assert index not in queues.waiting
        assert index not in worker.parts.home.partitions.committing
        assert worker.parts.home.partitions.head(LOG).seq == 2


async def test_a_change_of_a_room_that_goes_with_its_device_holds_up_no_other(
    single: Cluster,
) -> None:
    """Changes of a room are decided one after the other: each must come to an end."""
    worker = single.workers[0]
    alice, bob = [await TestClient.login(worker, name) for name in ("alice", "bob")]
    bob.send(LOG, 1)
    await bob.acked(LOG, 1)
    alice.send(LOG, 1)
    ack = await alice.acked(LOG, 1)
    parts = worker.parts
    index = partition_of(LOG)
    await until(
        lambda: parts.home.partitions.begin_removal(index) is not None, "no commit under way"
    )
    ask_room(alice, 1, requests.Redact(ack.seq, ""))
    await until(lambda: LOG in parts.home.rooms._by_log, "a change that waits for its commit")
    parts.home.queues.revoke("alice", [single.session("alice").key_id], lifted=False)
    parts.home.partitions.end_removal(index)
    ask_room(bob, 2, requests.SetTopic("tea"))
    await bob.until(
        lambda: any(isinstance(e, Done | Error) and e.request == 2 for e in bob.received),
        "an answer to somebody else",
    )


def ask_room(client: TestClient, number: int, request: requests.Request) -> None:
    client.send_envelopes(Room(number, LOG, requests.pack(request, requests.ANYTHING_SEEN)))


async def hold(cluster: Cluster, log: str) -> None:
    partitions = cluster.workers[0].parts.home.partitions
    await until(lambda: partitions.begin_removal(partition_of(log)) is not None, "no commit")


def let_go(cluster: Cluster, log: str) -> None:
    partitions = cluster.workers[0].parts.home.partitions
    if partition_of(log) in partitions.committing:
        partitions.end_removal(partition_of(log))


async def test_changes_of_a_room_that_a_removed_device_has_asked_for_are_dropped(
    tmp_path: Path,
) -> None:
    """One being stored, one waiting for that, and one that arrives after the removal.

    A thief of an owner's device could otherwise delete the room at the last moment.
    """
    async with Cluster(tmp_path, 1, rights=True) as single:
        worker = single.workers[0]
        alice = [await TestClient.login(worker, "alice") for _ in range(3)]
        await asked(alice[0], 10, requests.Create(), Done)
        await hold(single, LOG)
        rooms, queues = worker.parts.home.rooms, worker.parts.home.queues
        ask_room(alice[0], 11, requests.SetTopic("mine"))
        await until(lambda: LOG in rooms._by_log, "a change that is being stored")
        ask_room(alice[1], 11, requests.Delete())
        await until(lambda: rooms._by_log[LOG].waiting, "a change that waits for it")
        queues.revoke("alice", [device("alice").key_id], lifted=False)
        let_go(single, LOG)
        for client in alice[:2]:
            await answered(client, 11, Error)
        await asked(alice[2], 11, requests.Delete(), Error)
        queues.revoke("alice", [device("alice").key_id], lifted=True)
        await asked(alice[2], 12, requests.SetTopic("ours"), Done)
        room = rooms_state.unpack(worker.parts.home.partitions.state(LOG))
        assert (room.topic, room.deleted, room.version) == ("ours", False, 2)


async def test_what_a_removed_device_has_asked_for_its_account_is_dropped(single: Cluster) -> None:
    """Requests that wait while the removal is stored are dropped, although they came before it."""
    worker = single.workers[0]
    first = await TestClient.login(worker, "alice")
    phone = DeviceKey.generate()
    await add_device(first, "alice", phone, 5)
    thief = await login_as(worker, "alice", phone)
    link = await removal(first, "alice", phone)
    await hold(single, "@alice")
    accounts = worker.parts.home.accounts
    first.send_envelopes(Account(6, "", account_requests.pack(account_requests.Extend(link))))
    await until(lambda: "@alice" in accounts._by_log, "the removal of the device")
    thief.send_envelopes(Account(6, "", account_requests.pack(account_requests.Remove())))
    await until(lambda: accounts._by_log["@alice"].waiting, "the removal of the account")
    let_go(single, "@alice")
    await answered(first, 6, Done)
    await thief.ended()
    after = accounts.logs.account("alice")
    assert not after.removed
    assert after.version == 3


async def test_an_operator_whose_end_is_being_stored_does_not_undo_it(single: Cluster) -> None:
    """What they requested as an operator, and was waiting for that end, is refused after it."""
    worker = single.workers[0]
    accounts = worker.parts.home.accounts
    opera = await an_operator(single)
    await TestClient.login(worker, "mallory")
    promote = account_requests.Promote(operator=True)
    assert isinstance(await ask(opera, 50, promote, "mallory"), Done)
    mallory = await TestClient.login(worker, "mallory")
    await hold(single, "@mallory")
    demote = account_requests.pack(account_requests.Promote(operator=False))
    opera.send_envelopes(Account(51, "mallory", demote))
    await until(lambda: "@mallory" in accounts._by_log, "the demotion")
    mallory.send_envelopes(Account(52, "mallory", account_requests.pack(promote)))
    await until(lambda: accounts._by_log["@mallory"].waiting, "a promotion of themselves")
    let_go(single, "@mallory")
    await answered(opera, 51, Done)
    await mallory.ended()
    assert not accounts.logs.account("mallory").operator


async def test_a_login_that_waits_for_its_answer_is_judged_anew(cluster: Cluster) -> None:
    """An earlier answer neither accepts nor refuses a login; the current one does."""
    await TestClient.login(cluster.other(LOG), "bob")
    session = cluster.session("bob")
    own_home = OwnHome(0, 1, Wakeup(lambda _: None))
    claims = Claims(Routes(own_home.to_home, lambda _: Owner(0, 0), {}))  # there is no home
    key = device("bob").public
    claim = claims.claim("bob", bytes(16), 1, key, session)
    other = claims.claim("bob", bytes(15) + b"o", 1, DeviceKey.generate().public, session)
    assert claim.reply is not None
    granted: list[Grant] = []
    claim.reply.then(granted.append)
    before, of_other = claim.tag, other.tag
    claims.revoke("bob", [device("bob").key_id], CloseCode.KICKED)
    claims.on_claimed(own_home.to_member, Claimed(before, True, False, 0, "", b"", True))
    assert not claim.granted
    assert granted == []
    assert other.tag == of_other, "another device of the account"
    claims.on_claimed(own_home.to_member, Claimed(claim.tag, True, False, 0, "", b"", False))
    assert [(grant.code, grant.operator) for grant in granted] == [(0, False)]


async def test_a_removed_device_that_is_logging_in_is_refused_by_its_home(cluster: Cluster) -> None:
    """Its claim is under way while the removal is announced."""
    bob = await TestClient.login(cluster.other(LOG), "bob")
    phone = DeviceKey.generate()
    await add_device(bob, "bob", phone, 3)
    worker = cluster.other("@bob")
    claims = worker.parts.services.claims
    session = cluster.session("bob")
    link = await removal(bob, "bob", phone)
    assert isinstance(await ask(bob, 4, account_requests.Extend(link)), Done)
    claim = claims.claim("bob", bytes(16), 1, phone.public, session)
    assert claim.reply is not None
    granted: list[Grant] = []
    claim.reply.then(granted.append)
    claims.revoke("bob", [phone.key_id], CloseCode.REVOKED)
    await until(lambda: granted, "an answer")
    assert [grant.code for grant in granted] == [ErrorCode.KEY_REFUSED]


async def asked(
    client: TestClient, number: int, request: requests.Request, kind: type[Done | Error]
) -> None:
    ask_room(client, number, request)
    await answered(client, number, kind)


async def answered(client: TestClient, number: int, kind: type[Done | Error]) -> None:
    def answers() -> list[Done | Error]:
        return [e for e in client.received if isinstance(e, Done | Error) and e.request == number]

    await client.until(answers, "an answer")
    assert isinstance(answers()[0], kind), answers()
