"""The announcement of the server's next key, over real sockets and several workers."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.server.worker.connection.requests.next_key import PROOFS_MAX
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Done, Error, NextKey, Prove
from relay.wire.identity import parse_spki
from tests.support.pair import other_key, server_key
from tests.support.workers import Cluster, LocalAgent, TestClient

PUBLIC = parse_spki(server_key().spki)
NEXT = hashlib.sha256(other_key().spki).digest()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2) as running:
        yield running


def announce(cluster: Cluster, next_hash: bytes = NEXT) -> None:
    for worker in cluster.workers.values():
        agent: LocalAgent = worker._agent  # type: ignore[assignment]
        agent.announce(next_hash)


async def proof_of(client: TestClient, secret: bytes, number: int = 5) -> bytes:
    client.send_envelopes(Prove(number, PUBLIC.challenge(secret)))
    return (await client.expect(Done, lambda e: e.request == number)).content


async def test_everybody_is_told_and_gets_a_proof(cluster: Cluster) -> None:
    """Clients that are logged in, on every worker, and clients that log in later."""
    workers = list(cluster.workers.values())
    before = [await TestClient.login(worker, f"alice{n}") for n, worker in enumerate(workers)]
    announce(cluster)
    later = [await TestClient.login(worker, f"bob{n}") for n, worker in enumerate(workers)]
    for client in before + later:
        told = await client.expect(NextKey)
        assert told.spki_hash == NEXT
        secret = secrets.token_bytes(32)
        assert await proof_of(client, secret) == PUBLIC.next_key_proof(secret, NEXT)


async def test_a_proof_is_for_one_challenge_one_key_and_one_successor(cluster: Cluster) -> None:
    announce(cluster)
    client = await TestClient.login(cluster.workers[0], "alice")
    one, two = secrets.token_bytes(32), secrets.token_bytes(32)
    proof = await proof_of(client, one)
    assert proof != PUBLIC.next_key_proof(two, NEXT)
    assert proof != PUBLIC.next_key_proof(one, bytes(32))
    assert proof != parse_spki(other_key().spki).next_key_proof(one, NEXT)


async def test_the_agent_does_not_open_session_keys_here(cluster: Cluster) -> None:
    """A recorded session key as a challenge: it has another label, so the answer is random."""
    announce(cluster)
    client = await TestClient.login(cluster.workers[0], "alice")
    recorded = secrets.token_bytes(32)
    client.send_envelopes(Prove(5, PUBLIC.wrap(recorded)))
    done = await client.expect(Done, lambda e: e.request == 5)
    assert done.content != PUBLIC.next_key_proof(recorded, NEXT)
    assert len(done.content) == 32
    session = server_key().unwrap(PUBLIC.challenge(recorded))
    assert session != recorded, "nor the other way round"


@pytest.mark.parametrize("challenge", [b"x", bytes(256), b"\xff" * 256, bytes(1024)])
async def test_a_bad_challenge_gets_a_random_answer(cluster: Cluster, challenge: bytes) -> None:
    announce(cluster)
    client = await TestClient.login(cluster.workers[0], "alice")
    client.send_envelopes(Prove(11, challenge), Prove(12, challenge))
    first = await client.expect(Done, lambda e: e.request == 11)
    second = await client.expect(Done, lambda e: e.request == 12)
    assert len(first.content) == len(second.content) == 32
    assert first.content != second.content


async def test_without_an_announcement_there_is_nothing_to_prove(cluster: Cluster) -> None:
    client = await TestClient.login(cluster.workers[0], "alice")
    client.send_envelopes(Prove(5, bytes(256)))
    await client.expect(Error, lambda e: (e.request, e.code) == (5, ErrorCode.NOT_SUPPORTED))
    assert not any(isinstance(e, NextKey) for e in client.received)


async def test_before_the_login_it_is_a_violation(cluster: Cluster) -> None:
    announce(cluster)
    client = await TestClient.connect(cluster.workers[0])
    client.send_envelopes(Prove(5, PUBLIC.challenge(bytes(32))))
    await client.ended()
    assert client.closed is not None
    assert client.closed.code == CloseCode.PROTOCOL


async def test_proofs_are_bounded(cluster: Cluster) -> None:
    """Each is an RSA operation: a connection that requests without end is closed."""
    announce(cluster)
    client = await TestClient.login(cluster.workers[0], "alice")
    for number in range(11, PROOFS_MAX + 12):
        client.send_envelopes(Prove(number, PUBLIC.challenge(bytes(32))))
    await client.ended()
    assert client.closed is not None
    assert client.closed.code == CloseCode.LIMIT
    assert len([e for e in client.received if isinstance(e, Done) and e.request > 10]) <= PROOFS_MAX
