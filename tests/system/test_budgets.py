"""Budgets of a whole server, with its own processes, against the attacks for which they
were made.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from relay.client.aio import Client
from relay.wire.codes import CloseCode
from relay.wire.connection import Connection
from relay.wire.events import ConnectionClosed, HandshakeCompleted, ServerKeyOffered
from relay.wire.frames import FrameType, header
from relay.wire.packing import pack
from tests.support.cluster import Relay, until
from tests.support.devices import device, login
from tests.support.processes import own_bytes
from tests.support.raw import RawClient
from tests.system.test_ctl import asked

SLOTS = 20
SETTINGS = {"server.max_connections": SLOTS, "server.key_bits": 2048}


def events(relay: Relay, budget: str) -> list[dict[str, object]]:
    return [line for line in relay.events("budget_reached") if line["budget"] == budget]


def open_(sock: socket.socket) -> bool:
    """Return whether the server still holds a connection."""
    sock.setblocking(False)
    try:
        while sock.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


async def test_silent_sockets_hold_nobody_up(tmp_path: Path) -> None:
    """Five times as many as there are slots; clients log in and chat beside them."""
    with Relay(tmp_path / "data", workers=2, settings=SETTINGS) as relay:
        silent = [socket.create_connection(("127.0.0.1", relay.port)) for _ in range(10 * SLOTS)]
        for sock in silent[::2]:
            with contextlib.suppress(ConnectionError):  # it has been closed already
                sock.send(b"\x02\x00\x06")

        def held() -> int:
            return sum(map(open_, silent))

        # At once: those that stay have some seconds for their handshakes.
        await until(lambda: held() <= 2 * SLOTS, "no more than there are slots")
        assert held() >= 2 * SLOTS - 2
        async with (
            Client(relay.address, name="alice") as alice,
            Client(relay.address, name="bob") as bob,
        ):
            await bob.join("lobby")
            await alice.send("lobby", "hello")
        assert held() <= 2 * SLOTS
        # Once for each worker, and again after ten seconds; not for each connection.
        assert 1 <= len(events(relay, "unauthenticated")) <= SLOTS
        for sock in silent:
            sock.close()


HALF_KEY = header(FrameType.CLIENT_KEY, 4096) + bytes(4000)
GUESTS = 600
WAVES = 6
GUEST_BYTES = 16 * 1024
"""docs/operations.md, "Budgets": memory of a connection that is not logged in."""


@contextlib.contextmanager
def wave(relay: Relay, size: int, name: str) -> Iterator[None]:
    """Open so many half-finished handshakes; then log in behind them, and chat."""
    with contextlib.ExitStack() as opened:
        for _ in range(size):
            sock = opened.enter_context(socket.create_connection(("127.0.0.1", relay.port)))
            with contextlib.suppress(ConnectionError):
                sock.sendall(HALF_KEY)
        client = RawClient("127.0.0.1", relay.port, name)
        opened.callback(client.close)
        client.join("lobby")
        yield


def test_a_flood_before_login_takes_the_documented_memory(tmp_path: Path) -> None:
    """All slots take no more memory than documented, and it is free again afterwards."""
    settings = SETTINGS | {"server.max_connections": GUESTS}
    with Relay(tmp_path / "data", settings=settings, fresh=True) as relay:
        [worker] = relay.worker_pids()
        with wave(relay, GUESTS // 20, "first"):  # caches that are filled once
            before = own_bytes(worker)
        used = []
        for number in range(WAVES):
            with wave(relay, GUESTS, f"alice{number}"):
                used.append(own_bytes(worker) - before)
    assert used[0] <= GUESTS * GUEST_BYTES
    # If every second connection kept what it was sent, this would be reached.
    assert used[-1] - used[0] < (WAVES - 1) * GUESTS * len(HALF_KEY) // 2, used


def refused_with(relay: Relay, name: str) -> tuple[int | None, int]:
    """Log in while all slots are taken; return the close code, and the time to retry."""
    connection = Connection.client(now=time.monotonic(), random_bytes=secrets.token_bytes)
    with socket.create_connection(("127.0.0.1", relay.port)) as sock:
        sock.settimeout(60)
        while data := sock.recv(65_536):
            connection.receive_data(data, time.monotonic())
            for event in connection.events():
                if isinstance(event, ServerKeyOffered):
                    spki = event.spki
                    connection.accept_server_key(time.monotonic())
                elif isinstance(event, HandshakeCompleted):
                    envelopes = login(connection, spki, name, secrets.token_bytes(16))
                    connection.send(b"".join(map(pack, envelopes)), time.monotonic())
                elif isinstance(event, ConnectionClosed):
                    return event.code, event.retry_after_s
            sock.sendall(connection.data_to_send())
    raise AssertionError("closed without sending anything")


async def test_idle_logins_do_not_silence_a_server(tmp_path: Path) -> None:
    """All slots of all workers are taken for good: a client gets OVERLOADED, and logs in at the
    end.
    """
    with Relay(tmp_path / "data", workers=2, settings=SETTINGS) as relay:
        idle = [RawClient("127.0.0.1", relay.port, f"idle{n}") for n in range(2 * SLOTS)]
        assert refused_with(relay, "late") == (CloseCode.OVERLOADED, 5)
        assert len(events(relay, "connections")) == 1
        for client in idle[::2]:
            client.close()
        await until(lambda: asked(relay, "status")["connections"] == SLOTS, "free slots")
        async with Client(relay.address, name="late", key=device("late")) as late:
            await late.send("lobby", "hello")
        for client in idle:
            client.close()
