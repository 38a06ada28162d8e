"""A relay to be measured: ``relay serve`` with a data directory of its own.

Its key is as large as a user's: the relays of the tests have a smaller one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Self, TypeVar

from benchmarks.load.publishers import RelayPublisher
from benchmarks.load.subscribers import Join
from benchmarks.measure.machine import HOST
from relay.chat.partition import partition_of
from relay.wire.identity import KEY_BITS_DEFAULT
from tests.support.cluster import ROOT, Relay, wait_until
from tests.support.processes import Processes
from tests.support.raw import RawClient

Placed = TypeVar("Placed", RelayPublisher, RawClient)


class MeasuredRelay:
    """A running relay, pinned. A context manager."""

    def __init__(
        self,
        data: Path,
        *,
        workers: int,
        cores: Iterable[int],
        settings: Mapping[str, object] | None = None,
        fault: str = "",
        source: Path = ROOT,
        python: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            data: its data directory.
            workers: how many.
            cores: where all its processes run.
            settings: by their names, for what has no flag.
            fault: what is planted in it (``tests.support.faulty``).
            source: the directory that holds the package ``relay`` to run.
            python: an interpreter whose environment has the package to run, instead.
        """
        self._relay = Relay(
            data,
            workers=workers,
            settings={"server.key_bits": KEY_BITS_DEFAULT, **(settings or {})},
            fault=fault,
            source=source if python is None else None,
            python=sys.executable if python is None else str(python),
        )
        self._cores = set(cores)
        self.workers = workers

    def __enter__(self) -> Self:
        """Wait until it serves."""
        self._relay.__enter__()
        self.port = self._relay.port
        self.address = self._relay.address
        self.processes = Processes(self._relay.pid)
        self.processes.pin(self._cores)
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop it."""
        self._relay.__exit__(*exc)

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers that run now."""
        return self._relay.worker_pids()

    def control(self) -> tuple[int, str]:
        """Return the control process's id, and the address at which it is asked for metrics."""
        (pid,) = self._relay.pids_titled("relay: control")
        return pid, str(self._relay.events("starting")[-1]["control"])

    def publisher(self, log: str, name: str = "publisher") -> RelayPublisher:
        """Return a new publisher into a log."""
        return RelayPublisher(HOST, self.port, name, log)

    def join(self, *logs: str, prefix: str = "member") -> Join:
        """Return what connects a swarm to logs."""
        return Join(self.port, prefix, logs)

    def log_at_home_on(self, worker: int, prefix: str = "room") -> str:
        """Return the name of a log whose home is that worker (partition n is at n mod workers)."""
        names = (f"{prefix}{number}" for number in count())
        return next(name for name in names if partition_of(name) % self.workers == worker)

    def publisher_on(self, worker: int, log: str, name: str = "publisher") -> RelayPublisher:
        """Return a publisher whose connection that worker serves."""
        return self._on(worker, lambda attempt: self.publisher(log, f"{name}{attempt}"))

    def member_on(self, worker: int, log: str, name: str = "member") -> RawClient:
        """Return a live member whose connection that worker serves."""
        member = self.client_on(worker, name)
        member.join(log)
        return member

    def client_on(self, worker: int, name: str = "client") -> RawClient:
        """Return a client, logged in, whose connection that worker serves."""
        return self._on(worker, lambda attempt: RawClient(HOST, self.port, f"{name}{attempt}"))

    def _on(self, worker: int, connect: Callable[[int], Placed]) -> Placed:
        """Connect until a worker has accepted it: by luck, kept if so."""
        pid = self.pid_of(worker)
        for attempt in range(64):
            client = connect(attempt)
            if client.port in self._relay.peers_by_worker()[pid]:
                return client
            client.close()
        raise RuntimeError(f"worker {worker} accepts nothing")

    def connections_of(self, worker: int) -> int:
        """Return how many connections a worker has."""
        return len(self._relay.peers_by_worker()[self.pid_of(worker)])

    def wait_until_empty(self) -> None:
        """Wait until all workers are there and have no connections."""
        wait_until(
            lambda: (
                [len(peers) for peers in self._relay.peers_by_worker().values()]
                == [0] * self.workers
            ),
            "the connections to end",
        )

    @contextlib.contextmanager
    def stopped(self, worker: int) -> Iterator[None]:
        """SIGSTOP a worker for a while."""
        pid = self.pid_of(worker)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill(self, worker: int) -> None:
        """``kill -9`` of a worker."""
        os.kill(self.pid_of(worker), signal.SIGKILL)

    def wait_for_spare(self) -> None:
        """Wait until a process is there that takes the place of a worker that dies."""
        wait_until(lambda: self._relay.pids_titled("relay: spare"), "a spare process")

    def pid_of(self, worker: int) -> int:
        """Return the process id of a worker."""
        title = f"relay: worker {worker} "
        for child in self._relay.children():
            if title in " ".join(child.cmdline()):
                return child.pid
        raise RuntimeError(f"there is no worker {worker}")
