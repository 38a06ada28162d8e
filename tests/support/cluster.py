"""A real relay for tests: the console command in its own process group, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

import psutil

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0
"""Generous: for waiting on an event that must come, never a measure of speed."""


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition of another process, which cannot tell us; fail after the deadline."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {deadline_s} s: {what}")
        time.sleep(0.01)


async def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """As ``wait_until``, letting the event loop run."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {deadline_s} s: {what}")
        await asyncio.sleep(0.01)


def relay_command(*args: str | os.PathLike[str]) -> list[str]:
    """The command line of the console program, run by this interpreter."""
    return [sys.executable, "-m", "relay.cli", *(os.fspath(arg) for arg in args)]


def run_relay(
    *args: str | os.PathLike[str], text: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a ``relay`` command to its end."""
    return subprocess.run(
        relay_command(*args),
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
    )


def collect(stream: IO[str] | None, into: list[str]) -> threading.Thread:
    """Append each line of a process's output to a list as it comes, in a thread of its own."""

    def run() -> None:
        assert stream is not None
        with stream:
            for line in stream:
                into.append(line.rstrip("\n"))  # noqa: PERF401  # it is looked at meanwhile

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


class Relay:
    """``relay serve`` in a process group of its own."""

    def __init__(
        self,
        data: Path,
        *args: str,
        bind: str = "127.0.0.1:0",
        workers: int = 1,
        fault: str = "",
        settings: dict[str, str] | None = None,
        source: Path = ROOT,
    ) -> None:
        """Start it; ``with`` waits until it serves.

        Args:
            data: its data directory.
            args: more flags.
            bind: where to listen.
            workers: how many.
            settings: SECTION__KEY to value, for what has no flag.
            fault: one of ``tests.support.faulty``; ``marker`` is written when it strikes.
            source: the directory that holds the package ``relay`` to run.
        """
        self.data = data
        self.marker = data.with_suffix(".fault")
        self.log: list[str] = []
        self.printed: list[str] = []
        command = relay_command("serve", "--bind", bind, "--data", data, "--workers", str(workers))
        environment = {**os.environ, "RELAY_LOG__FORMAT": "json"}
        environment["PYTHONPATH"] = str(source)  # before what the environment has installed
        environment |= {f"RELAY_{key}": value for key, value in (settings or {}).items()}
        if fault:
            command[2] = "tests.support.faulty"
            environment["RELAY_TEST_FAULT"] = fault
            environment["RELAY_TEST_FAULT_MARKER"] = str(self.marker)
        self.process = subprocess.Popen(
            [*command, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
            cwd=source,
        )
        self._readers = [
            collect(self.process.stdout, self.printed),
            collect(self.process.stderr, self.log),
        ]

    def __enter__(self) -> Self:
        """Wait until it serves."""
        try:
            wait_until(lambda: self._find() or self.process.poll() is not None, "relay serve")
        except AssertionError:
            self.kill()
            raise
        if not self._find():
            raise AssertionError("relay serve ended: " + "\n".join(self.log))
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop it, and leave nothing behind."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole group: whatever is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for reader in self._readers:
            reader.join(DEADLINE_S)

    def _find(self) -> str | None:
        for line in self.printed:
            found = re.search(r"relay://[a-z2-7]{52}@\S+", line)
            if found:
                return found.group()
        return None

    @property
    def address(self) -> str:
        """``relay://FINGERPRINT@HOST:PORT`` as it was printed."""
        address = self._find()
        assert address is not None
        return address

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self.address.rsplit(":", 1)[1])

    def children(self) -> Iterator[psutil.Process]:
        """The server's own processes below the supervisor."""
        with contextlib.suppress(psutil.NoSuchProcess):
            yield from psutil.Process(self.process.pid).children(recursive=True)

    def _titled(self, word: str) -> list[int]:
        pids = []
        for child in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if f"relay: {word}" in " ".join(child.cmdline()):
                    pids.append(child.pid)
        return pids

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return self._titled("worker")

    def peers_by_worker(self) -> dict[int, set[int]]:
        """Which client ports each worker serves, by the worker's process id."""
        served: dict[int, set[int]] = {}
        for pid in self.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                served[pid] = {
                    connection.raddr.port
                    for connection in psutil.Process(pid).net_connections("tcp")
                    if connection.status == psutil.CONN_ESTABLISHED
                }
        return served

    def agent(self) -> int | None:
        """Process id of the key agent, or None while it is being restarted."""
        pids = self._titled("key agent")
        return pids[0] if pids else None

    def kill_worker(self, index: int = 0) -> None:
        """``kill -9`` of a worker, and wait until another one has taken its place."""
        before = self.workers()
        os.kill(before[index], signal.SIGKILL)
        wait_until(
            lambda: len(now := self.workers()) == len(before) and before[index] not in now,
            "a new worker in its place",
        )
