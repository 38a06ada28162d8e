"""Which files of the server one operation passes: ``python -m tests.trace send|login|resume``.

A real worker runs in this process, and its client in another. Every call of a function of ``relay``
is recorded during the operation, in the order in which files are first entered.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvloop

import relay
from relay.chat.partition import PARTITIONS
from tests.support.throwaway import throwaway_keys
from tests.support.workers import Cluster, TestClient, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(relay.__file__).parent
ARRIVAL = "server/worker/delivery/stream.py"
ROOTS = {ARRIVAL, "server/worker/process/loop/turn.py"}
"""Callbacks of the loop that belong to an operation: a client's bytes, and the turn. Periodic work
of a worker does not, nor a turn that was due before the bytes arrived.
"""


class Files:
    """The files entered, in order, since the arrival of an operation."""

    def __init__(self) -> None:
        self.entered: dict[str, None] = {}

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        name = _name(frame) if event == "call" else ""
        if name and name not in self.entered and not name.endswith("__init__.py"):
            outer, caller = name, frame.f_back
            while caller is not None:
                outer, caller = _name(caller) or outer, caller.f_back
            if outer == ARRIVAL or (outer in ROOTS and self.entered):
                self.entered[name] = None


def _name(frame: FrameType) -> str:
    """Return the file of a call, within ``relay``; empty for others."""
    path = frame.f_code.co_filename
    return path[len(str(ROOT)) + 1 :] if path.startswith(f"{ROOT}/") else ""


@contextmanager
def traced(files: Files) -> Iterator[None]:
    """Record calls."""
    sys.setprofile(files)
    try:
        yield
    finally:
        sys.setprofile(None)


class ClientProcess:
    """A client process that does one operation for each line."""

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.trace", "--client", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    async def do(self, what: str) -> None:
        """Start an operation, and wait until it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(what, file=self._process.stdin)
        line = await asyncio.to_thread(self._process.stdout.readline)
        if line != "done\n":
            raise SystemExit(f"the client failed at {what!r}")

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


async def passed(operation: str) -> list[str]:
    """Return the files that an operation enters, in the order in which it first does."""
    with tempfile.TemporaryDirectory() as directory:
        async with Cluster(Path(directory), 1) as cluster:
            worker = cluster.workers[0]
            for index in range(PARTITIONS):
                worker.parts.home.partitions.partition(index)
            client = ClientProcess(worker.port)
            files = Files()
            try:
                await client.do("connect")
                await client.do("hello warm")
                await client.do("join")
                await client.do("send 1")
                await _OPERATIONS[operation](client, worker, files)
            finally:
                client.end()
    return list(files.entered)


async def _send(client: ClientProcess, worker: Worker, files: Files) -> None:
    with traced(files):
        await client.do("send 2")


async def _login(client: ClientProcess, worker: Worker, files: Files) -> None:
    for _ in range(2):  # the first login registers the name, and opens the readers that it needs
        await client.do("connect")
        await client.do("hello other")
    await client.do("connect")
    with traced(files):
        await client.do("login other")


async def _resume(client: ClientProcess, worker: Worker, files: Files) -> None:
    await client.do("connect")
    await client.do("hello other")
    with traced(files):
        await client.do("resume")


_OPERATIONS: dict[str, Callable[[ClientProcess, Worker, Files], Awaitable[None]]] = {
    "send": _send,
    "login": _login,
    "resume": _resume,
}


async def _opened(client: TestClient) -> None:
    await client.until(lambda: client.opened, "the handshake")


async def _client(port: int) -> None:
    """The client's process: reads its operations from standard input."""
    from relay.wire.envelopes import EntryMessage, Join, Live, Welcome
    from tests.support.devices import hello

    loop = asyncio.get_running_loop()
    client: TestClient | None = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        what, *words = line.split()
        if what == "connect":
            _, client = await loop.create_connection(TestClient, "127.0.0.1", port)
            await _opened(client)
        else:
            assert client is not None
            if what == "hello":
                client.hello(words[0])
                await client.expect(Welcome)
            elif what == "login":  # with an account that exists
                client.name, client.secret = words[0], secrets.token_bytes(16)
                connection, spki = client.connection, client.spki
                client.send_envelopes(hello(connection, spki, client.name, client.secret))
                await client.expect(Welcome)
            elif what == "join":
                client.send_envelopes(Join(1, "lobby", None, 0, 0))
                await client.expect(Live)
            elif what == "resume":
                client.send_envelopes(Join(1, "lobby", bytes(8), 0, 0))
                await client.expect(EntryMessage)
                await client.expect(Live)
            elif what == "send":
                client.send("lobby", int(words[0]))
                await client.acked("lobby", int(words[0]))
                await client.has("lobby", int(words[0]))
        print("done", flush=True)


def by_package(files: list[str]) -> dict[str, int]:
    """Return the number of files by package; of the server and of a worker, by subpackage."""
    return dict(sorted(Counter(map(_package, files)).items()))


def _package(file: str) -> str:
    packages = file.split("/")[:-1]
    if packages[:2] == ["server", "worker"]:
        packages = packages[1:]
    return next(iter(packages[1:2] or packages), "relay")


def main() -> None:
    """Run the command; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operation", choices=sorted(_OPERATIONS), nargs="?", default="send")
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client is not None:
        asyncio.run(_client(options.client))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        files = runner.run(passed(options.operation))
    for file in files:
        print(file)
    print(f"{len(files)} files: {by_package(files)}")


if __name__ == "__main__":
    with throwaway_keys():
        main()
