"""Attacks on names and devices, over real sockets and several workers; each with its outcome."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from relay.chat.accounts import chain, requests
from relay.chat.accounts.links import Kind
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of
from relay.client.devices.device_key import DeviceKey
from relay.client.login import root_link
from relay.server.worker.connection.requests.last_operator import READ_AT_ONCE
from relay.server.worker.member.reply import Reply
from relay.store.errors import StoreUnavailable
from relay.store.log import Reader
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.device_keys import verify
from relay.wire.envelopes import (
    Account,
    Chain,
    ClientEnvelope,
    Devices,
    Done,
    Error,
    Hello,
    Refused,
    Register,
    Send,
    Welcome,
)
from relay.wire.login import Operation
from tests.support.cluster import until
from tests.support.devices import device, hello, register, sign
from tests.support.operators import an_operator
from tests.support.workers import Cluster, TestClient, Worker
from tests.vectors.accounts import REFUSED_KEYS

LOG = "lobby"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2) as running:
        yield running


def workers(cluster: Cluster, name: str) -> tuple[Worker, Worker]:
    """Return the home of an account, and another worker."""
    home = cluster.home(INBOX_PREFIX + name)
    return home, next(one for one in cluster.workers.values() if one is not home)


async def ended(client: TestClient, code: CloseCode) -> None:
    await client.ended()
    assert client.closed is not None
    assert client.closed.code == code


async def refused(client: TestClient, code: ErrorCode, *request: ClientEnvelope) -> None:
    client.send_envelopes(*request)
    await client.expect(Error, lambda e: e.code == code)
    assert not any(isinstance(e, Welcome) for e in client.received)


def answered(client: TestClient, request: int) -> list[object]:
    return [
        e for e in client.received if isinstance(e, Done | Error | Chain) and e.request == request
    ]


async def ask(client: TestClient, number: int, request: requests.Request, name: str = "") -> object:
    client.send_envelopes(Account(number, name, requests.pack(request)))
    await client.until(lambda: answered(client, number), "an answer")
    return answered(client, number)[0]


async def chain_of(client: TestClient, name: str, number: int = 77) -> chain.Chain:
    client.send_envelopes(Devices(number, name, 0))
    await client.until(lambda: answered(client, number), "a chain")
    (answer,) = answered(client, number)
    assert isinstance(answer, Chain)
    return chain.read(answer.links, verify)[-1]


async def removal(client: TestClient, name: str, key: DeviceKey) -> bytes:
    """Return the link by which a user's first device removes another one."""
    held, own = await chain_of(client, name), device(name)
    body = held.next_body(Kind.REMOVE, key.public, own.public).packed()
    return body + own.sign(body)


async def add_device(client: TestClient, name: str, new: DeviceKey, number: int) -> None:
    held = await chain_of(client, name, 1000 + number)
    old = device(name)
    body = held.next_body(Kind.ADD, new.public, old.public)
    link = body.packed() + old.sign(body.packed()) + new.sign(body.packed())
    assert isinstance(await ask(client, number, requests.Extend(link)), Done)


async def login_as(worker: Worker, name: str, key: DeviceKey) -> TestClient:
    client = await TestClient.connect(worker)
    client.name, client.secret = name, secrets.token_bytes(16)
    client.send_envelopes(hello(client.connection, client.spki, name, client.secret, key=key))
    await client.expect(Welcome)
    return client


# --- what a signature is good for ---------------------------------------------------------------
async def test_a_signature_of_another_connection(cluster: Cluster) -> None:
    """Replayed, on the same worker or another, in its own record or in a whole HELLO."""
    alice = await TestClient.login(cluster.workers[0], "alice")
    overheard = hello(alice.connection, alice.spki, "alice", alice.secret)
    for worker in cluster.workers.values():
        thief = await TestClient.connect(worker)
        await refused(thief, ErrorCode.KEY_REFUSED, overheard)
        await ended(thief, CloseCode.NAME_REFUSED)
    assert alice.closed is None
    server_end = cluster.session("alice").channel
    assert server_end.connection.login_binding is None, "this connection proves nothing more"


async def test_each_device_has_ghosts_of_its_own(cluster: Cluster) -> None:
    """Two devices, each connected twice: HELLOs in the wrong order, and never the other's ghost."""
    home, other = workers(cluster, "alice")
    laptop, phone = await TestClient.login(home, "alice"), DeviceKey.generate()
    await add_device(laptop, "alice", phone, 5)
    keys = (device("alice"), phone)
    instances = [secrets.token_bytes(16) for _ in keys]
    clients = [await TestClient.connect(worker) for worker in (home, other, other, home)]
    for number, client in reversed(list(enumerate(clients))):
        key, secret = keys[number % 2], instances[number % 2]
        client.send_envelopes(hello(client.connection, client.spki, "alice", secret, key=key))
        if number >= 2:
            await client.expect(Welcome)
    for client in clients[:2]:
        await ended(client, CloseCode.REPLACED)
    for client in (laptop, *clients[2:]):
        await client.join(LOG)
        assert client.closed is None


async def test_a_signature_for_another_server(cluster: Cluster) -> None:
    """A server that a client trusts forwards its login: the signature covers the server's key."""
    await TestClient.login(cluster.workers[0], "alice")
    thief = await TestClient.connect(cluster.workers[1])
    relayed = hello(thief.connection, b"another server's key", "alice", bytes(16))
    await refused(thief, ErrorCode.KEY_REFUSED, relayed)


async def test_a_signature_for_another_operation_or_name(cluster: Cluster) -> None:
    await TestClient.login(cluster.workers[0], "alice")
    for operation, name in (
        (Operation.REGISTER, "alice"),
        (Operation.ADD_DEVICE, "alice"),
        (Operation.LOGIN, "bob"),
    ):
        thief = await TestClient.connect(cluster.workers[1])
        key = device("alice")
        signature = sign(operation, thief.connection, thief.spki, name, key)
        request = Hello("alice", bytes(16), "", "", key.public, signature)
        await refused(thief, ErrorCode.KEY_REFUSED, request)


async def test_a_login_signature_does_not_register(cluster: Cluster) -> None:
    thief = await TestClient.connect(cluster.workers[0])
    key = device("alice")
    right = register(thief.connection, thief.spki, "alice")
    signature = sign(Operation.LOGIN, thief.connection, thief.spki, "alice", key)
    await refused(thief, ErrorCode.KEY_REFUSED, right._replace(signature=signature))


@pytest.mark.parametrize("text", REFUSED_KEYS[:3])
async def test_a_key_that_signs_everything(cluster: Cluster, text: str) -> None:
    """A point of small order: neither registered nor logged in with, whatever the signature."""
    key, constant = bytes.fromhex(text), b"\1" + bytes(63)
    client = await TestClient.connect(cluster.workers[0])
    link = root_link(device("alice"), bytes(32), "alice", bytes(16))
    request = Register(1, "alice", key, constant, link, b"")
    await refused(client, ErrorCode.KEY_REFUSED, request)
    await refused(client, ErrorCode.KEY_REFUSED, Hello("alice", bytes(16), "", "", key, constant))


# --- names --------------------------------------------------------------------------------------
async def test_name_take_over(cluster: Cluster) -> None:
    """By registering it, by logging in with another key, by another account's root link."""
    alice = await TestClient.login(cluster.workers[0], "alice")
    thief = await TestClient.connect(cluster.workers[1])
    key = DeviceKey.generate()
    claim = register(thief.connection, thief.spki, "alice", key)
    await refused(thief, ErrorCode.NAME_TAKEN, claim)
    await refused(
        thief,
        ErrorCode.KEY_REFUSED,
        hello(thief.connection, thief.spki, "alice", bytes(16), key=key),
    )
    again = await TestClient.connect(cluster.workers[1])
    other = register(again.connection, again.spki, "mallory", key)
    stolen = register(again.connection, again.spki, "alice")  # as it was observed
    await refused(again, ErrorCode.BAD_REQUEST, other._replace(link=stolen.link))
    assert alice.closed is None


async def test_registrations_race_for_one_name(cluster: Cluster) -> None:
    """Twenty keys, two workers, concurrently: one gets the name, and the chain has its key."""
    clients = [await TestClient.connect(cluster.workers[n % 2]) for n in range(20)]
    keys = [DeviceKey.generate() for _ in clients]
    for client, key in zip(clients, keys, strict=True):
        client.send_envelopes(register(client.connection, client.spki, "alice", key))
    await until(lambda: all(answered(one, 1) for one in clients), "all answers")
    won = [n for n, one in enumerate(clients) if isinstance(answered(one, 1)[0], Done)]
    assert len(won) == 1
    winner = await login_as(cluster.workers[0], "alice", keys[won[0]])
    assert set((await chain_of(winner, "alice")).devices) == {keys[won[0]].public}


async def test_registrations_race_for_names_that_look_alike(cluster: Cluster) -> None:
    """All are asked for before any is stored: one gets its name, and the others wait for that."""
    handles = ["paul", "pau1", "pa-ul", "paul_"]
    partitions = cluster.home("@paul").parts.home.partitions
    index = partition_of("@paul")
    assert {partition_of(f"@{handle}") for handle in handles} == {index}
    clients = [await TestClient.connect(cluster.workers[n % 2]) for n in range(len(handles))]
    await until(lambda: partitions.begin_removal(index) is not None, "nobody at work in it")
    for client, handle in zip(clients, handles, strict=True):
        client.send_envelopes(register(client.connection, client.spki, handle))
    home = cluster.home("@paul").parts.home.accounts
    await until(lambda: [len(c.waiting) for c in home._by_log.values()] == [3], "three to wait")
    partitions.end_removal(index)
    await until(lambda: all(answered(one, 1) for one in clients), "all answers")
    assert sum(isinstance(answered(one, 1)[0], Done) for one in clients) == 1


@pytest.mark.parametrize("other", ["a1ice", "al-ice", "alice_", "allce"])
async def test_look_alikes(cluster: Cluster, other: str) -> None:
    """On any worker, also concurrently: they have one home."""
    await TestClient.login(cluster.workers[0], "alice")
    for worker in cluster.workers.values():
        client = await TestClient.connect(worker)
        request = register(client.connection, client.spki, other)
        await refused(client, ErrorCode.LOOKS_ALIKE, request)


async def test_a_home_that_begins_knows_who_looks_alike(cluster: Cluster) -> None:
    home, other = workers(cluster, "alice")
    await TestClient.login(other, "alice")
    await cluster.kill(home.index)
    await cluster.start(home.index)
    await cluster.linked()
    client = await TestClient.connect(other)
    await refused(client, ErrorCode.LOOKS_ALIKE, register(client.connection, client.spki, "a1ice"))
    await TestClient.login(other, "alice")


async def test_attempts_before_the_login_are_bounded(cluster: Cluster) -> None:
    client = await TestClient.connect(cluster.workers[0])
    wrong = register(client.connection, client.spki, "alice")._replace(signature=bytes(64))
    client.send_envelopes(*[wrong] * 9)
    await ended(client, CloseCode.LIMIT)


# --- another's messages -------------------------------------------------------------------------
async def test_anothers_producer_and_counters_from_the_same_room(cluster: Cluster) -> None:
    """A reader of ENTRY has the producer; even with the secret, it cannot be used by
    another name.
    """
    alice = await TestClient.login(cluster.workers[0], "alice")
    mallory = await TestClient.login(cluster.workers[1], "mallory")
    await mallory.join(LOG)
    alice.send(LOG, 1, 3)
    await alice.acked(LOG, 3)
    await mallory.has(LOG, 3)
    seen = mallory.entries(LOG)[-1]
    assert seen.key_id == device("alice").key_id
    for secret in (seen.producer, alice.secret):  # the second one leaked
        thief = await TestClient.login(cluster.workers[1], "mallory", secret=secret)
        assert thief.producer != seen.producer
        thief.send_envelopes(Send(LOG, 4, 0, "", b"approve"))
        await thief.expect(Refused, lambda e: e.code == ErrorCode.UNKNOWN_OUTCOME)
    alice.send(LOG, 4)
    await alice.acked(LOG, 4)


# --- devices ------------------------------------------------------------------------------------
async def test_a_removed_device_with_connections_on_all_workers(cluster: Cluster) -> None:
    """When "removed" is answered, they have ended on all workers; other devices go on."""
    first = await TestClient.login(cluster.workers[0], "alice")
    phone = DeviceKey.generate()
    await add_device(first, "alice", phone, 5)
    phones = [await login_as(worker, "alice", phone) for worker in cluster.workers.values()]
    for client in phones:
        await client.join(LOG)
    link = await removal(first, "alice", phone)
    assert isinstance(await ask(first, 6, requests.Extend(link)), Done)
    assert not any(
        session.key_id == phone.key_id
        for worker in cluster.workers.values()
        for session in worker.parts.connections.sessions
        if not session.ended
    )
    for client in phones:
        await ended(client, CloseCode.REVOKED)
    for worker in cluster.workers.values():
        again = await TestClient.connect(worker)
        request = hello(again.connection, again.spki, "alice", bytes(16), key=phone)
        await refused(again, ErrorCode.KEY_REFUSED, request)
    first.send(LOG, 1)
    await first.acked(LOG, 1)


async def test_what_a_removed_device_had_under_way_is_dropped(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sends wait for a dead home; the removal is stored before the home is back."""
    home, other = workers(cluster, "alice")
    log = next(
        name for name in (f"room{n}" for n in range(99)) if cluster.home(name) is not home
    )  # its home is the other worker
    assert cluster.home(log) is other
    first = await TestClient.login(home, "alice")
    phone = DeviceKey.generate()
    await add_device(first, "alice", phone, 5)
    thief = await login_as(home, "alice", phone)
    await cluster.kill(other.index)
    thief.send(log, 1, 3)
    await until(lambda: home.parts.member.forward.unanswered == 3, "the sends to wait")
    link = await removal(first, "alice", phone)
    assert isinstance(await ask(first, 6, requests.Extend(link)), Done)
    assert home.parts.member.forward.unanswered == 0
    await cluster.start(other.index)
    await cluster.linked()
    await first.join(log, last=10)
    first.send(log, 1)
    await first.acked(log, 1)
    await first.has(log, 1)
    assert first.seqs(log) == [1]


async def test_a_disabled_user_with_connections_on_all_workers(cluster: Cluster) -> None:
    """By an operator: all sessions end; after enabling, the same devices log in again."""
    operator = await an_operator(cluster)
    sessions = [await TestClient.login(worker, "bob") for worker in cluster.workers.values()]
    assert isinstance(await ask(operator, 9, requests.Disable(), "bob"), Done)
    for client in sessions:
        await ended(client, CloseCode.KICKED)
    back = await TestClient.connect(cluster.workers[0])
    await refused(back, ErrorCode.DISABLED, hello(back.connection, back.spki, "bob", bytes(16)))
    assert isinstance(await ask(operator, 10, requests.Enable(), "bob"), Done)
    bob = await TestClient.login(cluster.workers[1], "bob")
    bob.send(LOG, 1)
    await bob.acked(LOG, 1)


async def test_only_operators_change_others(cluster: Cluster) -> None:
    """And nobody extends another account's chain, operators included."""
    operator = await an_operator(cluster)
    alice = await TestClient.login(cluster.workers[0], "alice")
    await TestClient.login(cluster.workers[1], "bob")
    forbidden: tuple[requests.Request, ...] = (
        requests.Disable(),
        requests.Reset(bytes(32), 2**60),
        requests.Remove(),
        requests.Promote(True),
        requests.Show(),
        requests.Invite(bytes(32), 2**60, True),
        requests.Add(bytes(32), 2**60, True),
        requests.Extend(b"x"),
    )
    of_workers: tuple[requests.Request, ...] = (
        requests.Register(b"x", b"", True, True, False),
        requests.Bind(bytes(32), "alice", bytes(32)),
        requests.Release(bytes(32), "alice", bytes(32)),
    )
    for number, request in enumerate(of_workers, start=10):
        for client in (alice, operator):
            answer = await ask(client, number, request, "bob")
            assert isinstance(answer, Error), request
            assert answer.code == ErrorCode.BAD_REQUEST
    for number, request in enumerate(forbidden, start=20):
        answer = await ask(alice, number, request, "bob")
        assert isinstance(answer, Error), request
        assert answer.code == ErrorCode.NOT_ALLOWED
    assert isinstance(await ask(operator, 50, requests.Promote(True), "alice"), Done)
    assert isinstance(await ask(operator, 51, requests.Promote(False), "alice"), Done)
    await ended(alice, CloseCode.KICKED)


def is_of(name: str, partition: int) -> bool:
    return partition_of(INBOX_PREFIX + name) == partition


async def test_the_only_operator_stays_one(cluster: Cluster) -> None:
    """Until there is another operator who can log in."""
    opera = await an_operator(cluster)
    await TestClient.login(cluster.workers[0], "alice")
    numbers = itertools.count(100)

    async def is_kept() -> None:
        for end in (requests.Promote(False), requests.Disable(), requests.Remove()):
            answer = await ask(opera, next(numbers), end, "opera")
            assert isinstance(answer, Error), end
            assert answer.code == ErrorCode.NOT_ALLOWED
            assert "the only operator" in answer.text

    await is_kept()
    index = partition_of("@alice")
    before = (name for number in range(999) if is_of(name := f"aa{number}", index))
    for name in itertools.islice(before, READ_AT_ONCE):
        await ask(opera, next(numbers), requests.Add(bytes(32), 2**60, True), name)
    await is_kept()  # a user with an open invitation is no operator yet
    await ask(opera, next(numbers), requests.Promote(True), "alice")
    await ask(opera, next(numbers), requests.Disable(), "alice")
    await is_kept()  # nor is one who cannot log in
    await ask(opera, next(numbers), requests.Enable(), "alice")
    session = cluster.session("opera")
    readable = session.services

    def reader_at(at: int) -> Reader:
        if at == index:
            raise StoreUnavailable("the test's disk")
        return readable.reader_at(at)

    session.services = replace(readable, reader_at=reader_at)
    answer = await ask(opera, next(numbers), requests.Promote(False), "opera")
    assert isinstance(answer, Error), "nobody knows whether there is another one"
    assert answer.code == ErrorCode.UNAVAILABLE
    session.services = readable
    assert isinstance(await ask(opera, next(numbers), requests.Promote(False), "opera"), Done)
    await ended(opera, CloseCode.KICKED)


async def test_who_is_no_operator_any_more_is_somebody_still(cluster: Cluster) -> None:
    """Sessions with operator rights end; the next one writes as before, on any worker.

    On a repeat, since the first answer may be lost, all workers accept their messages.
    """
    operator = await an_operator(cluster)
    alice = await TestClient.login(cluster.other("@alice"), "alice")
    assert isinstance(await ask(operator, 50, requests.Promote(True), "alice"), Done)
    alice.disconnect()
    await alice.gone(cluster.other("@alice"))
    for number, again in enumerate((False, True)):
        alice = await TestClient.login(cluster.other("@alice"), "alice")
        assert cluster.session("alice").actor.operator == (not again)
        if again:
            for worker in cluster.workers.values():
                worker.parts.home.queues.revoke("alice", [device("alice").key_id], lifted=False)
        assert isinstance(await ask(operator, 51 + number, requests.Promote(False), "alice"), Done)
        if not again:
            await ended(alice, CloseCode.KICKED)
            alice = await TestClient.login(cluster.other("@alice"), "alice")
        for log in (LOG, "lounge"):
            alice.send(log, 1)
            await alice.acked(log, 1)
        alice.disconnect()
        await alice.gone(cluster.other("@alice"))


async def test_an_operator_whose_end_nobody_was_told_of(cluster: Cluster) -> None:
    """The account's home dies after storing it: new logins have the current rights."""
    operator = await an_operator(cluster)
    home, other = workers(cluster, "alice")
    await TestClient.login(other, "alice")
    assert isinstance(await ask(operator, 50, requests.Promote(True), "alice"), Done)
    one = await TestClient.login(other, "alice")
    bob = await TestClient.login(other, "bob")
    home.parts.home.accounts._end_sessions = lambda *_: None  # type: ignore[method-assign]
    operator.send_envelopes(Account(51, "alice", requests.pack(requests.Promote(False))))
    await until(lambda: not home.parts.home.accounts.logs.account("alice").operator, "the commit")
    assert one.closed is None
    await cluster.kill(home.index)
    await cluster.start(home.index)
    await ended(one, CloseCode.KICKED)
    assert bob.closed is None


async def test_a_demotion_whose_home_dies_before_it_is_over(cluster: Cluster) -> None:
    """All workers drop what was sent with the old rights, and get no message that it is over.

    Nor does the requesting client repeat its request at the next home.
    """
    operator = await an_operator(cluster)
    home, other = workers(cluster, "alice")
    await TestClient.login(other, "alice")
    assert isinstance(await ask(operator, 50, requests.Promote(True), "alice"), Done)
    one = await TestClient.login(other, "alice")
    home.parts.home.accounts._lift = lambda *_: None  # type: ignore[method-assign]
    operator.send_envelopes(Account(51, "alice", requests.pack(requests.Promote(False))))
    await ended(one, CloseCode.KICKED)
    await until(lambda: other.parts.home.queues.revoked.devices, "what the other worker drops")
    again = await TestClient.connect(other)
    again.hello("alice")
    await until(lambda: home.parts.home.names._waiting, "a login that waits until it is over")
    logs = [name for name in ("lobby", "lounge", "garden", "attic") if cluster.home(name) is other]
    operator.disconnect()
    await operator.gone(cluster.workers[0])
    await cluster.kill(home.index)
    await cluster.start(home.index)
    await again.expect(Welcome)
    again.send(logs[0], 1)
    await again.acked(logs[0], 1)
    assert not other.parts.home.queues.revoked.devices


async def test_what_ends_devices_is_told_again_when_it_is_asked_again(cluster: Cluster) -> None:
    """The first request may have died before workers were told: "done" is true all the same."""
    operator = await an_operator(cluster)
    bob = await TestClient.login(cluster.other("@bob"), "bob")
    phone = DeviceKey.generate()
    await add_device(bob, "bob", phone, 5)
    stolen = await login_as(cluster.other("@bob"), "bob", phone)
    removing = requests.Extend(await removal(bob, "bob", phone))
    home = cluster.home("@bob").parts.home.accounts
    tell = home._tell
    for asks, request, whose, code in (
        (bob, removing, stolen, CloseCode.REVOKED),
        (operator, requests.Disable(), bob, CloseCode.KICKED),
    ):
        home._tell = lambda *_, done, **_more: done()  # type: ignore[method-assign]
        assert isinstance(await ask(asks, 9, request, "bob"), Done)
        assert whose.closed is None
        home._tell = tell  # type: ignore[method-assign]
        assert isinstance(await ask(asks, 10, request, "bob"), Done)
        await ended(whose, code)


async def test_the_home_dies_between_a_removal_and_its_answer(cluster: Cluster) -> None:
    """The client repeats its request at the next home, and the sessions end."""
    home, other = workers(cluster, "alice")
    first = await TestClient.login(other, "alice")
    phone = DeviceKey.generate()
    await add_device(first, "alice", phone, 5)
    stolen = await login_as(other, "alice", phone)
    link = await removal(first, "alice", phone)
    home.parts.home.accounts._finish = lambda *_args, **_more: None  # type: ignore[method-assign]
    first.send_envelopes(Account(6, "", requests.pack(requests.Extend(link))))
    await until(lambda: home.parts.home.accounts.logs.account("alice").version == 3, "the commit")
    await cluster.kill(home.index)
    await cluster.start(home.index)
    await ended(stolen, CloseCode.REVOKED)
    await first.until(lambda: answered(first, 6), "the answer of the next home")
    assert isinstance(answered(first, 6)[0], Done)


async def test_lists_of_devices_are_read_in_turn(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long one delays clients that read pages, and nobody else."""
    worker = cluster.workers[0]
    alice = await TestClient.login(worker, "alice")
    turns: list[Reply[None]] = []

    def turn() -> Reply[None]:
        turns.append(Reply())
        return turns[-1]

    monkeypatch.setattr(worker.parts.member.catchup, "turn", turn)
    alice.send_envelopes(Devices(5, "alice", 0))
    await until(lambda: turns, "the request for a turn")
    assert not any(isinstance(e, Chain) for e in alice.received)
    turns[0].resolve(None)
    assert len((await alice.expect(Chain)).links) == 1


async def test_two_devices_change_the_list_at_once(cluster: Cluster) -> None:
    """One is stored; the other gets an error that the list has changed, and the chain is not
    forked.
    """
    first = await TestClient.login(cluster.workers[0], "alice")
    held = await chain_of(first, "alice")
    old = device("alice")
    made = []
    for new in (DeviceKey.generate(), DeviceKey.generate()):
        body = held.next_body(Kind.ADD, new.public, old.public)
        made.append(body.packed() + old.sign(body.packed()) + new.sign(body.packed()))
    second = await login_as(cluster.workers[1], "alice", old)
    answers = [
        await ask(client, 8, requests.Extend(link))
        for client, link in zip((first, second), made, strict=True)
    ]
    assert [type(one) for one in answers] == [Done, Error]
    assert isinstance(answers[1], Error)
    assert answers[1].code == ErrorCode.CHANGED
    assert (await chain_of(first, "alice", 88)).number == 1


async def test_two_terminals_of_one_device_live_side_by_side(cluster: Cluster) -> None:
    """Only the same instance replaces its old connection."""
    one = await TestClient.login(cluster.workers[0], "alice")
    two = await TestClient.login(cluster.workers[1], "alice")
    again = await TestClient.login(cluster.workers[1], "alice", secret=one.secret)
    await ended(one, CloseCode.REPLACED)
    assert two.closed is None
    assert two.producer != again.producer
