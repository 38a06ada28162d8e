"""A disk that fails, or becomes read-only, while the relay runs, and recovers later."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from relay import Client, Message, Unavailable
from relay.client.events import Postponed
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.policy import KeyPolicy
from tests.support.cluster import Relay, until
from tests.support.faulty import bad_while
from tests.support.watching import ON_A_FREE_PORT, Watcher

ROOM: Final = "lobby"
MEANWHILE: Final = 20
"""Messages sent while the disk fails, besides those before and after."""


class Trouble(NamedTuple):
    """A disk, and how it fails."""

    fault: str
    begin: Callable[[Relay], None]
    end: Callable[[Relay], None]
    reads: bool
    """True if stored data can still be read."""


def _immutable(relay: Relay, flag: str) -> None:
    """Make every write fail, through open descriptors as well, as on a file system remounted
    read-only.

    (A real remount is refused while files are open for writing.) The WAL index is left out: it is
    memory.
    """
    files = [path for path in (relay.data / "logs").iterdir() if path.suffix != ".sqlite-shm"]
    subprocess.run(["chattr", flag, *files, relay.data / "logs"], check=True)


TROUBLES: Final = {
    "read-only": Trouble(
        "", lambda relay: _immutable(relay, "+i"), lambda relay: _immutable(relay, "-i"), True
    ),
    "writes": Trouble(
        "disk-for-a-while=writes",
        lambda relay: bad_while(relay.marker).touch(),
        lambda relay: bad_while(relay.marker).unlink(),
        True,
    ),
    "all": Trouble(
        "disk-for-a-while=all",
        lambda relay: bad_while(relay.marker).touch(),
        lambda relay: bad_while(relay.marker).unlink(),
        False,
    ),
}


@pytest.fixture(params=TROUBLES)
def trouble(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trouble]:
    if request.param == "read-only":
        probe = tmp_path / "probe"
        with probe.open("wb", buffering=0) as file:
            tried = subprocess.run(["chattr", "+i", probe], capture_output=True, check=False)
            try:
                file.write(b"x")
            except OSError:
                pass
            else:
                pytest.skip(f"no file can be made immutable here: {tried.stderr!r}")
            finally:
                subprocess.run(["chattr", "-i", probe], capture_output=True, check=False)
    yield TROUBLES[request.param]
    subprocess.run(["chattr", "-R", "-i", tmp_path], capture_output=True, check=False)


async def test_senders_wait_readers_go_on_and_nothing_is_lost(
    tmp_path: Path, trouble: Trouble
) -> None:
    """Twice in a row: requests that need the disk fail with an error; it recovers without a
    restart.
    """
    with Relay(tmp_path / "data", workers=2, fault=trouble.fault, settings=ON_A_FREE_PORT) as relay:
        workers = relay.worker_pids()
        policy = KeyPolicy(KnownServers(tmp_path / "known"))
        watcher = Watcher(relay)
        async with (
            Client(relay.address, name="~ann", key_policy=policy) as ann,
            Client(relay.address, name="~bob", key_policy=policy) as bob,
        ):
            await ann.send(ROOM, "0")
            await bob.join(ROOM, last=1)
            numbers = itertools.count(1)
            for _ in range(2):
                for _ in range(MEANWHILE):
                    await ann.send(ROOM, str(next(numbers)))
                trouble.begin(relay)
                posts = [await ann.post(ROOM, str(next(numbers))) for _ in range(MEANWHILE)]
                await _postponed(ann)
                assert not any(post.done() for post in posts)
                told = len(relay.events("partition_unavailable"))
                assert told
                await _meanwhile(relay, policy, bob, reads=trouble.reads)
                await until(
                    lambda: "cannot be opened or written" in str(watcher.ask("/readyz")),
                    "a warning",
                )

                trouble.end(relay)
                async with asyncio.timeout(60):
                    await ann.flush()
                await until(lambda: not watcher.ask("/readyz")[1]["warnings"], "all to be well")
            await ann.send(ROOM, last := str(next(numbers)))
            texts: list[str] = []
            async with asyncio.timeout(60):
                while not texts or texts[-1] != last:
                    event = await bob.next_event()
                    if isinstance(event, Message):
                        texts.append(event.text)
            assert texts == [str(number) for number in range(int(last) + 1)]
            await ann.join(ROOM)
            stored = await ann.history(ROOM, count=200)
            assert [one.text for one in stored.entries if isinstance(one, Message)] == texts
            assert relay.worker_pids() == workers
            assert relay.events("partition_available")


async def _postponed(client: Client) -> None:
    async with asyncio.timeout(60):
        while not isinstance(told := await client.next_event(), Postponed):
            pass
    assert told.room == ROOM


async def _meanwhile(relay: Relay, policy: KeyPolicy, bob: Client, *, reads: bool) -> None:
    """Requests that need the disk are refused with their error code; reading goes on if
    possible.
    """
    refused = asyncio.create_task(_refused(relay, policy))
    if reads:
        assert (await bob.history(ROOM, count=5)).entries
        async with Client(relay.address, name="~cat", key_policy=policy) as cat:
            await cat.join(ROOM, last=3)
            async with asyncio.timeout(60):
                while not isinstance(await cat.next_event(), Message):
                    pass
    await refused


async def _refused(relay: Relay, policy: KeyPolicy) -> None:
    async with Client(relay.address, name="~dan", key_policy=policy, retry_timeout_s=1) as dan:
        with pytest.raises(Unavailable):
            await dan.send(ROOM, "not stored")
