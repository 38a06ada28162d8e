"""One hostile connection: the wire's core over a socket from a loopback address of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import socket
import time
from typing import Any, Final

from relay import limits
from relay.wire.cipher import RecordType
from relay.wire.connection import Connection
from relay.wire.envelopes import Ack, ClientEnvelope
from relay.wire.events import (
    ApplicationData,
    ConnectionClosed,
    HandshakeCompleted,
    ServerKeyOffered,
)
from relay.wire.packing import pack, unpack_server
from relay.wire.tickets import ClientTicket
from tests.support.devices import login

READ_BYTES: Final = 262_144
STEP_S: Final = 30.0
"""For one step of a handshake or one write: an attacked server may be slow."""


class Visitor:
    """A connection. Every method raises ConnectionError when the server has ended it."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self.chance = chance
        self.spki = b""
        """The server's key, once it was offered."""
        self.source = (
            f"127.{chance.randrange(1, 255)}.{chance.randrange(256)}.{chance.randrange(1, 255)}"
        )
        self._port = port
        self._reading: asyncio.Task[None] | None = None
        self.counter = 0
        """The last counter that was sent into this visitor's own room."""
        self.stored: Ack | None = None
        """The place of a message of this visitor, for entries about it."""
        self.room = f"r{chance.getrandbits(60):x}"

    async def open(self) -> None:
        """Connect from 127.x.y.z, always the same."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.bind((self.source, 0))
            async with asyncio.timeout(STEP_S):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        except BaseException:
            sock.close()
            raise
        self._reader, self._writer = await asyncio.open_connection(sock=sock)

    async def shake(self, ticket: ClientTicket | None = None) -> None:
        """Run the handshake, by a ticket if there is one."""
        connection = Connection.client(now=time.monotonic(), random_bytes=secrets.token_bytes)
        self.connection = connection
        async with asyncio.timeout(STEP_S):
            while True:
                data = await self._reader.read(READ_BYTES)
                if not data:
                    raise ConnectionResetError("the server ended the handshake")
                connection.receive_data(data, time.monotonic())
                for event in connection.events():
                    match event:
                        case ServerKeyOffered(spki=spki):
                            self.spki = spki
                            connection.accept_server_key(time.monotonic(), ticket)
                        case ConnectionClosed(detail=detail):
                            raise ConnectionResetError(detail)
                        case HandshakeCompleted():
                            self._writer.write(connection.data_to_send())
                            return
                        case _:
                            pass
                self._writer.write(connection.data_to_send())

    def hello(self, name: str = "", secret: bytes = b"") -> bytes:
        """Return HELLO, for a new instance with a new name unless others are given."""
        name = name or f"x{self.chance.getrandbits(80):x}"
        envelopes = login(self.connection, self.spki, name, secret or secrets.token_bytes(16))
        return b"".join(map(pack, envelopes))

    async def log_in(self, hello: bytes = b"") -> None:
        """Send HELLO, and wait for the answer; from then on drop what the server sends."""
        await self.record(hello or self.hello())
        async with asyncio.timeout(STEP_S):
            if not await self._reader.read(READ_BYTES):
                raise ConnectionResetError("no login")
        self.read_on()

    async def listen(self, *wanted: type) -> list[Any]:
        """Return the first event or envelope of each type, in the order in which they are wanted.

        Not once what the server sends is dropped: see ``read_on``.
        """
        found: dict[type, Any] = {}
        async with asyncio.timeout(STEP_S):
            while not found.keys() >= set(wanted):
                data = await self._reader.read(READ_BYTES)
                if not data:
                    raise ConnectionResetError("the server ended it")
                self.connection.receive_data(data, time.monotonic())
                for event in self.connection.events():
                    found.setdefault(type(event), event)
                    if isinstance(event, ApplicationData):
                        for envelope in unpack_server(event.content):
                            found.setdefault(type(envelope), envelope)
        return [found[kind] for kind in wanted]

    def read_on(self) -> None:
        """Read, and discard, everything from now on."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._drop())

    def stop_reading(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    async def _drop(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(READ_BYTES):
                pass
        self._writer.transport.abort()

    async def write(self, data: bytes) -> None:
        """Write raw bytes; return when nearly all of them have left."""
        if self._writer.transport.is_closing():
            raise ConnectionResetError("closed")
        self._writer.write(data)
        async with asyncio.timeout(STEP_S):
            await self._writer.drain()

    async def record(self, *contents: bytes) -> None:
        """Send app records, in one write."""
        seal = self.connection.seal
        await self.write(b"".join(seal(content, time.monotonic()) for content in contents))

    async def send_envelopes(self, *envelopes: ClientEnvelope) -> None:
        """Send envelopes in as few records as possible, in one write."""
        contents = [b""]
        for envelope in envelopes:
            packed = pack(envelope)
            if len(contents[-1]) + len(packed) > limits.RECORD_CONTENT_BYTES_MAX:
                contents.append(b"")
            contents[-1] += packed
        await self.record(*contents)

    async def raw_records(self, *records: tuple[RecordType, bytes]) -> None:
        """Send records of any type."""
        seal = self.connection._send.seal
        await self.write(b"".join(seal(kind, content) for kind, content in records))

    async def ended(self, seconds: float) -> None:
        """Wait until the server ends the connection, or until a timeout."""
        self.read_on()
        assert self._reading is not None
        await asyncio.wait([self._reading], timeout=seconds)

    def close(self) -> None:
        """Drop the connection."""
        self.stop_reading()
        if hasattr(self, "_writer"):
            self._writer.transport.abort()
