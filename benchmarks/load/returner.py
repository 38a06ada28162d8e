"""A client that reconnects: it resumes from its cursor, and checks that nothing is lost or
duplicated.

Many of them share a process and its epoll loop, so each is a set of callbacks around the sans-I/O
core. What they receive is byte for byte the same for most; it is looked into once (``look``).
"""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

import msgpack

from benchmarks.load import payload
from benchmarks.load.prepared import PreparedKeys
from benchmarks.load.tally import RELAY_FRAMES, Tally
from relay.chat.entries import Kind
from relay.client.backoff import Backoff
from relay.wire.connection import Connection
from relay.wire.envelopes import Behind, EntryMessage, Error, Gap, Join, Joined, Live
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
from tests.support.devices import hello, login

READ_BYTES: Final = 262_144
LOOKED_INTO_MAX: Final = 512
"""Contents remembered by ``look``: 32 MB at most."""


class Look(NamedTuple):
    """What the content of one record holds."""

    messages: int = 0
    first: int = 0
    """Number of the first one, which those of the others continue."""
    entries: int = 0
    """Messages, and what tells of the room itself."""
    prev: int = 0
    """Seq before the first of them."""
    epoch: bytes = b""
    seq: int = 0
    """Of the last one; or, without any, where a Joined says that the log is picked up."""
    behind: int = 0
    live: bool = False
    """The last word on it is Live."""
    fault: str = ""


@lru_cache(LOOKED_INTO_MAX)
def look(content: bytes) -> Look:
    """Unpack a record's content and check that its messages continue one another."""
    found = Look()
    for envelope in unpack_server(content):
        if isinstance(envelope, EntryMessage):
            if not found.entries:
                found = found._replace(prev=envelope.prev)
            elif envelope.prev != found.seq:
                found = found._replace(fault=f"seq {envelope.seq} out of place")
            found = found._replace(
                entries=found.entries + 1, epoch=envelope.epoch, seq=envelope.seq
            )
            if envelope.kind == Kind.SYSTEM:  # it tells who began the room
                continue
            number = payload.check(envelope.body).number
            if not found.messages:
                found = found._replace(first=number)
            elif number != found.first + found.messages:
                found = found._replace(fault=f"message {number} (seq {envelope.seq}) out of place")
            found = found._replace(messages=found.messages + 1)
        elif isinstance(envelope, Joined):
            found = found._replace(epoch=envelope.start_epoch, seq=envelope.start_seq)
        elif isinstance(envelope, Live):
            found = found._replace(live=True)
        elif isinstance(envelope, Behind):
            found = found._replace(live=False, behind=found.behind + 1)
        elif isinstance(envelope, Gap | Error):
            found = found._replace(fault=str(envelope))
    return found


class Returner:
    """One client instance over any number of connections, one at a time."""

    def __init__(
        self, address: tuple[str, int], name: str, log: str, *, counts: bool,
        changed: Callable[[Returner], None], counting: Callable[[Returner], None],
        tickets: bool = True,
    ) -> None:  # fmt: skip
        """Prepare; ``connect`` begins.

        Args:
            address: of the server.
            name: of the client.
            log: what it follows.
            counts: once live it counts records and decrypts the last one only (cheap for the load;
                such a client must not lose its connection then).
            changed: called when a connection has become live first, and when it is lost.
            counting: called when from now on it only counts, so that nothing waits for its reads.
            tickets: it resumes by ticket where it can, as the client library does.
        """
        self._tickets = tickets
        self._ticket: ClientTicket | None = None
        self.resumed = 0
        """Handshakes that a ticket has shortened."""
        self._address = address
        self._name = name
        self._secret = secrets.token_bytes(16)
        self._registered = False
        self._spki = b""
        self._log = log
        self._counts = counts
        self._changed = changed
        self._counting = counting
        self._prepared: PreparedKeys | None = None
        self._connection: Connection
        self._tally: Tally | None = None
        self._welcomed = False
        self._records_before = 0
        self._epoch: bytes | None = None
        self._seq = 0
        self.socket: socket.socket
        self.next: int | None = None
        """The number that is due; None before the first message."""
        self.live = False
        self.backoff = Backoff(random.random)
        """The client library's."""
        self.began_ns = self.live_ns = 0
        """``monotonic_ns`` of the last ``connect``, and of the first Live after it."""
        self.checked = self.behind = self.losses = 0
        self.wrong: list[str] = []

    def prepare(self) -> None:
        """Create the ephemeral keys of the next connection. Only after a connection."""
        self._prepared = PreparedKeys(self._spki)

    def connect(self) -> None:
        """Begin to connect, log in and resume; returns at once."""
        self.began_ns = time.monotonic_ns()
        self._tally = None
        self._welcomed = False
        self._connection = Connection.client(now=time.monotonic(), random_bytes=secrets.token_bytes)
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(self._address)

    def drop(self) -> None:
        """Drop the connection without a close. The cursor stays."""
        self.live = False
        self.socket.close()

    def read(self) -> None:
        """Take what is there, one read. Call when the socket is readable or broken."""
        try:
            if self._tally is not None:
                self._tally.read()
                return
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._receive(data)
        else:
            self._lost()

    def _lost(self) -> None:
        if self._tally is not None:
            self.wrong.append("a counting client lost its connection")
        self.losses += 1
        self.drop()
        self._changed(self)

    def _receive(self, data: bytes) -> None:
        connection = self._connection
        connection.receive_data(data, time.monotonic())
        for event in connection.events():
            match event:
                case ApplicationData(content=content):
                    self._take(content)
                case ServerKeyOffered(spki=spki):
                    self._spki = spki
                    ticket, self._ticket = self._ticket, None
                    prepared, self._prepared = self._prepared, None
                    if prepared is None:
                        connection.accept_server_key(time.monotonic(), ticket)
                    else:
                        prepared.accept(connection, ticket)
                case TicketReceived(ticket=ticket):
                    self._ticket = ticket if self._tickets else None
                case HandshakeCompleted(mode=mode):
                    self.resumed += mode == RESUMED
                    join = Join(1, self._log, self._epoch, self._seq, 0)
                    who = (connection, self._spki, self._name, self._secret)
                    greeting = (hello(*who),) if self._registered else login(*who)
                    content = b"".join(map(pack, [*greeting, join]))
                    connection.send(content, time.monotonic())
                case _:
                    pass
        pending = connection.data_to_send()
        if pending:
            with contextlib.suppress(OSError):  # broken: the next read tells
                self.socket.send(pending)
        if self.live and self._counts and not connection.reader.pending:
            self._tally = Tally(self.socket, RELAY_FRAMES)
            self._records_before = connection._receive.sequence
            self._counting(self)

    def _take(self, content: bytes) -> None:
        if not self._welcomed:
            # WELCOME is this client's own; what may follow in its record is the same for most.
            unpacker = msgpack.Unpacker()
            unpacker.feed(content)
            unpacker.skip()
            self._welcomed = True
            self._take(content[: unpacker.tell()])
            content = content[unpacker.tell() :]
        if content:
            self._see(look(content))

    def _see(self, seen: Look) -> None:
        if seen.fault:
            self.wrong.append(seen.fault)
        if seen.messages:
            due = (self.next, self._seq) if self.next is not None else (seen.first, self._seq)
            if (seen.first, seen.prev) != due:
                self.wrong.append(f"message {seen.first} after seq {seen.prev}; due: {due}")
            self.next = seen.first + seen.messages
            self.checked += seen.messages
        if seen.epoch:
            self._registered = True  # not before: the connection may be lost first
            self._epoch, self._seq = seen.epoch, seen.seq
        self.behind += seen.behind
        if seen.behind and not seen.live:
            self.live = False
        if seen.live:
            self.live = True
            if self.live_ns < self.began_ns:
                self.live_ns = time.monotonic_ns()
                self.backoff.online(self.live_ns / 1e9)
                self._changed(self)

    def has(self, last: int) -> bool:
        """Tell whether message number ``last`` has come, and so (in order) all before it."""
        tally = self._tally
        if tally is not None and tally.tail and tally.tail_frames == tally.frames:
            # The record's number is part of what is decrypted: as many came before it.
            self._connection._receive.sequence = self._records_before + tally.frames - 1
            self._connection.receive_data(tally.tail, time.monotonic())
            tally.tail = b""
            for event in self._connection.events():
                if isinstance(event, ApplicationData):
                    seen = look(event.content)
                    if seen.messages:
                        self.next = seen.first + seen.messages
                elif isinstance(event, ConnectionClosed):
                    self.wrong.append(f"undecipherable after {tally.frames}: {event.detail}")
        return self.next is not None and self.next > last
