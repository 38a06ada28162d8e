"""The kernel floor: what bare ``send()`` calls of the same size to as many sockets cost.

A loop in C, compiled when it is needed; where there is no compiler, the same loop in Python, and
``language`` says so.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.load import payload
from benchmarks.load.tally import Framing, Tally
from tests.support.processes import Processes

HOST = "127.0.0.1"
SOURCE = Path(__file__).with_name("floor.c")
RECORD_BYTES = 532
"""A record of Relay that carries one 200-byte message: 512 after padding, tag, header."""


class FloorSubscriber:
    """Takes records of a fixed size; a body and zeros each."""

    framing: Framing | None = None
    behind = 0

    def __init__(self, port: int, record_bytes: int) -> None:
        self.socket = socket.create_connection((HOST, port))
        self._record_bytes = record_bytes
        self._rest = b""

    def refresh(self) -> bool:
        """See ``Subscriber``: no keepalive is needed."""
        return False

    def decode(self, data: bytes) -> list[bytes]:
        """See ``Subscriber``."""
        size = self._record_bytes
        data = self._rest + data
        whole = len(data) // size * size
        self._rest = data[whole:]
        return [data[at : at + payload.SIZE_BYTES] for at in range(0, whole, size)]

    def received(self, tally: Tally) -> int | None:
        """See ``Subscriber``."""
        return tally.size // self._record_bytes

    def close(self) -> None:
        """See ``Subscriber``."""
        self.socket.close()


@dataclass(frozen=True, slots=True)
class FloorConnect:
    """Connects a swarm to a floor."""

    port: int
    record_bytes: int

    def __call__(self, index: int) -> FloorSubscriber:
        """Return a subscriber; all are alike."""
        return FloorSubscriber(self.port, self.record_bytes)


class FloorPublisher:
    """Hands records to the floor."""

    def __init__(self, port: int, record_bytes: int) -> None:
        self._socket = socket.create_connection((HOST, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._padding = bytes(record_bytes - payload.SIZE_BYTES)

    def publish(self, bodies: list[bytes]) -> None:
        """See ``Publisher``."""
        self._socket.sendall(b"".join([body + self._padding for body in bodies]))

    def publish_to(self, log: str, bodies: list[bytes]) -> None:
        """See ``RoomPublisher``: there are no rooms."""
        self.publish(bodies)

    def await_ack(self, body: bytes) -> bool:
        """See ``RoomPublisher``: there are none."""
        return False

    def collect(self, timeout_s: float) -> None:
        """See ``Publisher``: there are no answers, so this only waits."""
        self._socket.settimeout(max(timeout_s, 0.0001))
        try:
            if not self._socket.recv(1):
                raise ConnectionError("the floor has ended")
        except TimeoutError:
            pass
        finally:
            self._socket.settimeout(None)

    def close(self) -> None:
        """See ``Publisher``."""
        self._socket.close()


class Floor:
    """The floor's process. A context manager."""

    def __init__(self, directory: Path, subscribers: int, record_bytes: int = RECORD_BYTES) -> None:
        program = compiled(directory)
        self.language = "C" if program else "Python"
        command = [str(program)] if program else [sys.executable, __file__]
        self._record_bytes = record_bytes
        self._process = subprocess.Popen(
            [*command, str(subscribers), str(record_bytes)], stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        """Wait for its port."""
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.processes = Processes(self._process.pid)
        return self

    def __exit__(self, *exc: object) -> None:
        """End it."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()

    def join(self) -> FloorConnect:
        """Return what connects a swarm. The publisher must come after it."""
        return FloorConnect(self.port, self._record_bytes)

    def publisher(self) -> FloorPublisher:
        """Return the publisher."""
        return FloorPublisher(self.port, self._record_bytes)


def compiled(directory: Path) -> Path | None:
    """Compile the loop; None: there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    program = directory / "floor"
    subprocess.run([compiler, "-O2", "-o", program, SOURCE], check=True)
    return program


def _main() -> None:
    """Do in Python what floor.c does."""
    count, size = int(sys.argv[1]), int(sys.argv[2])
    with socket.create_server((HOST, 0), backlog=4096) as listener:
        print(listener.getsockname()[1], flush=True)
        subscribers = [listener.accept()[0] for _ in range(count)]
        for subscriber in subscribers:
            subscriber.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        publisher, _ = listener.accept()
        with publisher.makefile("rb") as stream:
            while record := stream.read(size):
                for subscriber in subscribers:
                    subscriber.sendall(record)


if __name__ == "__main__":
    _main()
