"""A process of senders that keep their windows full: ``python -m tests.torture.flood ORDERS``.

Connects, prints "ready", floods after a line on its standard input, and stops sending at the next;
when all is acknowledged (or nothing comes any more) it prints the outcome as JSON.
"""

from __future__ import annotations

import os
import random
import secrets
import select
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from relay.wire.envelopes import Ack, Refused, Send
from relay.wire.packing import pack
from tests.support.raw import RawClient
from tests.torture.chunks import Chunks
from tests.torture.programs import digest_of
from tests.torture.records import Acked, Failed, Lost, Record, Sent

WINDOW: Final = 512
REFILL: Final = 128
"""Sent at once, when so many are acknowledged: as one record, into one room."""
BODY_BYTES_MAX: Final = 400
QUIET_S: Final = 20.0
"""After the flood: without any acknowledgement for this long, none is expected any more."""
HOT_SHARE: Final = 0.35
"""The part that goes to the first room."""


class Orders(msgspec.Struct, frozen=True):
    """The parameters of a process."""

    niceness: int
    """Above the members': readers that only read from the log do not show that live
    delivery works.
    """
    port: int
    directory: str
    """For the histories: NAME.chunks."""
    names: list[str]
    rooms: list[str]
    seed: int


class Outcome(msgspec.Struct):
    """The result of a process."""

    acknowledged: int
    """While the flood lasted."""
    unacknowledged: int
    """At the very end."""


class Sender:
    """One connection."""

    def __init__(self, orders: Orders, name: str) -> None:
        self._name = name
        self._rooms = orders.rooms
        self._chance = random.Random(f"{orders.seed} {name}")
        self._filler = secrets.token_bytes(2 * BODY_BYTES_MAX)
        self._last = dict.fromkeys(orders.rooms, 0)
        self._client = RawClient("127.0.0.1", orders.port, name)
        self._chunks = Chunks(Path(orders.directory, f"{name}.chunks"))
        self.unacknowledged = 0
        self.acknowledged = 0
        self.lost = False

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._client.socket.fileno()

    def fill(self) -> None:
        """Send until the window is full."""
        while WINDOW - self.unacknowledged >= REFILL and not self.lost:
            hot = self._chance.random() < HOT_SHARE
            self._send(self._rooms[0] if hot else self._chance.choice(self._rooms[1:]))

    def _send(self, room: str) -> None:
        first = self._last[room] + 1
        self._last[room] += REFILL
        sent: list[Record] = []
        parts: list[bytes] = []
        for number in range(first, first + REFILL):
            size = self._chance.randrange(BODY_BYTES_MAX)
            body = b"%s %s %d " % (self._name.encode(), room.encode(), number)
            body += self._filler[size : 2 * size]
            sent.append(Sent(room, number, digest_of(body)))
            parts.append(pack(Send(room, number, 0, "", body)))
        self._chunks.add(sent)
        self.unacknowledged += REFILL
        try:
            self._client.send_content(b"".join(parts))
        except OSError as error:
            self._gone(error)

    def take(self) -> int:
        """Read what has come; return how many were acknowledged."""
        try:
            envelopes = self._client.read()
        except (OSError, ConnectionError) as error:
            self._gone(error)
            return 0
        records: list[Record] = []
        for envelope in envelopes:
            if isinstance(envelope, Ack):
                log, counter, epoch, seq, _ = envelope
                records.append(Acked(log, counter, epoch.hex(), seq))
            elif isinstance(envelope, Refused):
                records.append(Failed(envelope.log, envelope.counter, envelope.text))
        if records:
            self._chunks.add(records)
            self.unacknowledged -= len(records)
        return len(records)

    def _gone(self, error: Exception) -> None:
        self.lost = True
        self._chunks.add([Lost(f"{type(error).__name__}: {error}")])

    def close(self) -> None:
        """Close the connection and the history."""
        self._client.close()
        self._chunks.close()


def flood(orders: Orders) -> Outcome:
    """Run the orders."""
    os.nice(orders.niceness)
    senders = [Sender(orders, name) for name in orders.names]
    epoll = select.epoll()
    by_fileno = {sender.fileno(): sender for sender in senders}
    for fileno in by_fileno:
        epoll.register(fileno, select.EPOLLIN)
    print("ready", flush=True)
    sys.stdin.readline()
    stdin = sys.stdin.fileno()
    epoll.register(stdin, select.EPOLLIN)
    acknowledged = 0
    flooding = True
    heard_at = time.monotonic()
    for sender in senders:
        sender.fill()
    during = 0
    while flooding or any(sender.unacknowledged for sender in senders if not sender.lost):
        for fileno, _ in epoll.poll(1.0):
            if fileno == stdin:
                epoll.unregister(stdin)
                flooding = False
                during = acknowledged
                heard_at = time.monotonic()
                continue
            sender = by_fileno[fileno]
            count = sender.take()
            if count:
                acknowledged += count
                heard_at = time.monotonic()
            if sender.lost:
                epoll.unregister(fileno)
            elif flooding:
                sender.fill()
        if not flooding and time.monotonic() - heard_at > QUIET_S:
            break
    for sender in senders:
        sender.close()
    return Outcome(during, sum(sender.unacknowledged for sender in senders))


def main() -> None:
    """Run the orders of the command line, and print the outcome."""
    outcome = flood(msgspec.json.decode(sys.argv[1], type=Orders))
    print(msgspec.json.encode(outcome).decode(), flush=True)


if __name__ == "__main__":
    main()
