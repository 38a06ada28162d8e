"""A worker out of file descriptors waits without spinning, and resumes when some are free."""

from __future__ import annotations

import itertools
import resource
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil

from relay import BlockingClient, RelayError
from tests.support.cluster import DEADLINE_S, Relay, wait_until

PAUSES = 5
"""Accepting pauses 0.1 s each time."""
SAMPLES = 100
"""Samples of the process state: a spinning loop never sleeps, one that waits for a CPU seldom."""


def test_accepting_pauses_while_there_are_none_and_goes_on(tmp_path: Path) -> None:
    """Without a search index, which opens and closes files of its own."""
    with (
        Relay(tmp_path / "data", settings={"store.search": False}) as relay,
        BlockingClient(relay.address, name="alice") as alice,
    ):
        (worker,) = relay.worker_pids()
        before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        for name in ("bob", "carol"):  # the reserve descriptor is used each time
            wait_until(partial(_overloaded, relay, worker, name), "OVERLOADED")
        where = ("127.0.0.1", relay.port)
        with socket.create_connection(where) as first, socket.create_connection(where) as waiting:
            first.settimeout(DEADLINE_S)
            assert first.recv(1), "the reserve descriptor is used, and the client gets no answer"
            wait_until(lambda: relay.events("accept_exhausted"), "a pause")
            wait_until(lambda: _pauses(relay) >= PAUSES, "more pauses")
            for number in range(20):  # connected clients are served
                assert alice.send("lobby", "meanwhile").seq == number + 2
            states = list(_looked_at(worker))
            assert states.count(psutil.STATUS_SLEEPING) > SAMPLES / 10, "the loop spins"
            resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
            waiting.settimeout(DEADLINE_S)
            assert waiting.recv(1), "no ServerHello after descriptors became free"
        with BlockingClient(relay.address, name="bob") as bob:
            assert bob.send("lobby", "hello").seq == 22
        assert not relay.events("child_killed")


def _client(relay: Relay, name: str) -> BlockingClient:
    return BlockingClient(relay.address, name=name, reconnect=False)


def _overloaded(relay: Relay, worker: int, name: str) -> bool:
    """Connect to a worker without a descriptor. False: meanwhile it closed a file, and had one."""
    # Files that the start opens and closes again (to read each log's age) leave gaps.
    wait_until(lambda: len(set(_free(worker))) == 1, "no file that comes or goes")
    hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (next(_free(worker)), hard))
    try:
        with _client(relay, name):
            return False
    except RelayError as refused:
        return "OVERLOADED" in str(refused)


def _free(pid: int) -> Iterator[int]:
    """Sample the lowest free descriptor: a limit of this number leaves none."""
    for _ in range(SAMPLES):
        time.sleep(0.01)
        taken = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
        yield next(number for number in itertools.count() if number not in taken)


def _looked_at(pid: int) -> Iterator[str]:
    """Sample its state."""
    for _ in range(SAMPLES):
        time.sleep(0.01)
        yield psutil.Process(pid).status()


def _pauses(relay: Relay) -> int:
    left_out = relay.events("log_lines_left_out")
    return len(relay.events("accept_exhausted")) + sum(
        int(line["count"]) for line in left_out if line["of"] == "accept_exhausted"
    )
