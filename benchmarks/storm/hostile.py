"""Attackers: each is a function that runs in its own process until it is ended.

Addresses of 127.0.0.0/8 stand for sources: a relay counts each as one.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import select
import socket
import time
from collections.abc import Iterator
from ctypes import c_uint64
from typing import Final

from benchmarks.load.spawned import raise_open_files
from benchmarks.measure.machine import HOST
from relay.chat.rooms import requests
from relay.wire.codes import ErrorCode
from relay.wire.connection import Connection
from relay.wire.envelopes import (
    Ack,
    ClientEnvelope,
    Done,
    Error,
    History,
    Join,
    Page,
    Refused,
    Room,
    Send,
)
from relay.wire.events import ServerKeyOffered
from relay.wire.packing import pack
from tests.support.raw import RawClient

READ_BYTES: Final = 65_536
SENDS: Final = 16
"""Messages of one record of a spender."""
BODY: Final = bytes(1000)
LOOK_S: Final = 0.01
"""How often a spender looks what it may do."""
LIMIT_S: Final = 60.0
"""When it tries again what does not help to try again."""


def source(number: int) -> str:
    """Return an address of this machine: another one for each number up to 60,000."""
    return f"127.1.{number // 250}.{1 + number % 250}"


def client_key(port: int) -> bytes:
    """Return the frame ClientKey of a whole handshake: each time it costs an RSA operation.

    It is also accepted on another connection, up to the confirmation, which a replayer cannot
    compute.
    """
    with socket.create_connection((HOST, port)) as opened:
        connection = Connection.client(now=time.monotonic(), random_bytes=secrets.token_bytes)
        while True:
            connection.receive_data(opened.recv(READ_BYTES), time.monotonic())
            for event in connection.events():
                if isinstance(event, ServerKeyOffered):
                    connection.accept_server_key(time.monotonic(), None)
                    return connection.data_to_send()


def shake(done: c_uint64, port: int, count: int, seconds: float, sources: int) -> None:
    """Open so many connections in so many seconds, and complete no handshake.

    In turn: silent for ever; half a ClientKey; garbage; a whole ClientKey, and nothing after it.
    """
    raise_open_files()
    whole = client_key(port)
    said = (b"", whole[: len(whole) // 2], secrets.token_bytes(1500), whole)
    epoll = select.epoll()
    opened: dict[int, socket.socket] = {}
    owed: dict[int, bytes] = {}
    began = time.monotonic()
    number = 0
    while True:
        due = began + number * seconds / count
        while number < count and due <= time.monotonic():
            one = socket.socket()
            one.setblocking(False)
            with contextlib.suppress(OSError):  # ports of one source run out before slots do
                one.bind((source(number % sources), 0))
                one.connect_ex((HOST, port))
                opened[one.fileno()] = one
                owed[one.fileno()] = said[number % len(said)]
                epoll.register(one.fileno(), select.EPOLLIN | select.EPOLLOUT)
            number += 1
            done.value = number
            due = began + number * seconds / count
        for fileno, events in epoll.poll(0.01):
            one = opened[fileno]
            try:
                if events & select.EPOLLOUT:
                    one.send(owed.pop(fileno))
                    epoll.modify(fileno, select.EPOLLIN)
                elif one.recv(READ_BYTES):
                    continue
                else:
                    raise ConnectionError
            except BlockingIOError:
                continue
            except OSError:
                del opened[fileno]
                one.close()


def spend(done: c_uint64, port: int, connections: int, sources: int, name: str) -> None:
    """Log in, then send and make requests forever, each as soon as its budget allows.

    Messages into a room of one's own, new rooms, pages of history, changes of the room. Who goes on
    without waiting, as it is told, gets less: it is not read for a while. ``done`` counts messages
    that were stored.
    """
    raise_open_files()
    spenders: dict[int, _Spender] = {}
    for number in range(connections):
        spender = _Spender(port, f"{name}{number}", source(number % sources))
        spenders[spender.client.socket.fileno()] = spender
    epoll = select.epoll()
    for fileno in spenders:
        epoll.register(fileno, select.EPOLLIN)
    while spenders:
        began = time.monotonic()
        for fileno, _ in epoll.poll(LOOK_S, len(spenders)):
            with contextlib.suppress(BlockingIOError):
                done.value += spenders[fileno].take(began)
        for spender in spenders.values():
            with contextlib.suppress(BlockingIOError):
                spender.spend(began)
        time.sleep(max(began + LOOK_S - time.monotonic(), 0))


def burn(done: c_uint64) -> None:
    """Only use CPU time: what the attackers' own use of it does to those who are measured."""
    while True:
        done.value += 1


def use(done: c_uint64, share: float) -> None:
    """Use this share of a core and nothing else, waking up as often as a spender does."""
    while True:
        began = time.monotonic()
        used_s = time.process_time() + share * LOOK_S
        while time.process_time() < used_s:
            done.value += 1
        time.sleep(max(began + LOOK_S - time.monotonic(), 0))


class _Spender:
    """One connection that uses up its budgets."""

    def __init__(self, port: int, name: str, address: str) -> None:
        self.client = RawClient(HOST, port, name, source=address)
        self._room = f"of-{name}"
        self._counter = 1
        self._rooms = itertools.count()
        self._waits = [0, 0, 0]
        """How many answers are to come: to messages, to new rooms, to requests."""
        self._due = [0.0, 0.0, 0.0]
        """When each of these may be tried again."""
        self._owed = b""
        """Of a record, what the socket has not taken."""
        self.client.send_envelopes(Join(1, self._room, None, 0, 0))
        self.client.socket.setblocking(False)

    def spend(self, now: float) -> None:
        """Send what may be sent now. Raises BlockingIOError."""
        if not self._owed:
            envelopes = [*self._due_ones(now)]
            if not envelopes:
                return
            self._owed = self.client.sealed(b"".join(map(pack, envelopes)))
        self._owed = self._owed[self.client.socket.send(self._owed) :]

    def _due_ones(self, now: float) -> Iterator[ClientEnvelope]:
        sends, rooms, asks = (
            not waits and now >= due for waits, due in zip(self._waits, self._due, strict=True)
        )
        name = self._room
        if sends:
            self._waits[0] = SENDS
            yield from (Send(name, self._counter + n, 0, "", BODY) for n in range(SENDS))
            self._counter += SENDS
        if rooms:
            self._waits[1] = 1
            yield Send(f"{name}-{next(self._rooms)}"[:32], 1, 0, "", b"new")
        if asks:
            self._waits[2] = 2
            yield History(2, name, False, 0, 1000)
            topic = requests.SetTopic(secrets.token_hex(8))
            yield Room(3, name, requests.pack(topic, 2**62))

    def take(self, now: float) -> int:
        """Take answers; return how many messages were stored. Raises BlockingIOError."""
        stored = 0
        for envelope in self.client.read():
            if isinstance(envelope, Ack | Refused):
                kind = 0 if envelope.log == self._room else 1
                stored += isinstance(envelope, Ack)
                if isinstance(envelope, Refused) and not kind:
                    self._counter = min(self._counter, envelope.counter)
            elif isinstance(envelope, Page | Done | Error) and envelope.request > 1:
                kind = 2
            else:
                continue
            self._waits[kind] -= 1
            if isinstance(envelope, Refused | Error) and envelope.code == ErrorCode.BUSY:
                self._due[kind] = max(self._due[kind], now + envelope.arg / 1000)
            elif isinstance(envelope, Refused | Error) and envelope.code == ErrorCode.LIMIT:
                self._due[kind] = now + LIMIT_S
        return stored
