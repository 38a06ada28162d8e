"""Changes of an account that race on different workers, also with the death of its home in between.

Which comes first is decided by its log; whatever that is, everybody gets the outcome that fits it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.chat.accounts import requests
from relay.chat.accounts.links import Kind
from relay.client.devices.device_key import DeviceKey
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Account, Done, Error, Welcome
from tests.server.worker.test_logins import add_device, answered, ask, chain_of, ended, login_as
from tests.support.cluster import until
from tests.support.devices import device, hello
from tests.support.operators import an_operator
from tests.support.workers import Cluster, TestClient, Worker

LOGINS = 4


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 3) as running:
        yield running


def places(cluster: Cluster) -> tuple[str, Worker, list[Worker]]:
    """Return the name of an account, its home, and the other workers: with the first one."""
    home = cluster.workers[1]
    return next(cluster.names_of(home)), home, [cluster.workers[0], cluster.workers[2]]


async def die(cluster: Cluster, home: Worker) -> None:
    await cluster.kill(home.index)
    await cluster.start(home.index)


@pytest.mark.parametrize("killed", [False, True], ids=["", "its home dies"])
async def test_two_devices_remove_each_other(cluster: Cluster, killed: bool) -> None:
    """One of them stays, and works everywhere; the other one is gone everywhere."""
    name, home, (left, right) = places(cluster)
    first = await TestClient.login(left, name)
    keys = device(name), DeviceKey.generate()
    await add_device(first, name, keys[1], 5)
    clients = first, await login_as(right, name, keys[1])
    held = await chain_of(first, name, 6)
    for client, own, other in zip(clients, keys, reversed(keys), strict=True):
        body = held.next_body(Kind.REMOVE, other.public, own.public).packed()
        client.send_envelopes(Account(7, "", requests.pack(requests.Extend(body + own.sign(body)))))
    if killed:
        await die(cluster, home)
    won = [False, False]

    def decided() -> bool:
        for number, client in enumerate(clients):
            won[number] = any(isinstance(one, Done) for one in answered(client, 7))
        return any(won)

    await until(decided, "the answer to the first")
    winner, loser = (0, 1) if won[0] else (1, 0)
    await ended(clients[loser], CloseCode.REVOKED)
    assert not any(isinstance(one, Done) for one in answered(clients[loser], 7))
    chain = await chain_of(clients[winner], name, 8)
    assert chain.number == 2, "the two links do not both count"
    assert set(chain.devices) == {keys[winner].public}
    assert set(chain.removed) == {keys[loser].public}
    for worker in cluster.workers.values():
        await login_as(worker, name, keys[winner])
        again = await TestClient.connect(worker)
        again.send_envelopes(hello(again.connection, again.spki, name, bytes(16), key=keys[loser]))
        await again.expect(Error, lambda e: e.code == ErrorCode.KEY_REFUSED)


@pytest.mark.parametrize("killed", [False, True], ids=["", "its home dies"])
async def test_an_account_is_disabled_while_it_logs_in(cluster: Cluster, killed: bool) -> None:
    """A login that came first is ended, a later one is refused: none stays."""
    name, home, elsewhere = places(cluster)
    operator = await an_operator(cluster)
    await TestClient.login(elsewhere[1], name)
    arriving = [await TestClient.connect(worker) for worker in elsewhere for _ in range(LOGINS)]
    for number, client in enumerate(arriving):
        if number == LOGINS:
            operator.send_envelopes(Account(9, name, requests.pack(requests.Disable())))
        secret = bytes([number]) * 16
        client.send_envelopes(hello(client.connection, client.spki, name, secret))
    if killed:
        await die(cluster, home)
    await operator.until(lambda: answered(operator, 9), "an answer")
    assert isinstance(answered(operator, 9)[0], Done)
    for client in arriving:
        await client.ended()
        assert client.closed is not None
        if any(isinstance(one, Welcome) for one in client.received):
            assert client.closed.code == CloseCode.KICKED
        else:
            assert client.closed.code in (CloseCode.NAME_REFUSED, CloseCode.LOGIN_UNAVAILABLE)
    assert not any(
        session.name == name and not session.ended
        for worker in cluster.workers.values()
        for session in worker.parts.connections.sessions
    )
    assert isinstance(await ask(operator, 10, requests.Enable(), name), Done)
    await TestClient.login(cluster.workers[home.index], name)
