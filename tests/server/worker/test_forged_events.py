"""What clients send can look like something else: it is decided and read as what it is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.chat.accounts import events as account_events
from relay.chat.accounts import invitation
from relay.chat.accounts import requests as account_requests
from relay.chat.entries import Kind as EntryKind
from relay.chat.rooms import events, requests, shown
from relay.chat.rooms.events import Kind, Role
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Ack, Done, Error, Removed, Send
from tests.server.worker.test_logins import ask
from tests.server.worker.test_rooms import LOG, begun, done
from tests.support.devices import register
from tests.support.operators import an_operator
from tests.support.workers import Cluster, TestClient

FORGED: list[events.Event] = [
    events.Deleted("over"),
    events.Banned("alice", b"", 0, ""),
    events.RoleSet("bob", bytes(32), Role.OWNER),
    events.KindSet(Kind.PRIVATE, False),
    events.TopicSet("mine"),
    events.Closed(True),
]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2, rights=True) as running:
        yield running


async def test_a_message_is_no_event_of_a_room(cluster: Cluster) -> None:
    """Whatever its content type and body; nor is an edit, or the reason of a redaction. The next
    home of the room agrees.
    """
    alice, bob = await begun(cluster)
    before = await done(alice, requests.Show())
    counter = 0

    async def send(kind: EntryKind, body: bytes, about: tuple[bytes, int] = (b"", 0)) -> Ack:
        nonlocal counter
        counter += 1
        bob.send_envelopes(Send(LOG, counter, int(kind), events.CONTENT_TYPE, body, *about))
        return await bob.acked(LOG, counter)

    for body in map(events.pack, FORGED):
        message = await send(EntryKind.MESSAGE, body)
        place = message.epoch, message.seq
        await send(EntryKind.EDIT, body, place)
        await send(EntryKind.REACTION, b"+1", place)
        await send(EntryKind.REDACTION, body, place)
    assert await done(alice, requests.Show()) == before
    home = cluster.home(LOG).index
    await cluster.kill(home)
    await cluster.start(home)
    await cluster.linked()
    again = await TestClient.login(cluster.home(LOG), "alice")
    assert shown.unpack(await done(again, requests.Show())) == shown.unpack(before)
    again.send(LOG, 1)
    await again.acked(LOG, 1)
    await bob.expect(Ack, lambda e: e.counter == counter)
    assert not [e for e in bob.received if isinstance(e, Removed)]


async def test_a_direct_message_is_no_event_of_an_account(cluster: Cluster) -> None:
    alice, bob = await begun(cluster)
    forged: list[account_events.Event] = [account_events.Disabled(), account_events.Removed()]
    for counter, body in enumerate(map(account_events.pack, forged), 1):
        sent = Send("@bob", counter, 0, account_events.CONTENT_TYPE, body)
        alice.send_envelopes(sent)
        await alice.acked("@alice", counter)
    bob.send(LOG, 1)
    await bob.acked(LOG, 1)
    await TestClient.login(cluster.workers[0], "bob")


async def test_an_invitation_that_many_use_at_once_registers_one_of_them(cluster: Cluster) -> None:
    """With different names, whose homes differ, through all workers."""
    operator = await an_operator(cluster)
    token = secrets.token_bytes(32)
    offered = account_requests.Invite(invitation.hash_of(token), 2**60, False)
    assert isinstance(await ask(operator, 9, offered), Done)
    names = [f"person-{n}x" for n in range(10)]
    clients = [await TestClient.connect(cluster.workers[n % 2]) for n in range(len(names))]
    for client, name in zip(clients, names, strict=True):
        client.send_envelopes(register(client.connection, client.spki, name, token=token))
    await asyncio.gather(
        *[
            client.until(
                lambda client=client: [e for e in client.received if isinstance(e, Done | Error)],  # type: ignore[misc]
                "an answer",
            )
            for client in clients
        ]
    )
    answers = [e for client in clients for e in client.received if isinstance(e, Done | Error)]
    assert sum(isinstance(answer, Done) for answer in answers) == 1
    codes = {answer.code for answer in answers if isinstance(answer, Error)}
    assert codes == {ErrorCode.INVITATION_NEEDED}
