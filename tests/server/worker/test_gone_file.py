"""Partition files that are moved away while in use: no client is shown an empty log."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final

from relay import limits
from relay.chat.accounts import requests as of_accounts
from relay.chat.partition import partition_of
from relay.chat.rooms import requests as of_rooms
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import (
    Account,
    ClientEnvelope,
    Devices,
    Error,
    History,
    Join,
    Leave,
    Room,
    Search,
    ServerEnvelope,
)
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient

ROOM, NEW = "lobby", "market"
"""Two logs of one home."""
NUMBER: Final = 7


def questions(person: str, cursor: tuple[bytes, int]) -> list[ClientEnvelope]:
    """Return all requests that read the files of rooms, other accounts, and the own account."""
    listed = of_rooms.List(partition_of(ROOM), "")
    return [
        Join(NUMBER, NEW, None, 0, 10),
        Join(NUMBER, NEW, *cursor, 0),
        History(NUMBER, ROOM, False, 0, 10),
        History(NUMBER, ROOM, True, 0, 10),
        Search(NUMBER, ROOM, "nobody has written this", 0, 10),
        Devices(NUMBER, person, 0),
        Account(NUMBER, "", of_accounts.pack(of_accounts.Marks(""))),
        Room(NUMBER, "", of_rooms.pack(listed, of_rooms.ANYTHING_SEEN)),
        Room(NUMBER, "", of_rooms.pack(of_rooms.Mine(""), of_rooms.ANYTHING_SEEN)),
    ]


async def answer_to(client: TestClient, asked: ClientEnvelope) -> ServerEnvelope:
    def answers() -> list[ServerEnvelope]:
        return [one for one in client.received if getattr(one, "request", 0) == NUMBER]

    client.received.clear()
    client.send_envelopes(asked)
    await client.until(answers, f"an answer to {asked}")
    return answers()[0]


async def test_whoever_asks_is_told_and_it_heals(cluster: Cluster) -> None:
    home, other = cluster.home(ROOM), cluster.other(ROOM)
    assert cluster.home(NEW) is home
    name, person, new = itertools.islice(cluster.names_of(home), 3)
    (await TestClient.login(other, person)).disconnect()
    client = await TestClient.login(other, name)
    for room in (NEW, ROOM):
        client.send(room, 1)
        await client.acked(room, 1)
    await client.join(ROOM)
    feed = other.feed(ROOM)
    asked = questions(person, (feed.epoch, 1))

    files = [home._stores.path_of(index) for index in home.parts.home.partitions.opened]
    for file in files:
        file.rename(aside(file))
    for one in asked:
        told = await answer_to(client, one)
        assert isinstance(told, Error), (one, told)
        assert (told.code, told.arg) == (ErrorCode.UNAVAILABLE, limits.RETRY_MS), (one, told)
    stranger = await TestClient.connect(other)
    stranger.hello(new)
    await stranger.ended()
    assert stranger.closed is not None
    assert stranger.closed.code == CloseCode.LOGIN_UNAVAILABLE
    assert stranger.closed.retry_after_s
    partitions = home.parts.home.partitions  # the operator is told without a write
    await until(lambda: set(partitions.troubles) == set(partitions.opened), "it to be seen")

    for file in files:
        aside(file).rename(file)
    await until(lambda: not partitions.troubles, "all to be tried again")
    for one in asked:
        told = await answer_to(client, one)
        assert not isinstance(told, Error), (one, told)
        if isinstance(one, Join):
            client.send_envelopes(Leave(NUMBER + 1, NEW))


def aside(file: Path) -> Path:
    return file.with_suffix(".aside")
