"""A host with several addresses, some of which are dead: RFC 8305, with both clients."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import socket
import struct
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest
import uvloop

from relay.client.address import Address, parse_address
from relay.client.aio import Client
from relay.client.aio.dial import dial_tcp
from relay.client.candidates import AddressHistory, Candidate
from relay.client.dialling import ADDRESSES_MAX, in_order, open_socket, resolve
from relay.client.dialling import dial_tcp as dial_blocking
from relay.client.errors import (
    ConnectFailed,
    HandshakeFailed,
    NotARelayServer,
    ServerKeyMismatch,
)
from relay.client.events import State
from relay.errors import UsageError
from relay.wire.frames import HEADER
from relay.wire.messages import MAGIC
from relay.wire.timing import Timing
from tests.client.faces.adapters import Face
from tests.support.cluster import DEADLINE_S, Relay, wait_until
from tests.support.fake_server import FakeConnection, FakeServer
from tests.support.silent import SilentHost


class Stranger:
    """An address that accepts connections, sends some bytes or none, and then closes or hangs."""

    def __init__(self, host: str, port: int, begins: bytes, end: str) -> None:
        self._listener = socket.create_server((host, port))
        self._begins = begins
        self._end = end
        self._accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for opened in (*self._accepted, self._listener):
            opened.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                opened, _ = self._listener.accept()
                opened.sendall(self._begins)
                if self._end == "never":
                    self._accepted.append(opened)
                    continue
                if self._end == "reset":
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                opened.close()


Connect = Callable[..., Face]
HOST = "several.example"


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that the system's resolver returns for HOST."""
    found: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        if host != HOST:
            return real(host, port, *args, **options)
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not an address")
        return [row for one in found for row in real(one, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return found


def at_host(relay: Relay) -> str:
    """The relay's address, with a name that has several addresses."""
    return str(parse_address(relay.address)._replace(host=HOST))


def test_a_silent_first_address(face: Connect, relay: Relay, addresses: list[str]) -> None:
    """The second is tried soon, long before the deadline of a dial."""
    addresses += ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
    one = face(at_host(relay), "eyeballs-a")
    with SilentHost("127.0.0.2", relay.port), SilentHost("127.0.0.3", relay.port):
        one.connect()  # if one address used up a dial's deadline, the connect would fail
    assert one.client.state is State.ONLINE


def test_addresses_that_refuse(face: Connect, relay: Relay, addresses: list[str]) -> None:
    """Also of an address family that the machine may not have."""
    addresses += ["::1", "127.0.0.4", "127.0.0.1"]
    one = face(at_host(relay), "eyeballs-b")
    one.connect()
    assert one.client.state is State.ONLINE


HTTP = b"HTTP/1.1 400 Bad Request\r\n\r\n"
SSH = b"SSH-2.0-OpenSSH_9.2p1\r\n"


@pytest.mark.parametrize("end", ["never", "closed", "reset"])
@pytest.mark.parametrize(
    "begins", [b"", HTTP, SSH, b"220\r\n", b"\x01", b"\x01\x00\x01\x00RL", b"\x01\x00\x01\x00rly1"]
)
def test_an_address_of_something_else(
    face: Connect, relay: Relay, addresses: list[str], begins: bytes, end: str
) -> None:
    """A hung program, a load balancer without servers, another protocol, half of a ServerHello: no
    handshake succeeds there, so the client goes on to the relay.
    """
    addresses += ["127.0.0.6", "127.0.0.1"]
    one = face(at_host(relay), "eyeballs-" + hashlib.sha256(begins).hexdigest()[:8] + end)
    with Stranger("127.0.0.6", relay.port, begins, end):
        one.connect()
        assert one.client.state is State.ONLINE


def test_nothing_but_other_servers(face: Connect, relay: Relay, addresses: list[str]) -> None:
    """A handshake error is reported before refused connections, and is final for the first
    attempt.
    """
    addresses += ["127.0.0.6", "127.0.0.4", "127.0.0.7"]
    one = face(at_host(relay), "eyeballs-g")
    with (
        Stranger("127.0.0.6", relay.port, SSH, "never"),
        Stranger("127.0.0.7", relay.port, SSH, "closed"),
        pytest.raises(NotARelayServer, match="SSH"),
    ):
        one.connect()
    assert one.client.state is State.CLOSED


def test_another_protocol_is_reported_at_the_deadline(
    face: Connect, relay: Relay, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other addresses never answer; which protocol one of them has is worth more than that."""
    for module in ("aio", "blocking"):
        monkeypatch.setattr(f"relay.client.{module}.pump.DIAL_S", 3.0)
    addresses += ["127.0.0.6", "127.0.0.7", "127.0.0.2"]
    one = face(at_host(relay), "eyeballs-i")
    with (
        Stranger("127.0.0.6", relay.port, SSH, "never"),
        Stranger("127.0.0.7", relay.port, b"", "never"),
        SilentHost("127.0.0.2", relay.port),
        pytest.raises(NotARelayServer, match="SSH"),
    ):
        one.connect()


TCP_SYN_SENT = 2


def state_of(opened: socket.socket) -> int:
    """The first byte of Linux's ``tcp_info``."""
    return opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def dial_cooperatively(address: Address, timeout_s: float) -> socket.socket:
    """As ``dial_blocking``."""
    return asyncio.run(dial_tcp(address, timeout_s, AddressHistory()))


@pytest.mark.parametrize("dial", [dial_blocking, dial_cooperatively])
def test_for_the_last_address_it_is_enough_that_it_connects(
    dial: Callable[[Address, float], socket.socket],
    relay: Relay,
    addresses: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if all others had ended before it began."""
    monkeypatch.setattr("relay.client.dialling.ATTEMPT_DELAY_S", DEADLINE_S)
    addresses += ["127.0.0.6", "127.0.0.4", "127.0.0.7"]
    with (
        Stranger("127.0.0.6", relay.port, SSH, "never"),
        Stranger("127.0.0.7", relay.port, b"", "never"),
        dial(Address(HOST, relay.port), DEADLINE_S) as opened,
    ):
        assert opened.getpeername()[0] == "127.0.0.7"


@pytest.mark.parametrize("dial", [dial_blocking, dial_cooperatively])
def test_a_slow_connection_is_no_reason_for_another(
    dial: Callable[[Address, float], socket.socket],
    addresses: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing has failed, and the delay is not over: nothing is sent to the second address."""
    monkeypatch.setattr("relay.client.dialling.ATTEMPT_DELAY_S", DEADLINE_S)
    opened: list[socket.socket] = []

    def observed(candidate: Candidate) -> socket.socket:
        opened.append(open_socket(candidate))
        return opened[-1]

    for module in ("dialling", "aio.dial"):
        monkeypatch.setattr(f"relay.client.{module}.open_socket", observed)
    addresses += ["127.0.0.6", "127.0.0.7"]
    with (
        SilentHost("127.0.0.6") as slow,
        socket.create_server(("127.0.0.7", slow.port)) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        dialled = pool.submit(dial, Address(HOST, slow.port), DEADLINE_S)
        wait_until(lambda: opened and state_of(opened[0]) == TCP_SYN_SENT, "the first attempt")
        slow.end_silence(b"\x01\x00\x01\x00" + MAGIC)
        with dialled.result(DEADLINE_S) as found:
            assert found.getpeername()[0] == "127.0.0.6"
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_server_with_another_key(
    face: Connect, relay: Relay, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the client although the next address has the right key: it may be an attack."""
    # However slowly the first address answers on a busy machine, the next one waits for it.
    monkeypatch.setattr("relay.client.dialling.ATTEMPT_DELAY_S", DEADLINE_S)
    patient = Timing(handshake_s=DEADLINE_S)
    monkeypatch.setattr("relay.client.connection_deadlines._HURRIED", patient)
    addresses += ["127.0.0.8", "127.0.0.1"]
    one = face(at_host(relay), "eyeballs-h")
    with (
        FakeServer(FakeConnection.log_in, at=("127.0.0.8", relay.port)) as other,
        pytest.raises(ServerKeyMismatch),
    ):
        one.connect()
    assert one.client.state is State.CLOSED
    assert other.accepted == 1


def hello_of(relay: Relay) -> bytes:
    """The beginning of a connection to a relay: its whole hello."""
    with socket.create_connection(("127.0.0.1", relay.port)) as opened:
        begins = opened.recv(HEADER, socket.MSG_WAITALL)
        while len(begins) < HEADER + int.from_bytes(begins[1:HEADER], "big"):
            begins += opened.recv(65_536)
        return begins


@pytest.mark.parametrize("end", ["closed", "reset"])
def test_addresses_that_begin_as_relays_do(
    face: Connect, relay: Relay, addresses: list[str], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Each hello is right, and then the connection ends: the next attempt is at another address."""
    # However slowly the first address answers on a busy machine, the next one waits for it.
    for name in ("ATTEMPT_DELAY_S", "DOUBTFUL_DELAY_S"):
        monkeypatch.setattr(f"relay.client.dialling.{name}", DEADLINE_S)
    begins = hello_of(relay)
    addresses += ["127.0.0.6", "127.0.0.4", "127.0.0.7", "127.0.0.1"]
    one = face(at_host(relay), f"eyeballs-begin-{end}")
    with (
        Stranger("127.0.0.6", relay.port, begins, end),
        Stranger("127.0.0.7", relay.port, begins, end),
    ):
        one.connect(DEADLINE_S)
    assert one.client.state is State.ONLINE
    assert one.client.statistics["logins"] == 1


@pytest.mark.parametrize(("after", "reconnect"), [(b"", True), (SSH, True), (b"\xff" * 16, False)])
def test_a_handshake_that_fails_is_not_the_end_while_there_are_other_addresses(
    face: Connect,
    relay: Relay,
    addresses: list[str],
    monkeypatch: pytest.MonkeyPatch,
    after: bytes,
    reconnect: bool,
) -> None:
    """A right hello, and then silence or nonsense, also at the first connect; one has to come in
    time for the deadline of ``connect`` itself.
    """
    for name in ("ATTEMPT_DELAY_S", "DOUBTFUL_DELAY_S"):
        monkeypatch.setattr(f"relay.client.dialling.{name}", DEADLINE_S)
    addresses += ["127.0.0.6", "127.0.0.4", "127.0.0.1"]
    one = face(at_host(relay), f"eyeballs-after-{len(after)}", reconnect=reconnect)
    with Stranger("127.0.0.6", relay.port, hello_of(relay) + after, "never"):
        one.connect()
    assert one.client.state is State.ONLINE


def test_the_end_of_the_last_address_is_the_end(
    face: Connect, relay: Relay, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No address is tried a third time: the first connect reports what is wrong."""
    monkeypatch.setattr("relay.client.dialling.ATTEMPT_DELAY_S", DEADLINE_S)
    addresses += ["127.0.0.6", "127.0.0.4", "127.0.0.7"]
    one = face(at_host(relay), "eyeballs-none")
    begins = hello_of(relay) + SSH
    with (
        Stranger("127.0.0.6", relay.port, begins, "never"),
        Stranger("127.0.0.7", relay.port, begins, "never"),
        pytest.raises(HandshakeFailed),
    ):
        one.connect(DEADLINE_S)
    assert one.client.state is State.CLOSED


def test_what_failed_is_tried_last() -> None:
    """The latest failure after earlier ones; a login, or new addresses, end the doubt."""
    one, two, three = (Candidate(2, 6, (name, 1)) for name in "abc")
    history = AddressHistory()

    def tried() -> list[tuple[str, bool]]:
        return [(each.address[0], each.doubtful) for each in history.in_order([one, two, three])]

    history.failed()
    assert tried() == [("a", False), ("b", False), ("c", False)], "none was chosen"
    history.chosen(one)
    history.failed()
    assert tried() == [("b", False), ("c", False), ("a", True)]
    history.chosen(two)
    history.failed()
    history.chosen(one)
    history.failed()
    assert tried() == [("c", False), ("b", True), ("a", True)]
    history.chosen(three)
    history.failed()
    assert tried() == [("b", False), ("a", False), ("c", False)], "all have failed"
    history.chosen(one)
    history.succeeded()
    assert tried() == [("a", False), ("b", True), ("c", True)]
    history.in_order([one])
    assert tried() == [("a", False), ("b", False), ("c", False)], "forgotten"


class Listener:
    """A server of bytes that begins when the test wants it."""

    def __init__(self, host: str, port: int = 0) -> None:
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        self._accepted: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for opened in (*self._accepted, self._listener):
            opened.close()

    async def accept(self) -> None:
        """Wait for a connection; the listener itself does not block the loop."""
        self._listener.setblocking(False)
        opened, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self._accepted.append(opened)

    def begin(self) -> None:
        """Send the beginning of a hello to whoever has connected."""
        for opened in self._accepted:
            opened.sendall(b"\x01\x00\x01\x00" + MAGIC)


async def cancelled_race(who: str, turns: int) -> None:
    """Race two addresses that begin at once; cancel tasks so many turns of the loop later."""
    with Listener("127.0.0.2") as one, Listener("127.0.0.3", port := one.port) as two:
        race = asyncio.create_task(dial_tcp(Address(HOST, port), DEADLINE_S, AddressHistory()))
        await one.accept()
        await two.accept()
        attempts = asyncio.all_tasks() - {race, asyncio.current_task()}
        assert len(attempts) == 2
        first, second = attempts
        one.begin()
        two.begin()
        for _ in range(turns):
            await asyncio.sleep(0)
        groups = {"race": [race], "all": [*attempts, race], "one": [first], "other": [second]}
        for task in groups.get(who, attempts):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            (await race).close()


@pytest.mark.parametrize("who", ["race", "all", "attempts", "one", "other"])
@pytest.mark.parametrize("kind", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_a_cancelled_race_closes_what_it_has_opened(
    addresses: list[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[], asyncio.AbstractEventLoop],
    who: str,
) -> None:
    """In whatever turn of the loop: both may have connected, one of them, or none."""
    monkeypatch.setattr("relay.client.dialling.ATTEMPT_DELAY_S", 0.0)
    addresses += ["127.0.0.2", "127.0.0.3"]
    with asyncio.Runner(loop_factory=kind) as runner, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        for turns in range(14):
            runner.run(cancelled_race(who, turns))
            gc.collect()
    assert [str(each.message) for each in seen] == []


class TransportsOnly(asyncio.SelectorEventLoop):
    """A loop without the optional methods, as on Windows."""

    def add_reader(self, *arguments: object) -> None:
        raise NotImplementedError

    def sock_connect(self, *arguments: object) -> Any:  # noqa: ANN401
        raise NotImplementedError


def test_a_loop_without_readers(relay: Relay, addresses: list[str]) -> None:
    """Addresses are tried all the same; a cancellation leaves no socket."""
    addresses += ["127.0.0.4", "127.0.0.2", "127.0.0.1"]

    async def connect() -> None:
        async with Client(at_host(relay)) as client:
            assert client.state is State.ONLINE
        addresses[:] = ["127.0.0.2"] * 2
        connecting = asyncio.create_task(Client(at_host(relay)).connect())
        await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting

    with (
        SilentHost("127.0.0.2", relay.port),
        asyncio.Runner(loop_factory=TransportsOnly) as runner,
    ):
        runner.run(connect())


def test_all_addresses_are_dead(face: Connect, relay: Relay, addresses: list[str]) -> None:
    """One line, with each reason once."""
    addresses += ["127.0.0.4", "127.0.0.5"]
    with pytest.raises(ConnectFailed, match=rf"cannot connect to {HOST}, port \d+: [^,]*refused$"):
        face(at_host(relay), "eyeballs-c").connect()


def test_one_deadline_for_all(face: Connect, relay: Relay, addresses: list[str]) -> None:
    """No address answers: the caller's deadline ends it, and no socket is left."""
    addresses += ["127.0.0.2", "127.0.0.3"]
    one = face(at_host(relay), "eyeballs-d")
    silent = (SilentHost("127.0.0.2", relay.port), SilentHost("127.0.0.3", relay.port))
    with silent[0], silent[1], pytest.raises(ConnectFailed):
        one.connect(1.0)
    assert one.client.state is State.CLOSED


def test_no_such_host(face: Connect) -> None:
    """An impossible name is an error at once: it cannot appear later."""
    for host in ("a" * 70 + ".example", "x..example"):
        with pytest.raises(UsageError, match="the host is missing or not a name"):
            face(f"relay://{'a' * 52}@{host}:1", "eyeballs-e")
        with pytest.raises(OSError, match=r"not a legal host name|not known"):
            resolve(Address(host))


def test_families_alternate() -> None:
    """The resolver's first choice begins; duplicates are removed; the number is bounded."""
    rows = [
        (family, socket.SOCK_STREAM, 6, "", (f"{family.name}{number}", 1))
        for family in (socket.AF_INET6, socket.AF_INET)
        for number in (1, 2, 2, 3)
    ]
    assert [candidate.address[0] for candidate in in_order(rows)] == [
        "AF_INET61", "AF_INET1", "AF_INET62", "AF_INET2", "AF_INET63", "AF_INET3",
    ]  # fmt: skip
    many = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (str(n), 1)) for n in range(1000)]
    assert len(in_order(many)) == ADDRESSES_MAX
