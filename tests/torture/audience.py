"""A process of members that decrypt all they receive: ``python -m tests.torture.audience ORDERS``.

Connects the early members, prints "ready"; the next line on its standard input has the heads that
every member is to reach. When all have, or the time is up, it prints the outcome as JSON.

They use the wire's core, not the client library: nothing here checks, repairs or hides anything.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import select
import sys
import time
from array import array
from pathlib import Path
from typing import Final

import msgspec

from relay.chat.entries import NO_EPOCH, Cursor
from relay.wire.envelopes import Join
from relay.wire.events import ApplicationData, ConnectionClosed
from tests.support.raw import READ_BYTES, RawClient
from tests.torture.chunks import NUMBERS, Chunks, write_history
from tests.torture.records import Lost, Record, Resumed

HISTORY_ALL: Final = -1
AWAY_S_MAX: Final = 0.5
STAY_S_MAX: Final = 1.5


class Guest(msgspec.Struct, frozen=True):
    """One member."""

    name: str
    rooms: list[str]
    after_s: float = 0.0
    """When it joins, in seconds after the beginning."""
    last: int = HISTORY_ALL
    """With how many entries of history; HISTORY_ALL: from the first one."""
    restless: bool = False
    """Disconnects repeatedly, and resumes from its cursors."""


class Orders(msgspec.Struct, frozen=True):
    """The parameters of a process."""

    port: int
    directory: str
    """For the histories: NAME.chunks of all, MEMBER.history of each."""
    name: str
    guests: list[Guest]
    seed: int


class Settle(msgspec.Struct, frozen=True):
    """Read until every member has got these entries: (epoch, seq) by room."""

    heads: dict[str, tuple[str, int]]
    deadline_s: float


class Outcome(msgspec.Struct):
    """The result of a process."""

    seen: int
    """Entries that came before Settle, for all members together."""
    resumes: int
    behind: int
    """How often a member got BEHIND."""
    not_at_head: list[str]


class Member:
    """One member, over any number of connections."""

    def __init__(self, orders: Orders, guest: Guest, chunks: Chunks) -> None:
        self.guest = guest
        self._port = orders.port
        self._chunks = chunks
        self._secret = secrets.token_bytes(16)
        self._client: RawClient | None = None
        self.history = array(NUMBERS)
        self.cursors: dict[str, Cursor] = {}
        self.seen = self.behind = self.resumes = 0

    @property
    def connected(self) -> bool:
        """True while it has a connection."""
        return self._client is not None

    def connect(self) -> int:
        """Connect, and join or resume; return the socket's descriptor."""
        guest = self.guest
        client = RawClient("127.0.0.1", self._port, guest.name, self._secret)
        joins: list[Join] = []
        resumed: list[Record] = []
        for request, room in enumerate(guest.rooms, 1):
            cursor = self.cursors.get(room)
            if cursor is not None:
                resumed.append(Resumed(room, cursor.epoch.hex(), cursor.seq))
                joins.append(Join(request, room, cursor.epoch, cursor.seq, 0))
            elif guest.last == HISTORY_ALL:
                joins.append(Join(request, room, NO_EPOCH, 0, 0))
            else:
                joins.append(Join(request, room, None, 0, guest.last))
        if resumed:
            self.history.append(self._chunks.add(resumed))
            self.resumes += 1
        client.send_envelopes(*joins)
        client.socket.setblocking(False)
        self._client = client
        return client.socket.fileno()

    def drop(self) -> None:
        """End the connection without a close."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def read(self) -> bool:
        """Take one read; return False when the server has ended the connection."""
        client = self._client
        assert client is not None
        try:
            data = client.socket.recv(READ_BYTES)
        except BlockingIOError:
            return True
        except OSError as error:
            return self._ended(str(error))
        if not data:
            return self._ended("the connection was closed")
        connection = client.connection
        connection.receive_data(data, time.monotonic())
        for event in connection.events():
            if isinstance(event, ApplicationData):
                noted = self._chunks.note(event.content)
                self.history.append(noted.chunk)
                self.cursors.update(noted.cursors)
                self.seen += noted.entries
                self.behind += noted.behind
            elif isinstance(event, ConnectionClosed):
                return self._ended(f"closed with {event.code}: {event.detail}")
        with contextlib.suppress(BlockingIOError):
            client.flush()
        return True

    def _ended(self, why: str) -> bool:
        self.history.append(self._chunks.add([Lost(why)]))
        self.drop()
        return False

    def misses(self, heads: dict[str, tuple[str, int]]) -> str:
        """Describe which heads it has not reached; empty if none."""
        for room in self.guest.rooms:
            epoch, seq = heads[room]
            if self.cursors.get(room) != Cursor(bytes.fromhex(epoch), seq):
                return f"{self.guest.name} in {room}: {self.cursors.get(room)}, head {seq}"
        return ""


class Audience:
    """All members of a process, on one epoll loop."""

    def __init__(self, orders: Orders) -> None:
        self._chance = random.Random(f"{orders.seed} {orders.name}")
        self._chunks = Chunks(Path(orders.directory, f"{orders.name}.chunks"))
        self._directory = Path(orders.directory)
        self._members = [Member(orders, guest, self._chunks) for guest in orders.guests]
        self._epoll = select.epoll()
        self._connected: dict[int, Member] = {}
        self._due: list[tuple[float, Member]] = []
        """When a member connects or disconnects."""

    def run(self) -> Outcome:
        """Run the orders."""
        for member in self._members:
            if not member.guest.after_s:
                self._connect(member)
        print("ready", flush=True)
        began = time.monotonic()
        for member in self._members:
            if member.guest.after_s:
                self._due.append((began + member.guest.after_s, member))
            elif member.guest.restless:
                self._due.append((began + self._chance.uniform(0, STAY_S_MAX), member))
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        while not self._turn():
            self._move()
        order = msgspec.json.decode(sys.stdin.readline(), type=Settle)
        self._epoll.unregister(sys.stdin.fileno())
        seen = sum(member.seen for member in self._members)
        not_at_head = self._settle(order)
        for member in self._members:
            write_history(self._directory / f"{member.guest.name}.history", member.history)
            member.drop()
        self._chunks.close()
        return Outcome(
            seen,
            sum(member.resumes for member in self._members),
            sum(member.behind for member in self._members),
            not_at_head,
        )

    def _turn(self) -> bool:
        """Read from the ready connections; return True when there is an order."""
        ordered = False
        for fileno, _ in self._epoll.poll(0.02):
            member = self._connected.get(fileno)
            if member is None:
                ordered = True
            elif not member.read():
                del self._connected[fileno]  # its descriptor is closed, and so not watched
        return ordered

    def _move(self) -> None:
        """Connect and disconnect the members whose time has come."""
        now = time.monotonic()
        due = [member for when, member in self._due if when <= now]
        self._due = [(when, member) for when, member in self._due if when > now]
        for member in due:
            if member.connected:
                self._drop(member)
                stays = AWAY_S_MAX
            else:
                self._connect(member)
                stays = STAY_S_MAX
            if member.guest.restless:
                self._due.append((now + self._chance.uniform(0, stays), member))

    def _connect(self, member: Member) -> None:
        fileno = member.connect()
        self._connected[fileno] = member
        self._epoll.register(fileno, select.EPOLLIN)

    def _drop(self, member: Member) -> None:
        fileno = next(fileno for fileno, one in self._connected.items() if one is member)
        del self._connected[fileno]
        member.drop()

    def _settle(self, order: Settle) -> list[str]:
        """Connect all members and read, until all are at the head or the time is up."""
        for member in self._members:
            if not member.connected:
                self._connect(member)
        deadline = time.monotonic() + order.deadline_s
        pending = list(self._members)
        while pending and time.monotonic() < deadline:
            self._turn()
            pending = [member for member in pending if member.misses(order.heads)]
        return [member.misses(order.heads) for member in pending]


def main() -> None:
    """Run the orders of the command line, and print the outcome."""
    outcome = Audience(msgspec.json.decode(sys.argv[1], type=Orders)).run()
    print(msgspec.json.encode(outcome).decode(), flush=True)


if __name__ == "__main__":
    main()
