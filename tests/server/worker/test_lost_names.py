"""Two invited users ask for one name at the same time: an invitation is used by an account only."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.chat.accounts import invitation, requests
from relay.chat.partition import PARTITIONS, partition_of
from relay.client.devices.device_key import DeviceKey
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Done, Error, Register
from tests.server.worker.test_logins import ask
from tests.support.cluster import until
from tests.support.devices import register
from tests.support.operators import an_operator
from tests.support.workers import Cluster, TestClient

NAME = "paul"
INDEX = partition_of(f"@{NAME}")
THERE = (INDEX + 1) % PARTITIONS
"""Where the invitations have their logs."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2) as running:
        yield running


def new_token() -> bytes:
    while True:
        token = secrets.token_bytes(32)
        if partition_of(invitation.log_of(invitation.hash_of(token))) == THERE:
            return token


class Registering:
    """Somebody with an invitation and a key."""

    def __init__(self, name: str, token: bytes) -> None:
        self.name = name
        self.key = DeviceKey.generate()
        self.token = token
        self.client: TestClient

    async def asks(
        self, cluster: Cluster, name: str = "", first_device: DeviceKey | None = None
    ) -> None:
        """Ask for the name, or for another one, on a new connection; for another key's account."""
        self.client = await TestClient.connect(cluster.workers[0])
        asked = self.envelope(name)
        if first_device is not None:
            connection, spki = self.client.connection, self.client.spki
            other = register(connection, spki, name or self.name, first_device, self.token)
            asked = asked._replace(link=other.link)
        self.client.send_envelopes(asked)

    def envelope(self, name: str = "") -> Register:
        """Return the request for the name, or for another one, on the present connection."""
        connection, spki = self.client.connection, self.client.spki
        return register(connection, spki, name or self.name, self.key, self.token)

    async def is_refused(self, code: ErrorCode) -> None:
        await self.client.expect(Error, lambda error: error.code == code)

    async def has_registered(self) -> None:
        await self.client.expect(Done)


async def invited(
    cluster: Cluster, *names: str, operator: TestClient | None = None
) -> list[Registering]:
    operator = operator or await an_operator(cluster)
    people = [Registering(name, new_token()) for name in names]
    for number, one in enumerate(people, 10):
        invite = requests.Invite(invitation.hash_of(one.token), 2**60, False)
        assert isinstance(await ask(operator, number, invite), Done)
    return people


async def raced(cluster: Cluster, people: list[Registering]) -> tuple[Registering, Registering]:
    """Have both use their invitations before either has a name; return who comes first.

    Their names are decided once the partition of the name is released.
    """
    home = cluster.home(f"@{NAME}").parts.home
    homes = [one.parts.home for one in cluster.workers.values()]
    there = next(one for one in homes if one.partitions.owns(THERE))
    for parts, index in ((there, THERE), (home, INDEX)):
        await until(lambda p=parts.partitions, i=index: p.begin_removal(i), "nobody at work")  # type: ignore[misc]
    for one in people:
        await one.asks(cluster)
    await until(lambda: len(there.accounts._by_log) == 2, "both to use their invitations")
    there.partitions.end_removal(THERE)
    changes = home.accounts._by_log
    await until(lambda: [len(one.waiting) for one in changes.values()] == [1], "both to ask")
    (change,) = changes.values()
    assert change.asked is not None
    first, second = people
    if change.asked.ask.key_id != first.key.key_id:
        first, second = second, first
    return first, second


@pytest.mark.parametrize("other", [NAME, "pau1"], ids=["the same name", "a name that looks alike"])
@pytest.mark.parametrize("lost", [False, True], ids=["refused", "refused after a lost connection"])
async def test_who_comes_second_keeps_the_invitation(
    cluster: Cluster, other: str, lost: bool
) -> None:
    """For another name. The refusal may be lost with the connection: then it is asked for again."""
    first, second = await raced(cluster, await invited(cluster, NAME, other))
    if lost:
        second.client.disconnect()
        sessions = [one.parts.connections.sessions for one in cluster.workers.values()]
        await until(lambda: sum(map(len, sessions)) == 2, "the connection to be gone")
    cluster.home(f"@{NAME}").parts.home.partitions.end_removal(INDEX)
    await first.has_registered()
    code = ErrorCode.NAME_TAKEN if other == NAME else ErrorCode.LOOKS_ALIKE
    if lost:
        await second.asks(cluster)
    await second.is_refused(code)
    for name in ("carol", "carol"):  # again: it is done already
        await second.asks(cluster, name)
        await second.has_registered()
    for one in (first, second):
        await one.asks(cluster, "dave")
        await one.is_refused(ErrorCode.INVITATION_NEEDED)


async def test_nobody_releases_the_invitation_of_an_account(cluster: Cluster) -> None:
    """By asking for a name that is taken, with the same key or another one."""
    (one,) = await invited(cluster, NAME)
    await one.asks(cluster)
    await one.has_registered()
    taken = Registering("bob", b"")
    await taken.asks(cluster)
    await taken.has_registered()
    own, other = one.key, DeviceKey.generate()
    for key, name in ((own, "bob"), (other, "bob"), (other, NAME)):
        one.key = key
        await one.asks(cluster, name)
        await one.is_refused(ErrorCode.NAME_TAKEN)
        await one.asks(cluster, "dave")
        await one.is_refused(ErrorCode.INVITATION_NEEDED)


@pytest.mark.parametrize("how", ["another first device", "removed"])
async def test_an_account_that_has_lost_the_key_has_used_the_invitation(
    cluster: Cluster, how: str
) -> None:
    """Otherwise one invitation would be enough for any number of accounts, one after the other."""
    operator = await an_operator(cluster)
    (one,) = await invited(cluster, NAME, operator=operator)
    if how == "removed":
        await one.asks(cluster)
        await one.has_registered()
        assert isinstance(await ask(operator, 20, requests.Remove(), NAME), Done)
        for worker in cluster.workers.values():  # as after a restart
            worker.parts.home.queues.revoke(NAME, [one.key.key_id], lifted=True)
    else:
        await one.asks(cluster, first_device=DeviceKey.generate())
        await one.has_registered()
    await one.asks(cluster)
    await one.is_refused(ErrorCode.NAME_TAKEN)
    await one.asks(cluster, "dave")
    await one.is_refused(ErrorCode.INVITATION_NEEDED)
