"""A connected client and ``os.fork()``: the child can neither use nor disturb the connection.

Each case is a process of its own. The parent's later sends are stored over the same login, which
shows that no byte of the child reached the stream: the next record would not have authenticated.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler

import pytest

from relay.client.aio import Client
from relay.client.blocking import BlockingClient
from tests.support.cluster import Relay
from tests.support.programs import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

BEGIN = """
import asyncio, gc, inspect, os, sys, traceback, warnings
import relay
from relay.client.errors import ClientForked
from tests.client.faces.calls import CALLS
warnings.simplefilter("ignore")
CALLS = {name: CALLS[name] for name in CALLS if name not in ("close", "pump")}  # they do nothing

def in_child(check):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            if EXIT == "os._exit" or code:
                os._exit(code)
            sys.exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status

def refused(call):
    try:
        call()
    except ClientForked as error:
        assert "os.fork()" in str(error)
    else:
        raise AssertionError("not refused")
"""

BLOCKING = """
client = relay.BlockingClient(sys.argv[1], name="fork-blocking")
client.connect()
client.join("forks")
client.send("forks", "first")
events, exported = client.events(), client.export(["forks"])
next(events), next(exported)
room = client.room("fork-room").__enter__()
room.send("first")
messages = iter(room)
next(messages)
sent = client.post("forks", "gathered, not sent yet")

def called(name):
    result = getattr(client, name)(*CALLS[name])
    return next(result) if inspect.isgenerator(result) else result

def use():
    for name in CALLS:
        refused(lambda: called(name))
    for begun in (events, exported, messages):
        refused(lambda: next(begun))
    for call in (sent.result, lambda: room.send("child")):
        refused(call)
    room.__exit__(None, None, None)
    client.pump(0)

def close():
    client.close()

def collect():
    global client
    del client
    gc.collect()

def nothing():
    pass

def again():
    with relay.BlockingClient(sys.argv[1], name="fork-child") as other:
        other.send("forks", "from a new client")

for check in (use, close, collect, nothing, again):
    in_child(check)
    client.flush()
    assert client.send("forks", "parent").seq
    assert client.statistics["logins"] == 1, check
client.close()
"""

AIO = """
async def main():
    client = relay.Client(sys.argv[1], name="fork-aio")
    await client.connect()
    await client.join("forks")
    await client.send("forks", "first")
    events, exported = client.events(), client.export(["forks"])
    await anext(events), await anext(exported)
    room = await client.room("fork-room").__aenter__()
    await room.send("first")
    messages = aiter(room)
    await anext(messages)
    sent = await client.post("forks", "not sent yet")
    loop = asyncio.get_running_loop()

    async def called(name):
        result = getattr(client, name)(*CALLS[name])
        return await (anext(result) if inspect.isasyncgen(result) else result)

    def use():
        async def calls():
            for call in (
                *map(called, CALLS), anext(events), anext(exported), anext(messages),
                room.send("child"),
            ):
                try:
                    await call
                except ClientForked:
                    pass
                else:
                    raise AssertionError(call)
            refused(sent.result)
            await room.__aexit__(None, None, None)
            await client.pump(0)
            await client.close()
        asyncio._set_running_loop(None)
        asyncio.run(calls())

    def one_turn():  # the child goes on in the parent's loop, as a careless program does
        client._pump._flush()
        client._pump.settle()
        loop._run_once() if hasattr(loop, "_run_once") else None

    def close():
        asyncio._set_running_loop(None)
        asyncio.run(client.close())

    def collect():
        nonlocal client
        asyncio._set_running_loop(None)
        client = None
        gc.collect()

    def again():
        asyncio._set_running_loop(None)
        async def other():
            async with relay.Client(sys.argv[1], name="fork-child") as fresh:
                await fresh.send("forks", "from a new client")
        asyncio.run(other())

    for check in (use, one_turn, close, collect, again):
        in_child(check)
        await client.flush()
        assert (await client.send("forks", "parent")).seq
        assert client.statistics["logins"] == 1, check
    await client.close()

RUN(main())
"""


@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
@pytest.mark.parametrize("face", ["blocking", "aio", "aio on uvloop", "blocking under gevent"])
def test_a_client_in_a_child(relay: Relay, face: str, leave: str) -> None:
    """Used, closed, garbage collected, or ignored."""
    if leave == "sys.exit" and face != "blocking":
        pytest.skip("a coroutine cannot leave a forked loop that way")
    program = f"EXIT = {leave!r}\n" + BEGIN
    if face == "aio on uvloop":
        pytest.importorskip("uvloop")
        program += "import uvloop\nRUN = uvloop.run\n" + AIO
    elif face == "aio":
        program += "RUN = asyncio.run\n" + AIO
    elif face == "blocking under gevent":
        if importlib.util.find_spec("gevent") is None:  # not imported: it must not be loaded here
            pytest.skip("gevent comes with the load tests")
        program = "from gevent import monkey; monkey.patch_all()\n" + program + BLOCKING
    else:
        program += BLOCKING
    done = run_program(program, relay.address)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


IN_C = """
import ctypes
os.fork = lambda: int(ctypes.PyDLL(None).fork())  # without Python's fork handlers
client = relay.BlockingClient(sys.argv[1], name="fork-in-c")
client.connect()
client.join("forks")
client.send("forks", "first")

def use():
    refused(lambda: client.send("forks", "child"))
    refused(lambda: client.who("forks"))

in_child(use)
assert client.send("forks", "parent").seq
assert client.statistics["logins"] == 1
client.close()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this kernel empties no pages")
def test_a_client_in_a_child_of_a_library_in_c(relay: Relay) -> None:
    """Python does not tell of such a fork."""
    done = run_program("EXIT = 'os._exit'\n" + BEGIN + IN_C, relay.address)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", [Client, BlockingClient])
@pytest.mark.parametrize("do", [ForkingPickler.dumps, copy.copy, copy.deepcopy])
def test_a_client_is_neither_copied_nor_sent_to_another_process(
    kind: type[Client] | type[BlockingClient], do: Callable[[object], object]
) -> None:
    """Of ``multiprocessing``, for one."""
    with pytest.raises(TypeError, match="make one in each process"):
        do(kind("relay://127.0.0.1:1"))
