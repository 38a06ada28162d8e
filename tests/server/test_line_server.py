"""Answers and errors on the sockets that ``relay ctl`` asks."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relay.cli.process.exits import CommandError
from relay.cli.server_commands.ctl_client import Server
from relay.server.line_server import CONNECTIONS_MAX, LineServer, Question
from tests.support.threads import beside


@pytest.fixture
def path() -> Iterator[Path]:
    """The path of a socket: 107 bytes at most; pytest's own directory may be longer."""
    with tempfile.TemporaryDirectory(prefix="relay-line-") as directory:
        yield Path(directory) / "ctl.sock"


def asked(path: Path) -> str:
    """Ask as ``relay ctl`` does; return why there is no answer."""
    with pytest.raises(CommandError) as caught:
        Server(path).ask("status")
    return str(caught.value)


async def test_too_many_ask_at_once(path: Path) -> None:
    """The error is about the number of requests, not about permissions."""
    came = asyncio.Semaphore(0)
    free = asyncio.Event()

    async def wait(_: Question) -> dict[str, bool]:
        came.release()
        await free.wait()
        return {"done": True}

    lines = LineServer({"wait": wait, "status": wait})
    loop = asyncio.get_running_loop()
    server = await asyncio.start_unix_server(lines.serve, path)
    with ThreadPoolExecutor(CONNECTIONS_MAX + 1) as threads:
        waiting = [
            loop.run_in_executor(threads, Server(path).ask, "wait") for _ in range(CONNECTIONS_MAX)
        ]
        for _ in waiting:
            await came.acquire()
        why = await loop.run_in_executor(threads, asked, path)
        assert why == f"{CONNECTIONS_MAX} other requests are being answered: try again"
        free.set()
        assert await asyncio.gather(*waiting) == [{"done": True}] * len(waiting)
    server.close()


@pytest.fixture
def ending(path: Path) -> Iterator[None]:
    """A server that reads a request and closes without an answer."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def end() -> None:
        accepted, _ = listener.accept()
        accepted.recv(1)  # closing with unread data resets the connection
        accepted.close()

    with listener, beside(end):
        yield
        listener.shutdown(socket.SHUT_RDWR)  # or there was no request


@pytest.mark.usefixtures("ending")
def test_who_ends_without_an_answer(path: Path) -> None:
    """Its control process was killed: the error is not about permissions."""
    why = asked(path)
    assert "it ended without an answer" in why
    assert "only root" not in why
