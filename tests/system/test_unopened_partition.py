"""A partition that cannot be opened is reported, the others are served, and it recovers by
itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from relay import BlockingClient, Client, Message, Unavailable
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import PARTITIONS, partition_of
from tests.support.cluster import Relay, until
from tests.support.watching import ON_A_FREE_PORT, Watcher
from tests.system.test_ctl import status_of

BAD, GOOD = 14, 4


def room_in(partition: int, prefix: str = "room") -> str:
    return next(name for n in range(10_000) if partition_of(name := f"{prefix}-{n}") == partition)


def person_in(partition: int) -> str:
    names = (f"ann{n}" for n in range(10_000))
    return next(name for name in names if partition_of(INBOX_PREFIX + name) == partition)


def partitions(relay: Relay, event: str) -> set[int]:
    return {line["partition"] for line in relay.events(event)}


def put_in_the_way(lock: Path) -> None:
    """A directory in the file's place: the tests may run as root, whom permissions do not stop."""
    lock.rename(lock.with_suffix(".away"))
    lock.mkdir()


def mend(lock: Path) -> None:
    lock.rmdir()
    lock.with_suffix(".away").rename(lock)


def at_a_handover(relay: Relay) -> None:
    """Return the last partitions: those that a third worker takes over from two."""
    os.kill(relay.pid, signal.SIGTTIN)


def at_a_death(relay: Relay) -> None:
    relay.kill_worker(0)
    relay.kill_worker(1)


async def refused_by_its_worker(client: Client) -> None:
    """Wait until the client's worker has heard of it: until then a join is answered, for a log that
    this worker follows.
    """
    with contextlib.suppress(Unavailable):
        while True:
            await client.join(room_in(BAD))
            await client.leave(room_in(BAD))


async def refused_in_time(client: Client, person: str) -> None:
    """Make each request that needs the partition; each must be answered."""
    bad = room_in(BAD)
    asked = [
        client.join(bad, last=10),
        client.create_room(room_in(BAD, "new")),
        client.room_info(bad),
        client.send(bad, "not stored"),
    ]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * len(asked)
    # A direct message accepted by another partition waits for this one.
    assert (await client.send(f"@{person}", "read it later")).seq


def told_to_the_operator(relay: Relay, lock: Path) -> None:
    (told,) = relay.events("partition_unavailable")
    assert told["partition"] == BAD
    status_of(relay, f"partition {BAD}: {lock} is not a regular file: remove it")
    where = "cannot be opened or written now: see relay ctl status, or the log"
    # The others are served.
    Watcher(relay).sees("/readyz", 200, warnings=[f"1 of 16 partitions {where}"])


@pytest.mark.parametrize("when", [None, at_a_handover, at_a_death])
async def test_each_who_asks_is_answered_and_goes_on_when_it_is_mended(
    tmp_path: Path, when: Callable[[Relay], None] | None
) -> None:
    data = tmp_path / "data"
    lock = data / "logs" / f"{BAD:02}.lock"
    bad, good = room_in(BAD), room_in(GOOD)
    person, writer = person_in(BAD), person_in(GOOD)
    with Relay(data) as relay:
        for name in (person, writer):
            with BlockingClient(relay.address, name=name, key=tmp_path / name) as client:
                for room in (bad, good):
                    client.send(room, f"{name} was here")
    if when is None:
        put_in_the_way(lock)
    with Relay(data, workers=2, settings=ON_A_FREE_PORT) as relay:
        async with (
            Client(relay.address, name=person, key=tmp_path / person) as reader,
            Client(relay.address, name=writer, key=tmp_path / writer, retry_timeout_s=1) as client,
        ):
            if when is not None:
                await reader.join(bad)
                put_in_the_way(lock)
                when(relay)
            await until(lambda: relay.events("partition_unavailable"), "it to be told of")
            workers = relay.worker_pids()
            await refused_by_its_worker(client)
            await asyncio.gather(refused_in_time(client, person), client.join(good))
            await asyncio.to_thread(told_to_the_operator, relay, lock)
            assert (await client.send(good, "it goes on")).seq

            mend(lock)
            await until(lambda: relay.events("partition_available"), "it to be mended")
            if when is None:
                await reader.join(bad)
            await reader.join(f"@{person}", last=10)
            await client.join(bad)
            assert (await client.send(bad, "stored")).seq == 4  # the first entry began the room
            texts: set[str] = set()
            async with asyncio.timeout(60):
                while texts != {"stored", "read it later"}:
                    event = await reader.next_event()
                    if isinstance(event, Message):
                        texts.add(event.text)
            watcher = Watcher(relay)
            await until(lambda: not watcher.ask("/readyz")[1]["warnings"], "all to be well")
            if when is not at_a_death:
                assert relay.worker_pids() == workers
        assert not relay.events("partition_new_epochs")


async def test_a_worker_that_can_open_nothing_serves_in_the_place_of_one_that_has_died(
    tmp_path: Path,
) -> None:
    """The file system has become read-only: without this, no request would be answered at all."""
    data = tmp_path / "data"
    everything = set(range(PARTITIONS))
    locks = [data / "logs" / f"{index:02}.lock" for index in everything]
    with Relay(data, settings=ON_A_FREE_PORT) as relay:
        with BlockingClient(relay.address, name="~ann") as client:
            client.send("lobby", "stored")
        for lock in locks:
            put_in_the_way(lock)
        relay.kill_worker(0)
        await until(lambda: partitions(relay, "partition_unavailable") == everything, "the log")
        async with Client(relay.address, name="~bob") as bob:
            with pytest.raises(Unavailable):
                await bob.join("lobby")
            for lock in locks:
                mend(lock)
            await until(lambda: partitions(relay, "partition_available") == everything, "the log")
            await bob.join("lobby")
            assert (await bob.send("lobby", "again")).seq == 3
        assert not relay.events("boot_failed")


async def test_whoever_needs_a_partition_without_a_process_is_answered(tmp_path: Path) -> None:
    """For as long as that lasts: here the supervisor is stopped, and replaces no worker."""
    data, bad = tmp_path / "data", room_in(BAD)
    with Relay(data, workers=2) as relay:
        async with Client(relay.address, name="~ann", retry_timeout_s=0.1) as client:
            await client.send(bad, "stored")
            os.kill(relay.pid, signal.SIGSTOP)  # no worker is replaced
            try:
                os.kill(relay.worker_pids()[BAD % 2], signal.SIGKILL)
                asked = client.join(bad), client.room_info(bad), client.send(bad, "not stored")
                answers = await asyncio.gather(*asked, return_exceptions=True)
                assert [type(answer) for answer in answers] == [Unavailable] * 3
            finally:
                os.kill(relay.pid, signal.SIGCONT)
            await client.join(bad)
            assert (await client.send(bad, "again")).seq == 3
