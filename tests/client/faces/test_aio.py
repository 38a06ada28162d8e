"""Features of the asyncio client alone: many tasks on one client."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.client import event_queue
from relay.client.aio import Client
from relay.client.errors import ClientClosed, UnknownServerKey
from relay.client.events import Message, State, StateChanged
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.policy import KeyPolicy
from relay.wire.envelopes import EntryMessage, Join, Joined
from tests.client.faces.adapters import WAIT_S
from tests.support.cluster import Relay, until
from tests.support.fake_server import FakeConnection, FakeServer


@pytest.fixture
async def client(relay: Relay) -> AsyncIterator[Client]:
    """A connected client with a small window."""
    async with Client(relay.address, window=8) as connected:
        yield connected


async def test_many_tasks_share_the_window(client: Client) -> None:
    """Each waits for its turn; every task's own order is kept; no task starves."""
    await client.join("tasks")

    async def send(task: int) -> list[int]:
        return [(await client.send("tasks", f"{task} {n}")).seq for n in range(20)]

    seqs = await asyncio.gather(*map(send, range(50)))
    assert all(own == sorted(own) for own in seqs)
    assert sorted(seq for own in seqs for seq in own) == list(range(2, 1002))
    found: list[str] = []
    async for event in client:
        if isinstance(event, Message):
            found.append(event.text)
            if len(found) == 1000:
                break
    for task in range(50):
        own = [text for text in found if text.startswith(f"{task} ")]
        assert own == [f"{task} {n}" for n in range(20)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can be asked")
async def test_a_client_that_does_not_read_sees_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when its program takes events again."""
    monkeypatch.setattr(event_queue, "EVENTS_MAX", 30)

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        join = connection.wait_for(Join)
        entry = ("room", b"e" * 8, 1, 0, 0, "al", b"", b"p" * 8, 1, 0, "", b"", "", b"", 0)
        entries = [EntryMessage(*entry)._replace(seq=n + 1, prev=n) for n in range(40)]
        connection.send_envelopes(Joined(join.request, "room", b"e" * 8, 0, b"e" * 8, 0), *entries)
        paused.wait(WAIT_S)

    paused = threading.Event()
    with FakeServer(script) as server:
        client = Client(server.address, reconnect=False)
        await client.connect()
        await client.join("room")
        await until(lambda: client._state.reading_paused, "it does not read")
        paused.set()
        await until(lambda: client.state is not State.ONLINE, "the end")
        await client.close()


async def test_a_cancelled_sender_gives_its_place_away(client: Client) -> None:
    """While queued, or just woken: the others go on."""
    tasks = [asyncio.create_task(client.send("cancelled", f"m{n}")) for n in range(100)]
    await asyncio.sleep(0)
    for task in tasks[10:60]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 50
    assert (await client.send("cancelled", "last")).seq >= 51


async def test_only_one_task_iterates(client: Client) -> None:
    """A second one would take events away from the first: an error."""
    first = asyncio.create_task(_drain(client))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="iterates"):
        await _drain(client)
    await client.close()
    await first


async def test_close_wakes_everybody(client: Client) -> None:
    """Calls that wait for an event, for the window or for an answer."""
    iterating = asyncio.create_task(_drain(client))
    waiting = [asyncio.create_task(client.send("closing", f"m{n}")) for n in range(50)]
    await asyncio.sleep(0)
    await client.close(0)
    await iterating
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert any(isinstance(result, ClientClosed) for result in results)
    assert not any(isinstance(result, asyncio.CancelledError) for result in results)
    assert [task for task in asyncio.all_tasks() if task.get_name() == "relay client"] == []


async def test_a_person_may_think(relay: Relay, tmp_path: Path) -> None:
    """The question about a key may be a coroutine; no connection is open meanwhile."""
    asked = asyncio.Event()
    resume = asyncio.Event()

    async def ask(address: object, fingerprint: str) -> bool:
        asked.set()
        await resume.wait()
        return True

    policy = KeyPolicy(KnownServers(tmp_path / "pins"), ask)
    client = Client(f"relay://127.0.0.1:{relay.port}", name="thinker", key_policy=policy)
    connecting = asyncio.create_task(client.connect())
    await asked.wait()
    resume.set()
    await connecting
    assert client.server_fingerprint
    await client.close()


async def test_a_cancelled_connect_leaves_nothing(relay: Relay, tmp_path: Path) -> None:
    """No task and no socket, not even when the question is never answered."""

    async def ask(address: object, fingerprint: str) -> bool:
        await asyncio.Event().wait()
        return True

    policy = KeyPolicy(KnownServers(tmp_path / "pins"), ask)
    client = Client(f"relay://127.0.0.1:{relay.port}", name="leaver", key_policy=policy)
    with pytest.raises((TimeoutError, UnknownServerKey)):
        async with asyncio.timeout(0.5):
            await client.connect()
    await client.close()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "relay client"] == []


async def test_leaving_without_a_connection_needs_no_server(tmp_path: Path) -> None:
    """The answer is known at once: no socket event is needed to return it."""
    with Relay(tmp_path / "data") as relay:
        client = Client(relay.address)
        await client.connect()
        await client.join("offline")
        await asyncio.to_thread(relay.stop)
        async for event in client:
            if isinstance(event, StateChanged) and event.state is State.WAITING:
                break
        async with asyncio.timeout(WAIT_S):
            await client.leave("offline")
        await client.close()


async def test_whoever_cancels_all_tasks_ends_the_client(relay: Relay) -> None:
    """As the end of ``asyncio.run`` does: no call waits for an answer that cannot come."""
    async with Client(relay.address) as client:
        reader = asyncio.create_task(_drain(client))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task(), reader}:
            task.cancel()
        async with asyncio.timeout(WAIT_S):
            await reader
            with pytest.raises(ClientClosed):
                await client.send("lobby", "x")


def test_another_loop(relay: Relay) -> None:
    """A call in a loop that is not the client's raises an error instead of waiting for ever."""
    client = Client(relay.address)
    asyncio.run(client.connect())
    for call in (lambda: client.send("lobby", "x"), lambda: anext(client), client.connect):
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(call())
    asyncio.run(client.close())
    left = Client(relay.address)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(left.connect())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(left.flush())
    loop.run_until_complete(left.close())
    loop.close()


async def _drain(client: Client) -> None:
    async for _event in client:
        pass


async def test_a_server_may_speak_before_the_dial_has_returned(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on uvloop: early messages of the server are processed, not lost."""
    loop = asyncio.get_running_loop()
    create = loop.create_connection
    dials = 0
    client = Client(relay.address)

    async def late(*args: Any, **options: Any) -> Any:  # noqa: ANN401  # as the loop's own
        nonlocal dials
        dials += 1
        made = await create(*args, **options)
        await until(lambda: client.state is not State.CONNECTING, "the login, or its end")
        return made

    monkeypatch.setattr(loop, "create_connection", late)
    async with client:
        assert client.state is State.ONLINE
    assert dials == 1


@pytest.mark.skipif(sys.platform != "linux", reason="uvloop is used on Linux alone")
def test_on_uvloop_too(relay: Relay) -> None:
    """The same client on uvloop."""
    import uvloop

    async def talk() -> list[str]:
        async with Client(relay.address) as client:
            await client.join("uvloop")
            for n in range(100):
                await client.post("uvloop", f"m{n}")
            found: list[str] = []
            async for event in client:
                if isinstance(event, Message):
                    found.append(event.text)
                    if len(found) == 100:
                        break
            return found

    assert uvloop.run(talk()) == [f"m{n}" for n in range(100)]
