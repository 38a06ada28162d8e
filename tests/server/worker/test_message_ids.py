"""A room member tries to use another's message ids: to use them up, block them or get their
ACKs.
"""

from __future__ import annotations

import secrets

from relay import limits
from relay.wire.envelopes import Ack, EntryMessage, Refused, Send
from tests.support.workers import Cluster, TestClient

LOG = "lobby"


async def test_what_a_reader_sees_lets_nobody_send_in_anothers_place(cluster: Cluster) -> None:
    """Mallory has received all of Alice's entries. Her counters are not affected."""
    alice = await TestClient.login(cluster.home(LOG), "alice")
    mallory = await TestClient.login(cluster.other(LOG), "mallory")
    await mallory.join(LOG)
    alice.send(LOG, 1, 3)
    await alice.acked(LOG, 3)
    await mallory.has(LOG, 3)
    seen = mallory.entries(LOG)[-1].producer
    assert len(seen) == limits.PRODUCER_BYTES

    # Everything that HELLO has a field for: the producer as the secret, whole or in part, in any
    # name.
    thieves = [
        await TestClient.login(worker, name, secret=secret)
        for number, secret in enumerate((seen, seen[:8] * 2, seen[::-1]))
        for worker, name in ((cluster.other(LOG), f"thief{number}"),)
    ]
    for thief in (mallory, *thieves):
        thief.send_envelopes(*[Send(LOG, counter, 0, "", b"approve") for counter in range(4, 9)])
        await thief.expect(Refused, count=5)
        thief.send_envelopes(Send(LOG, 1, 0, "", b"approve"))
        await thief.expect(Ack)
        assert thief.producer != seen

    alice.send(LOG, 4, 6)
    await alice.acked(LOG, 6)
    await mallory.has(LOG, 6 + 1 + len(thieves))
    stored = [e for e in mallory.entries(LOG) if e.producer == seen]
    assert [(e.sender, e.counter) for e in stored] == [("alice", n) for n in range(1, 7)]


async def test_the_same_secret_under_another_name_is_another_producer(cluster: Cluster) -> None:
    """A secret that leaked to another name is of no use there."""
    alice = await TestClient.login(cluster.workers[0], "alice")
    bob = await TestClient.login(cluster.workers[1], "bob", secret=alice.secret)
    await bob.join(LOG)
    for client in (alice, bob):
        client.send(LOG, 1)
        await client.acked(LOG, 1)
    await bob.has(LOG, 2)
    producers = {e.sender: e.producer for e in bob.entries(LOG)}
    assert producers == {"alice": alice.producer, "bob": bob.producer}
    assert producers["alice"] != producers["bob"]


async def test_an_instance_that_comes_back_keeps_its_ids(cluster: Cluster) -> None:
    """By its secret alone, on any worker: what it sends again is stored once."""
    secret = secrets.token_bytes(16)
    first = await TestClient.login(cluster.workers[0], "alice", secret=secret)
    first.send(LOG, 1, 5)
    acked = await first.acked(LOG, 5)
    again = await TestClient.login(cluster.workers[1], "alice", secret=secret)
    await again.join(LOG, last=10)
    again.send(LOG, 4, 6)
    await again.acked(LOG, 6)
    acks = [e for e in again.received if isinstance(e, Ack)]
    assert [(e.counter, e.seq) for e in acks] == [(4, 4), (5, 5), (6, 6)]
    assert acks[1].epoch == acked.epoch
    await again.has(LOG, 6)
    entries = [e for e in again.received if isinstance(e, EntryMessage)]
    assert {e.producer for e in entries} == {first.producer} == {again.producer}
