"""A relay under a service manager, and behind a proxy: what it reports, and what it is passed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import BlockingClient
from relay.client.errors import ClientError
from relay.server.worker.process.accepting.proxy_header import SIGNATURE
from tests.support.cluster import DEADLINE_S, ROOT, Relay, wait_until
from tests.support.given_socket import GivenSocket
from tests.system.test_ctl import asked, status_of


def test_what_the_service_manager_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_S)
        told: list[str] = []

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    told.append(manager.recv(4096).decode())

        threading.Thread(target=listen, daemon=True).start()

        def until(word: str) -> str:
            wait_until(lambda: any(line.startswith(word) for line in told), word)
            found = next(line for line in told if line.startswith(word))
            del told[: told.index(found) + 1]
            return found

        launcher = (
            "import os\n"
            f"os.environ.update(NOTIFY_SOCKET={str(tmp_path / 'notify')!r}, WATCHDOG_USEC='200000')"
        )
        with Relay(tmp_path / "data", launcher=launcher) as relay:
            assert until("READY=1") == "READY=1\nSTATUS=serving"
            for _ in range(3):
                until("WATCHDOG=1")
            os.kill(relay.pid, signal.SIGHUP)
            assert int(until("RELOADING=1").partition("MONOTONIC_USEC=")[2]) > 0
            until("READY=1")
            told.clear()
            relay.stop()
            assert "EXTEND_TIMEOUT_USEC=" in until("STOPPING=1")
            for process in relay.log:
                assert "NOTIFY_SOCKET" not in process


def test_nobody_is_refused_while_the_relay_is_restarted_on_a_given_socket(
    tmp_path: Path,
) -> None:
    """As with relay.socket: the next process serves the same socket, and clients wait meanwhile."""
    with (
        GivenSocket(tmp_path) as given,
        Relay(tmp_path / "data", launcher=given.launcher) as relay,
        BlockingClient(relay.address, name="alice") as alice,
    ):
        assert relay.port == given.port
        assert alice.send("lobby", "before").seq == 2
        assert relay.stop() == 0
        with socket.create_connection(("127.0.0.1", given.port)) as early:
            relay.start()
            assert relay.port == given.port
            assert alice.send("lobby", "after").seq == 3
            with BlockingClient(relay.address, name="bob") as bob:
                assert bob.send("lobby", "new").seq == 4
            early.settimeout(DEADLINE_S)
            assert early.recv(1), "no ServerHello for a client that connected while no relay ran"


OF_MACHINES = "socket.socket(socket.AF_VSOCK)\ns.bind((0xFFFFFFFF, 0xFFFFFFFF))\ns.listen()"


@pytest.mark.parametrize("made", ["socket.socket()", OF_MACHINES], ids=["mute", "of another kind"])
def test_a_socket_that_cannot_be_listened_on_ends_the_start(tmp_path: Path, made: str) -> None:
    if made is OF_MACHINES:
        try:
            socket.socket(socket.AF_VSOCK).close()
        except (OSError, AttributeError):
            pytest.skip("no such sockets here")
    launcher = (
        f"import os, socket\ns = {made}\nos.dup2(s.fileno(), 3)\n"
        "os.set_inheritable(3, True)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')"
    )
    relay = Relay(tmp_path / "data", launcher=launcher)
    with pytest.raises(Exception, match="socket 3 is not a listening stream socket"):
        relay.start()
    relay.close()


def test_the_unit_files_are_legal() -> None:
    units = [str(path) for path in sorted((ROOT / "deploy").glob("relay.*"))]
    assert len(units) == 2
    try:
        ended = subprocess.run(
            ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no systemd here")
    complaints = [
        line for line in ended.stderr.splitlines() if "/usr/bin/relay" not in line and line.strip()
    ]
    assert complaints == []


def test_the_unit_exposes_little() -> None:
    """On systemd's scale from 0 to 10, which differs a little between versions."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    unit = str(ROOT / "deploy" / "relay.service")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-200:] + rated.stderr


def test_the_unit_lets_workers_keep_themselves_from_the_key() -> None:
    """None of the system call groups usually granted to a service contains those of Landlock."""

    def group(name: str) -> set[str]:
        ended = subprocess.run(
            ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
        )
        lines = [line.strip() for line in ended.stdout.splitlines()[1:]]
        return calls_of([line for line in lines if line and not line.startswith("#")])

    def calls_of(words: list[str]) -> set[str]:
        return {call for word in words for call in (group(word) if word[0] == "@" else {word})}

    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    allowed: set[str] = set()
    for line in (ROOT / "deploy" / "relay.service").read_text().splitlines():
        if line.startswith("SystemCallFilter="):
            words = line.partition("=")[2]
            calls = calls_of(words.lstrip("~").split())
            allowed = allowed - calls if words.startswith("~") else allowed | calls
    assert {
        "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "prctl",
        "memfd_create", "accept4", "fsync", "clone", "kill",
    } <= allowed  # fmt: skip


def test_it_runs_without_new_privileges_and_executable_memory(tmp_path: Path) -> None:
    """As with NoNewPrivileges= and MemoryDenyWriteExecute= of the unit."""
    launcher = (
        "import ctypes\nlibc = ctypes.CDLL(None)\nassert libc.prctl(38, 1, 0, 0, 0) == 0\n"
        "libc.prctl(65, 1, 0, 0, 0)"
    )
    with Relay(tmp_path / "data", launcher=launcher, workers=2) as relay:
        with BlockingClient(relay.address, name="alice") as alice:
            alice.send("lobby", "hello")
        relay.kill_worker()
        status = Path(f"/proc/{relay.worker_pids()[0]}/status").read_text()
        assert "NoNewPrivs:\t1" in status


def header(address: str, *, command: int = 0x21) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    raw = socket.inet_pton(family, address)
    rest = raw + raw + struct.pack(">HH", 40_000, 7475) + b"\x04\x00\x01x"  # and a TLV
    kind = 0x21 if family == socket.AF_INET6 else 0x11
    return SIGNATURE + struct.pack(">BBH", command, kind, len(rest)) + rest


class ProxyServer:
    """Forwards each connection to a Unix-domain socket, with a header in front."""

    def __init__(self, path: Path, first: bytes) -> None:
        self._path = path
        self._first = first
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(str(self._path))
            server.sendall(self._first)
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            self._copy(client, server)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def no_slot_for_another(url: str) -> None:
    second = BlockingClient(url, name="bob", reconnect=False)
    with pytest.raises(ClientError, match="OVERLOADED"):
        second.connect()


def test_behind_a_proxy_on_a_unix_socket(tmp_path: Path) -> None:
    """The address in the proxy's header is the source, for budgets and in reports."""
    path = tmp_path / "relay.sock"
    with Relay(
        tmp_path / "data",
        "--bind",
        f"unix:{path}",
        settings={"server.proxies": "unix,192.0.2.0/24", "limits.connections_per_source": 1},
    ) as relay:
        assert oct(path.stat().st_mode & 0o777) == "0o600"
        fingerprint = relay.address.partition("@")[0]
        for name, address in (("alice", "192.0.2.7"), ("anna", "2001:db8::7")):
            proxy = ProxyServer(path, header(address))
            try:
                url = f"{fingerprint}@127.0.0.1:{proxy.port}"
                with BlockingClient(url, name=name) as first:
                    first.join(f"room-{name}")
                    assert first.send(f"room-{name}", "x" * 30_000).seq == 2
                    (item,) = asked(relay, "connections")["items"]
                    assert (item["name"], item["peer"]) == (name, address)
                    no_slot_for_another(url)
            finally:
                proxy.close()
            wait_until(lambda: not asked(relay, "connections")["items"], "all to be gone")
        # LOCAL, UNSPEC, or an address of the proxy's own machine: the proxy itself.
        unspecified = SIGNATURE + b"\x21\x00\x00\x00"
        for nobody in (header(address, command=0x20), unspecified, header("127.0.0.1")):
            proxy = ProxyServer(path, nobody)
            try:
                url = f"{fingerprint}@127.0.0.1:{proxy.port}"
                with BlockingClient(url, name="carol") as carol:
                    carol.join("lobby")
                    (item,) = asked(relay, "connections")["items"]
                    assert item["peer"] == "unix"
                    if nobody is not unspecified:  # nor is it exempt, though a Unix-domain socket
                        no_slot_for_another(url)
            finally:
                proxy.close()
            wait_until(lambda: not asked(relay, "connections")["items"], "carol to be gone")
    assert not path.exists()


def test_the_name_of_a_listening_socket_is_removed(tmp_path: Path) -> None:
    """As cleaners do: new workers bind the name again and replace the others."""
    path = tmp_path / "relay.sock"
    with (
        Relay(tmp_path / "data", "--bind", f"unix:{path}", workers=2) as relay,
        BlockingClient(relay.address, name="alice") as alice,
    ):
        before = set(relay.worker_pids())
        path.unlink()
        wait_until(path.exists, "the socket to be there again")
        proxy = ProxyServer(path, b"")
        try:
            url = f"{relay.address.partition('@')[0]}@127.0.0.1:{proxy.port}"
            with BlockingClient(url, name="bob") as bob:
                assert bob.send("lobby", "hello").seq == 2
            assert alice.send("lobby", "as ever").seq == 3
        finally:
            proxy.close()
        wait_until(lambda: not before & set(relay.worker_pids()), "all workers to have it")
        assert relay.stop() == 0
    assert not path.exists()


@pytest.fixture(scope="module")
def behind_a_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Path]]:
    """A relay that proxies reach on a Unix-domain socket, and the socket's path."""
    directory = tmp_path_factory.mktemp("relay")
    path = directory / "relay.sock"
    settings = {"server.proxies": "unix"}
    with Relay(directory / "data", "--bind", f"unix:{path}", settings=settings) as relay:
        yield relay, path


@pytest.mark.parametrize(
    "first",
    [b"", b"GET / HTTP/1.1\r\n\r\n", SIGNATURE + b"\x31\x11\x00\x0c",
     SIGNATURE + b"\x21\x11\xff\xff", SIGNATURE + b"\x21\x41\x00\x00",
     SIGNATURE + b"\x21\x11\x00\x02xx"],
)  # fmt: skip
def test_who_should_say_for_whom_and_does_not_is_closed(
    behind_a_proxy: tuple[Relay, Path], first: bytes
) -> None:
    relay, path = behind_a_proxy
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(DEADLINE_S)
        peer.connect(str(path))
        peer.sendall(first)
        if len(first) < 16:
            peer.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
    with BlockingClient(relay.address, name="alice") as alice:  # not a proxy: served as usual
        alice.send("lobby", "hello")
    wait_until(lambda: asked(relay, "status")["connections"] == 0, "all slots free")
    if first:  # once a minute, and not for a connection that sent nothing
        wait_until(lambda: relay.events("proxy_header_refused"), "it in the log")
        assert relay.events("proxy_header_refused")[0]["proxy"] == "unix"


def test_a_proxy_that_says_nothing_holds_no_stop(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    settings = {"server.proxies": "unix", "server.graceful_timeout_s": 40}
    with (
        Relay(tmp_path / "data", "--bind", f"unix:{path}", settings=settings) as relay,
        socket.socket(socket.AF_UNIX) as peer,
    ):
        peer.connect(str(path))
        peer.sendall(SIGNATURE)
        wait_until(lambda: asked(relay, "status")["connections"] == 1, "its slot is taken")
        assert relay.stop() == 0
        assert relay.events("drained")
        assert not relay.events("child_killed")


def test_a_header_of_who_is_no_proxy_is_no_handshake(tmp_path: Path) -> None:
    with Relay(tmp_path / "data") as relay:
        with socket.create_connection(("127.0.0.1", relay.port)) as peer:
            peer.settimeout(DEADLINE_S)
            peer.sendall(header("192.0.2.7"))
            with contextlib.suppress(ConnectionResetError):
                while peer.recv(4096):
                    pass
        status_of(relay)


def test_all_addresses_of_both_families(tmp_path: Path) -> None:
    with Relay(tmp_path / "data", "--bind", "[::1]:0", bind="127.0.0.1:0") as relay:
        addresses = [line.strip() for line in relay.announced if line.strip().startswith("relay:")]
        assert len(addresses) == 2
        for number, address in enumerate(addresses):
            with BlockingClient(address, name="alice") as alice:
                assert alice.send("lobby", str(number)).seq == number + 2
