"""A real relay for tests: the console command in its own process group, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import psutil

from relay.testing import RelayServer
from tests.support.loaded import Forked, loader

ROOT = Path(__file__).parents[2]
COMMAND_S = 120.0
"""For a command that is to end by itself."""
DEADLINE_S = 60.0
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
    """Run a ``relay`` command to its end; see ``loaded``.

    Raises:
        subprocess.TimeoutExpired: it did not end in ``COMMAND_S``, and was killed.
    """
    environment = {**os.environ, **(env or {})}
    arguments = [os.fspath(arg) for arg in args]
    if loader(os.getpid()).fits(arguments, environment):
        return loader(os.getpid()).run(arguments, text, environment, COMMAND_S)
    return subprocess.run(
        relay_command(*args),
        input=text,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        env=environment,
    )


def start_client(
    *args: str, typed: bool = False, env: dict[str, str] | None = None
) -> subprocess.Popen[str] | Forked:
    """Start a ``relay`` command with pipes for its output; see ``loaded``.

    Args:
        args: of ``relay``.
        typed: it has a pipe for its input; otherwise nothing.
        env: variables besides those of this process.
    """
    environment = {**os.environ, **(env or {})}
    if loader(os.getpid()).fits(args, environment):
        return loader(os.getpid()).start(args, environment, typed=typed)
    return subprocess.Popen(
        relay_command(*args),
        stdin=subprocess.PIPE if typed else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
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


class Relay(RelayServer):
    """``relay serve`` with production's settings; tests may plant faults, and see its processes.

    But anybody may register, and be a guest: most tests are about something else.
    """

    def __init__(
        self,
        data: Path,
        *flags: str,
        bind: str = "127.0.0.1:0",
        workers: int = 1,
        fault: str = "",
        settings: Mapping[str, object] | None = None,
        source: Path | None = ROOT,
        python: str = sys.executable,
        launcher: str = "",
    ) -> None:
        """Prepare; ``with`` starts it.

        Args:
            data: its data directory.
            flags: more flags.
            bind: where to listen.
            workers: how many.
            settings: by their names, for what has no flag.
            launcher: Python that is run first, in the process that then becomes the server.
            fault: one of ``tests.support.faulty``; ``marker`` is written when it strikes.
            source: the directory that holds the package ``relay`` to run, with the other packages
                of this interpreter; None: all are those of the environment of ``python``.
            python: what runs it; with a source, of this version.
        """
        self.marker = data.with_suffix(".fault")
        paths = [] if source is None else [str(source)]  # before what the environment has installed
        if source is not None and python != sys.executable:
            # Those that a file of paths names, too, as in the compiled build's environment.
            paths += [path for path in sys.path if path.endswith("site-packages")]
        environment = {"PYTHONPATH": os.pathsep.join(paths)}
        program = "relay.cli"
        if fault:
            program = "tests.support.faulty"
            environment["RELAY_TEST_FAULT"] = fault
            environment["RELAY_TEST_FAULT_MARKER"] = str(self.marker)
        isolated = ["-P"] if source is None else []  # not what is in this directory
        argv = [python, *isolated, "-m", program]
        if launcher:
            become = f"{launcher}\nimport os, sys\nos.execv(sys.argv[1], sys.argv[1:])\n"
            argv = [sys.executable, "-c", become, *argv]
        super().__init__(
            workers=workers,
            data=data,
            bind=bind,
            settings={
                "accounts.registration": "open",
                "accounts.guests": True,
                # The default takes 0.2 s more of the processor for each relay.
                "server.key_bits": 2048,
                # Faults write files beside the data; and who is not root could not look into it.
                "server.sandbox": not fault and os.geteuid() == 0,
                **(settings or {}),
            },
            quick=False,
            flags=flags,
            program=tuple(argv),
            environment=environment,
        )

    def children(self) -> Iterator[psutil.Process]:
        """The server's own processes below the supervisor."""
        if self.running:
            with contextlib.suppress(psutil.NoSuchProcess):
                yield from psutil.Process(self.pid).children(recursive=True)

    def events(self, name: str) -> list[dict[str, Any]]:
        """What its log has of one event so far. Raises ValueError at a line that is no event."""
        found = []
        for number, line in enumerate(lines := self.log, 1):
            try:
                event = json.loads(line)
            except ValueError:
                if number == len(lines):
                    break  # it is being written
                raise
            if event["event"] == name:
                found.append(event)
        return found

    def modes(self) -> dict[Path, int]:
        """The permissions of its data directory and all that is in there."""
        found = {}
        for path in (self.data, *self.data.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # a journal of SQLite that is gone again
                found[path] = path.stat().st_mode & 0o777
        return found

    def agent(self) -> int | None:
        """Process id of the key agent, or None while it is being restarted."""
        return next(iter(self.pids_titled("relay: key agent")), None)

    def peers_by_worker(self) -> dict[int, set[int]]:
        """Which client ports each worker serves, by the worker's process id."""
        served: dict[int, set[int]] = {}
        for pid in self.worker_pids():
            with contextlib.suppress(psutil.NoSuchProcess):
                served[pid] = {
                    connection.raddr.port
                    for connection in psutil.Process(pid).net_connections("tcp")
                    if connection.status == psutil.CONN_ESTABLISHED
                }
        return served

    def kill_worker(self, index: int = 0) -> None:
        """``kill -9`` of a worker, and wait until another one has taken its place."""
        before = self.worker_pids()
        os.kill(before[index], signal.SIGKILL)
        wait_until(
            lambda: len(now := self.worker_pids()) == len(before) and before[index] not in now,
            "a new worker in its place",
        )
