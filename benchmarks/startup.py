"""How long ``relay send`` takes to start: ``python -m benchmarks.startup [OTHER CHECKOUT]``.

A relay runs, and a proxy before it notes when the first byte of the client comes. The checkout that
is given, if any (as ``git worktree add`` makes it for another revision), is measured alternately.
Both run with this environment's packages.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from relay.testing import RelayServer

ROOT: Final = Path(__file__).parents[1]
RUNS: Final = 25


class Proxy:
    """Carries bytes to a relay, and notes when the first one comes from the client."""

    def __init__(self, port: int) -> None:
        self._relay = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.first_byte_s = 0.0
        """By the monotonic clock."""

    def serve_one(self) -> threading.Thread:
        """Serve one connection, in a thread that ends with it."""
        thread = threading.Thread(target=self._serve)
        thread.start()
        return thread

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection(("127.0.0.1", self._relay)) as server:
            back = threading.Thread(target=_carry, args=(server, client))
            back.start()
            data = client.recv(65_536)
            self.first_byte_s = time.perf_counter()
            server.sendall(data)
            _carry(client, server)
            back.join()


def _carry(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(65_536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def sent(checkout: Path, address: str, proxy: Proxy, scratch: Path) -> tuple[float, float, float]:
    """Run ``relay send`` once; return seconds to its first byte, in all, and of CPU."""
    serving = proxy.serve_one()
    variables = {
        "PYTHONPATH": str(checkout),
        "RELAY_KNOWN_SERVERS": str(scratch / "servers"),
        "RELAY_KEYS": str(scratch / "keys"),  # made by the first run, which warms up
        "RELAY_REGISTER": "1",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "relay.cli", "send", address, "startup", "hello"],
        env=os.environ | variables, check=True, cwd=scratch,
    )  # fmt: skip
    ended = time.perf_counter()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    serving.join()
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return proxy.first_byte_s - began, ended - began, cpu_s


def _others() -> list[Path]:
    """Return the checkouts that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup", description="How long relay send takes to start."
    )
    parser.add_argument("checkout", nargs="*", type=Path, help="of another revision")
    others = [path.resolve() for path in parser.parse_args().checkout]
    for path in others:
        if not (path / "relay" / "cli").is_dir():
            parser.error(f"{path} is no checkout of Relay: it has no relay/cli")
    return others


def main() -> int:
    """Measure, and print a row for each checkout."""
    checkouts = [*_others(), ROOT]
    taken: dict[Path, list[tuple[float, float, float]]] = {path: [] for path in checkouts}
    with RelayServer() as relay, tempfile.TemporaryDirectory() as scratch:
        proxy = Proxy(relay.port)
        fingerprint, _, _ = relay.address.removeprefix("relay://").partition("@")
        address = f"relay://{fingerprint}@127.0.0.1:{proxy.port}"
        for number in range(RUNS + 1):
            for path in checkouts:
                row = sent(path, address, proxy, Path(scratch))
                if number:  # the first one reads the files from the disk, and compiles
                    taken[path].append(row)
    print(f"relay send, median of {RUNS} (best), ms: to the first byte, in all, CPU")
    for path, rows in taken.items():
        columns = (
            f"{statistics.median(column) * 1e3:5.0f} ({min(column) * 1e3:.0f})"
            for column in zip(*rows, strict=True)
        )
        print(*columns, path.name if path != ROOT else "this checkout", sep="  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
