"""The network between clients and server, to be cut: a TCP proxy with small buffers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Self

BUFFER_BYTES = 32_768
"""Small, so that a client that does not read blocks the server."""


class Proxy:
    """Forwards each connection to the server's port; cuts some, or holds them, when told."""

    def __init__(self) -> None:
        self.target = 0
        """The server's port."""
        self.port = 0
        """Its own, from ``start`` on."""
        self._server: asyncio.Server | None = None
        self._pipes: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> Self:
        """Listen."""
        listener = socket.socket()
        # Before listen: accepted sockets inherit it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._accepted, sock=listener, limit=BUFFER_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut everything and stop listening."""
        assert self._server is not None
        self._server.close()
        self.cut(list(self._pipes))
        for task in list(self._pipes):
            task.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    @property
    def connections(self) -> list[asyncio.Task[None]]:
        """The open connections, oldest first; ``cut`` takes them."""
        return list(self._pipes)

    def cut(self, connections: list[asyncio.Task[None]]) -> None:
        """Reset connections on both sides, with data under way."""
        for connection in connections:
            for writer in self._pipes.get(connection, ()):
                writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes[task] = [writer]
        try:
            await self._forward(task, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.cut([task])
            del self._pipes[task]

    async def _forward(
        self,
        task: asyncio.Task[None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        server.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(server, ("127.0.0.1", self.target))
        except BaseException:
            server.close()
            raise
        there_reader, there = await asyncio.open_connection(sock=server, limit=BUFFER_BYTES)
        self._pipes[task].append(there)
        ways = [
            asyncio.ensure_future(_pump(reader, there)),
            asyncio.ensure_future(_pump(there_reader, writer)),
        ]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


class Gate(Proxy):
    """A network that may be away for a while."""

    def __init__(self) -> None:
        """Begin open."""
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()

    def shut(self) -> None:
        """Cut all connections; the next ones wait."""
        self.open.clear()
        self.cut(self.connections)

    async def _forward(
        self,
        task: asyncio.Task[None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        await self.open.wait()
        with contextlib.suppress(RuntimeError):  # uvloop's, for an end that is written after a cut
            await super()._forward(task, reader, writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction until its end, and forward the end."""
    writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)
    while data := await reader.read(BUFFER_BYTES):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
