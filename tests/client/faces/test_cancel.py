"""Cancellation takes effect at every await of the asyncio client, at once, and leaves nothing
behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable

import pytest

from relay.client.aio import Client
from relay.client.errors import ClientError
from relay.client.events import Message
from relay.client.refusals import Refused
from tests.client.faces.calls import CALLS
from tests.support.cluster import DEADLINE_S, ROOT, Relay
from tests.support.silent import SilentHost

TURNS_USUAL = 5_000
"""More loop iterations than a connect takes, unless the machine is busy with something else."""
AT_ONCE_S = 8.0
"""For calls that must not wait for anything; shorter than every timeout of the client."""


def left() -> list[asyncio.Task[object]]:
    """Return the tasks besides the test's own."""
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def turns(count: int) -> None:
    """Run so many loop iterations."""
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled_after(count: int, what: Awaitable[object]) -> bool:
    """Cancel after so many loop iterations; return True if it had ended by itself before."""
    task = asyncio.ensure_future(what)
    await turns(count)
    if task.done():
        await task
        return True
    task.cancel()
    async with asyncio.timeout(AT_ONCE_S):
        with pytest.raises(asyncio.CancelledError):
            await task
    return False


async def test_connect_at_every_turn(relay: Relay) -> None:
    """From before it has begun until after it is done."""
    more = (TURNS_USUAL << number for number in itertools.count())
    for count in itertools.chain(range(60), range(60, TURNS_USUAL, 97), more):
        client = Client(relay.address)
        done = await cancelled_after(count, client.connect())
        if done:
            await client.close()
            break
        with pytest.raises(ClientError):
            await client.send("lobby", "x")
        await turns(3)
        assert left() == []


async def test_connect_beside_a_task_that_fails_at_once(relay: Relay) -> None:
    """As in a TaskGroup."""

    async def stay() -> None:
        async with Client(relay.address):
            await asyncio.Event().wait()

    async def fail(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        raise LookupError

    for delay_s in (0.0, 0.001, 0.002, 0.003, 0.01, 0.1):
        async with asyncio.timeout(AT_ONCE_S):
            with pytest.raises(BaseExceptionGroup):  # noqa: PT012
                async with asyncio.TaskGroup() as group:
                    group.create_task(stay())
                    group.create_task(fail(delay_s))
    await turns(3)
    assert left() == []


@pytest.fixture
async def client(relay: Relay) -> AsyncIterator[Client]:
    async with Client(relay.address, name="cancel", window=2) as connected:
        yield connected


def called(client: Client, name: str) -> Awaitable[object]:
    """Call a method, in a room of the client's own where it is about a room."""
    method = getattr(client, name)
    result = method(*("cancel" if one == "lobby" else one for one in CALLS[name]))
    return anext(result) if inspect.isasyncgen(result) else result


ENDS = {"connect", "close", "delete_account"}
"""Calls after which a client is not what it was."""


@pytest.mark.parametrize("call", sorted(CALLS.keys() - ENDS))
async def test_every_call(client: Client, call: str) -> None:
    """The client can be used afterwards, and the call can be repeated."""
    for count in range(1, 4):  # with 0 the call has not begun
        with contextlib.suppress(Refused):  # it is so already
            await called(client, "leave" if call == "join" else "join")
        with contextlib.suppress(ClientError, ValueError):  # a fast server: nothing was cancelled
            await cancelled_after(count, called(client, call))
    with contextlib.suppress(Refused):
        await client.join("cancel")
    assert (await client.send("cancel", "last")).seq
    async for event in client:
        if isinstance(event, Message) and event.text == "last":
            break


@pytest.mark.parametrize("count", [1, 2, 3, 5])
async def test_close(relay: Relay, count: int) -> None:
    """Also while it waits for acknowledgements."""
    client = Client(relay.address)
    await client.connect()
    for n in range(50):
        await client.post("cancel-close", f"m{n}")
    await cancelled_after(count, client.close())
    await turns(3)
    assert left() == []


async def test_dialling_a_silent_host() -> None:
    with SilentHost() as host:
        client = Client(f"relay://{'a' * 52}@{host.host}:{host.port}")
        assert not await cancelled_after(100, client.connect())
    await turns(3)
    assert left() == []


PROGRAM = """
import asyncio, os, socket, sys, time
import relay.client.options
relay.client.options.DIAL_S = 3600.0  # whatever gives a dial up, it is the interrupt
from relay import {face}

real = socket.getaddrinfo
def dead(host, *args, **options):
    if host == "name.example" and not options.get("flags"):
        os.write(1, b"dialling\\n")  # no lock of this thread keeps the interpreter from its end
        time.sleep(3600)
    return real(host, *args, **options)
socket.getaddrinfo = dead
client = {face}(sys.argv[1])
print("dialling", flush=True) if "name" not in sys.argv[1] else None
{run}
"""


@pytest.mark.parametrize(
    ("face", "run", "host"),
    [
        ("Client", "asyncio.run(client.connect(3600))", "address"),
        ("Client", "asyncio.run(client.connect(3600))", "name"),
        ("BlockingClient", "client.connect(3600)", "address"),
    ],
)
def test_ctrl_c_while_dialling(face: str, run: str, host: str) -> None:
    """The program ends, whether a host is silent or its name server."""
    with SilentHost() as silent:
        place = "name.example" if host == "name" else silent.host
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(face=face, run=run),
             f"relay://{'a' * 52}@{place}:{silent.port}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": ""},
        ) as process:  # fmt: skip
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == "dialling\n"
                process.send_signal(signal.SIGINT)
                _, stderr = process.communicate(timeout=DEADLINE_S)
            finally:
                process.kill()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in stderr
