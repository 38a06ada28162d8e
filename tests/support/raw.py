"""A minimal client: a blocking socket and the sans-I/O core.

It logs in and joins as any client does; afterwards a subscriber may be read as raw bytes, so that
the load never is the bottleneck, while a sample of subscribers decrypts and checks everything.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from relay.wire.connection import Connection
from relay.wire.envelopes import (
    ClientEnvelope,
    EntryMessage,
    Join,
    Live,
    Send,
    ServerEnvelope,
    Welcome,
)
from relay.wire.events import (
    ApplicationData,
    ConnectionClosed,
    HandshakeCompleted,
    ServerKeyOffered,
    TicketReceived,
)
from relay.wire.messages import RESUMED
from relay.wire.packing import pack, unpack_server
from relay.wire.tickets import ClientTicket
from tests.support.devices import login

Wanted = TypeVar("Wanted")
READ_BYTES = 262_144
DEADLINE_S = 60.0


class RawClient:
    """One connection. Not thread-safe; every call blocks."""

    def __init__(
        self,
        host: str,
        port: int,
        name: str,
        secret: bytes | None = None,
        *,
        registered: bool = False,
        ticket: ClientTicket | None = None,
        source: str = "",
    ) -> None:
        """Connect, shake hands, log in.

        Args:
            host: of the server.
            port: of the server.
            name: to log in with.
            secret: of an instance that comes back; None: a new one.
            registered: the name has been registered before, by ``devices.device``'s key.
            ticket: of an earlier connection, to be used up.
            source: the address to connect from; empty: any.
        """
        self.name = name
        self._offered = ticket
        self.ticket: ClientTicket | None = None
        """For a later connection; None: none has come."""
        self.resumed = False
        """The handshake was shortened by the ticket."""
        self.socket = socket.create_connection(
            (host, port), timeout=DEADLINE_S, source_address=(source, 0) if source else None
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = Connection.client(now=time.monotonic(), random_bytes=secrets.token_bytes)
        self.envelopes: list[ServerEnvelope] = []
        """Received and not taken yet."""
        try:
            self.spki = self._handshake()
            """The server's key."""
            secret = secret or secrets.token_bytes(16)
            envelopes = login(self.connection, self.spki, name, secret)
            self.send_envelopes(*envelopes[1:] if registered else envelopes)
            self.wait(lambda e: isinstance(e, Welcome))
        except BaseException:
            self.socket.close()
            raise

    def _handshake(self) -> bytes:
        spki = b""
        while True:
            self._receive()
            for event in self.connection.events():
                match event:
                    case ServerKeyOffered(spki=spki):
                        self.connection.accept_server_key(time.monotonic(), self._offered)
                    case HandshakeCompleted(mode=mode):
                        self.resumed = mode == RESUMED
                        self.flush()
                        return spki
                    case ConnectionClosed():
                        raise ConnectionError(event.detail)
                    case _:
                        pass
            self.flush()

    def _receive(self) -> None:
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.connection.receive_data(data, time.monotonic())

    def flush(self) -> None:
        """Write the core's pending bytes."""
        pending = self.connection.data_to_send()
        if pending:
            self.socket.sendall(pending)

    def send_envelopes(self, *envelopes: ClientEnvelope) -> None:
        """Send envelopes as one record."""
        self.send_content(b"".join(map(pack, envelopes)))

    def send_content(self, content: bytes) -> None:
        """Send packed envelopes as one record."""
        self.socket.sendall(self.sealed(content))

    def sealed(self, content: bytes) -> bytes:
        """One record's bytes, for callers that write them themselves."""
        self.flush()
        return self.connection.seal(content, time.monotonic())

    def read(self) -> list[ServerEnvelope]:
        """Block for one read; return all envelopes not taken yet."""
        if not self.envelopes:
            self._receive()
            self.envelopes.extend(self._unpacked())
            self.flush()
        taken, self.envelopes = self.envelopes, []
        return taken

    def read_contents(self) -> list[bytes]:
        """Block for one read; return the contents of its records, not taken apart."""
        self._receive()
        contents = self._contents()
        self.flush()
        return contents

    def _contents(self) -> list[bytes]:
        contents: list[bytes] = []
        for event in self.connection.events():
            if isinstance(event, ApplicationData):
                contents.append(event.content)
            elif isinstance(event, TicketReceived):
                self.ticket = event.ticket
            elif isinstance(event, ConnectionClosed):
                raise ConnectionError(f"closed with {event.code}: {event.detail}")
        return contents

    def _unpacked(self) -> list[ServerEnvelope]:
        return [one for content in self._contents() for one in unpack_server(content)]

    def wait(self, wanted: Callable[[ServerEnvelope], bool]) -> ServerEnvelope:
        """Read until an envelope is wanted; what came behind it is kept."""
        while True:
            taken = self.read()
            for index, envelope in enumerate(taken):
                if wanted(envelope):
                    self.envelopes = taken[index + 1 :] + self.envelopes
                    return envelope

    def join(self, log: str, last: int = 0) -> None:
        """Follow a log, and wait until live."""
        self.send_envelopes(Join(1, log, None, 0, last))
        self.wait(lambda e: isinstance(e, Live) and e.log == log)

    def send(self, log: str, counter: int, body: bytes) -> None:
        """Send one message; its ACK comes among ``read``'s envelopes."""
        self.send_envelopes(Send(log, counter, 0, "", body))

    @property
    def port(self) -> int:
        """Of this end of the connection."""
        port: int = self.socket.getsockname()[1]
        return port

    def read_entries(self, count: int) -> list[EntryMessage]:
        """Read until ``count`` entries have come; return them."""
        entries: list[EntryMessage] = []
        while len(entries) < count:
            entries += [one for one in self.read() if isinstance(one, EntryMessage)]
        return entries

    def align(self) -> None:
        """Read on until no record is half read: from here the socket's bytes begin a frame."""
        while self.connection.reader.pending:
            self._receive()
            self.envelopes.extend(self._unpacked())
            self.flush()

    @property
    def records_received(self) -> int:
        """How many records came under the server's key; settable by who reads the raw socket.

        The sequence is implicit: who has counted the records that it did not decrypt can go on
        with the next one.
        """
        return self.connection._receive.sequence

    @records_received.setter
    def records_received(self, count: int) -> None:
        self.connection._receive.sequence = count

    def close(self) -> None:
        """Drop the connection."""
        self.socket.close()
