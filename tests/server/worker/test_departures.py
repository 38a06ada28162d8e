"""Removal of an account: its name stays taken, its data is erased, also if workers are killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.chat.accounts import answers
from relay.chat.accounts import requests as account_requests
from relay.chat.entries import Submission
from relay.chat.partition import PARTITIONS, partition_of
from relay.chat.rooms import requests
from relay.chat.rooms import state as rooms
from relay.chat.rooms.events import Kind
from relay.settings import Retention as Settings
from relay.store.file.checkpoint import Checkpointer
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Account, Done, EntryMessage, Error, Refused
from tests.server.worker.test_retention import look
from tests.server.worker.test_rooms import LOG, done, refused, stored
from tests.support.cluster import until
from tests.support.scanning import leftovers
from tests.support.workers import Cluster, TestClient, Worker

INBOX = "@bob"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2, rights=True) as running:
        yield running


async def about_account(client: TestClient, request: account_requests.Request) -> Done | Error:
    """Send a request about the client's own account."""
    number = 5000 + len(client.received)
    client.send_envelopes(Account(number, "", account_requests.pack(request)))

    def answered() -> list[Done | Error]:
        return [e for e in client.received if isinstance(e, Done | Error) and e.request == number]

    await client.until(answered, f"an answer to {request}")
    return answered()[0]


async def removed(client: TestClient) -> None:
    """Let the user remove the account; all its sessions end."""
    assert isinstance(await about_account(client, account_requests.Remove()), Done)
    await client.until(lambda: client.closed is not None, "the end of the session")
    assert client.closed is not None
    assert client.closed.code == CloseCode.REVOKED


def role(cluster: Cluster, handle: str, log: str = LOG) -> int:
    """Return the stored role of a user in a room."""
    packed = cluster.home(log).parts.services.reader_of(log).state(log)
    person = rooms.unpack(packed).people.get(handle)
    return 0 if person is None else int(person.role)


async def checkpointed(worker: Worker) -> None:
    """Checkpoint: erased content is gone from the files, as it is within two minutes."""
    for index in range(PARTITIONS):
        if worker.parts.home.partitions.owned(index):
            partition = worker.parts.home.partitions.partition(index)
            assert isinstance(partition, SqlitePartition)
            await Checkpointer(partition, asyncio.to_thread).run()


async def look_everywhere(cluster: Cluster) -> None:
    for worker in cluster.workers.values():
        await look(worker)


async def acquainted(cluster: Cluster) -> tuple[TestClient, TestClient]:
    """Ann and bob, members of ann's room, who have exchanged 20 messages."""
    ann = await TestClient.login(cluster.home(INBOX), "ann")
    bob = await TestClient.login(cluster.other(INBOX), "bob")
    await done(ann, requests.Create(Kind.PRIVATE))
    await done(ann, requests.Invite("bob"))
    await done(bob, requests.Enter())
    for client, log in ((ann, "@ann"), (bob, INBOX)):
        client.send(INBOX if client is ann else "@ann", 1, 20)
        await client.acked(log, 20)
    for log in ("@ann", INBOX):
        await until(lambda log=log: len(messages(cluster, log)) == 40, "the copies")  # type: ignore[misc]
        await until(lambda log=log: not unconfirmed(cluster, log), "their confirmations")  # type: ignore[misc]
    return ann, bob


def messages(cluster: Cluster, log: str) -> list[EntryMessage]:
    return [one for one in stored(cluster.home(log), log) if one.kind == 0]


def unconfirmed(cluster: Cluster, log: str) -> list[object]:
    """Messages of which the log still has to keep a copy for the recipient."""
    reader = cluster.home(log).parts.services.reader_of(log)
    assert isinstance(reader, SqliteReader)
    return reader._rows_of(log, "SELECT seq FROM pending WHERE log_id=?")


async def test_a_person_removes_their_account(cluster: Cluster, tmp_path: Path) -> None:
    """The inbox is erased from the files, roles end; the name stays taken; others keep their
    copies.
    """
    assert len({partition_of(log) for log in (INBOX, "@ann", LOG)}) == 3
    ann, bob = await acquainted(cluster)
    await done(bob, requests.Create(), log="bobs")
    bob.send(LOG, 1, 3)
    await bob.acked(LOG, 3)
    account = cluster.home(INBOX).parts.home.accounts.logs.account("bob")
    assert account.chain is not None
    (key,) = account.chain.devices
    wish = account_requests.NameDevice(key, "secret label")
    assert isinstance(await about_account(bob, wish), Done)
    phone = await TestClient.login(cluster.home(INBOX), "bob")
    await removed(bob)
    looks = cluster.home(INBOX).retention._asked
    assert looks.is_set(), "at once, not at the next periodic check"
    await phone.until(lambda: phone.closed is not None, "the end of the other session")
    reader = cluster.home(INBOX).parts.services.reader_of(INBOX)
    await until(lambda: reader.seen(INBOX), "a note")
    await look_everywhere(cluster)
    for log in (LOG, "bobs"):
        await until(lambda log=log: not role(cluster, "bob", log), "the end of the roles")  # type: ignore[misc]
    async with asyncio.timeout(60.0):
        while reader.seen(INBOX):  # each session's end is noted; a note may come after the check
            await look_everywhere(cluster)
    for worker in cluster.workers.values():
        await checkpointed(worker)
    index = f"{partition_of(INBOX):02}"
    found = leftovers(tmp_path / "data", rb"ann \d+|bob \d+|secret label")
    assert not [name for name in found if name.startswith(index)]
    assert len(messages(cluster, "@ann")) == 40
    assert [e.sender for e in messages(cluster, LOG)] == ["bob"] * 3
    again = await TestClient.connect(cluster.other(INBOX))
    again.hello("bob")
    assert (await again.expect(Error)).code == ErrorCode.NAME_TAKEN
    ann.send(INBOX, 21)
    assert (await ann.expect(Refused)).code == ErrorCode.NOT_REGISTERED


async def test_what_is_left_goes_after_a_kill(cluster: Cluster) -> None:
    """The account's home is killed after it stored the removal, before it informed other homes."""
    _, bob = await acquainted(cluster)
    home = cluster.home(INBOX)
    home.parts.home.accounts._revocations._workers = lambda: ()
    assert isinstance(await about_account(bob, account_requests.Remove()), Done)
    await cluster.kill(home.index)
    await cluster.start(home.index)
    await cluster.linked()
    assert role(cluster, "bob")
    await look_everywhere(cluster)
    await until(lambda: not role(cluster, "bob"), "the end of the role")
    assert not messages(cluster, INBOX)
    await bob.until(lambda: bob.closed is not None, "the end of the session")


async def test_a_copy_that_was_under_way(cluster: Cluster) -> None:
    """Accepted before, it is delivered, and erased at the next check; others still get theirs."""
    ann, bob = await acquainted(cluster)
    sender = cluster.home("@ann").parts.home.queues.direct
    assert sender is not None
    held: list[Submission] = []
    send, sender.copies._send = sender.copies._send, held.append
    ann.send(INBOX, 21)
    await ann.acked("@ann", 21)
    await until(lambda: bool(held), "a copy")
    await removed(bob)
    await look_everywhere(cluster)
    assert not messages(cluster, INBOX)
    sender.copies._send = send
    for one in held:
        send(one)
    await until(lambda: bool(messages(cluster, INBOX)), "the copy")
    await look_everywhere(cluster)
    assert not messages(cluster, INBOX)
    assert not sender.copies.count


async def test_an_inbox_of_its_own_measure(tmp_path: Path) -> None:
    """A direct inbox keeps no more messages than configured; rooms are not affected."""
    async with Cluster(tmp_path, 2, rights=True, retention=Settings(messages=30)) as cluster:
        _, bob = await acquainted(cluster)
        assert isinstance(await about_account(bob, account_requests.SetKeep(0, 5, 0)), Done)
        answer = await about_account(bob, account_requests.Keep())
        assert isinstance(answer, Done)
        assert answers.unpack_keep(answer.content) == (0, 5, 0)
        await look_everywhere(cluster)
        assert len(messages(cluster, INBOX)) == 5
        assert len(messages(cluster, "@ann")) == 30
        assert isinstance(await about_account(bob, account_requests.SetKeep(0, 100, 0)), Done)
        for first in range(21, 61, 20):
            bob.send("@ann", first, first + 19)
            await bob.acked(INBOX, first + 19)
        await look_everywhere(cluster)
        assert len(messages(cluster, INBOX)) == 30


async def test_nobody_says_of_others_that_they_are_removed(cluster: Cluster) -> None:
    """Neither an account nor a role; no client may send requests of workers to each other."""
    ann, bob = await acquainted(cluster)
    content = account_requests.pack(account_requests.Remove())
    ann.send_envelopes(Account(77, "bob", content))
    assert (await ann.expect(Error, lambda e: e.request == 77)).code == ErrorCode.NOT_ALLOWED
    assert await refused(bob, requests.Depart()) == ErrorCode.BAD_REQUEST
    assert role(cluster, "bob")
