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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import psutil

from relay.testing import RelayServer
from tests.support.loaded import COMMANDS, RELAY, Forked, Loader, loader

ROOT = Path(__file__).parents[2]
COMMAND_S = 240.0
"""For a command that is to end by itself."""
DEADLINE_S = 60.0
"""Generous: for waiting on an event that must come, never a measure of speed."""


PAUSE_S, PAUSE_S_MAX = 0.01, 0.1
"""Between two looks at what is waited for, and if a look takes long, five times as long as that:
what takes it would be slower for being looked at all the time."""


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll for a condition of another process; fail after the deadline."""
    for pause_s in _looks(condition, what, deadline_s):
        time.sleep(pause_s)


async def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """As ``wait_until``, letting the event loop run."""
    for pause_s in _looks(condition, what, deadline_s):
        await asyncio.sleep(pause_s)


def _looks(condition: Callable[[], object], what: str, deadline_s: float) -> Iterator[float]:
    """Check until it is true; each time it is not, yield how long to pause."""
    deadline = time.monotonic() + deadline_s
    while True:
        began = time.monotonic()
        if condition():
            return
        ended = time.monotonic()
        if ended > deadline:
            raise AssertionError(f"not within {deadline_s} s: {what}")
        yield min(PAUSE_S_MAX, max(PAUSE_S, 5 * (ended - began)))


def relay_command(*args: str | os.PathLike[str]) -> list[str]:
    """The command line of the console program, run by this interpreter."""
    return [sys.executable, "-m", "relay.cli", *(os.fspath(arg) for arg in args)]


def _python_path() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}


def fitting(arguments: Sequence[str], environment: Mapping[str, str]) -> Loader | None:
    """Return the process that a ``relay`` command with these variables may be forked
    from, or None.
    """
    kind = COMMANDS.get(arguments[0]) if arguments else None
    if kind is None or not loader(kind).fits(environment):
        return None
    return loader(kind)


def run_relay(
    *args: str | os.PathLike[str], text: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a ``relay`` command to its end; see ``loaded``.

    Raises:
        subprocess.TimeoutExpired: it did not end in ``COMMAND_S``, and was killed.
    """
    environment = {**os.environ, **(env or {})}
    arguments = [os.fspath(arg) for arg in args]
    if has_loaded := fitting(arguments, environment):
        return has_loaded.run(arguments, text, environment, COMMAND_S)
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
        typed: it has a pipe for its input; otherwise no input.
        env: variables besides those of this process.
    """
    environment = {**os.environ, **(env or {})}
    if has_loaded := fitting(args, environment):
        return has_loaded.command(args, environment, typed=typed)
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

    Except that anybody may register or be a guest: most tests are about something else.
    """

    forked: ClassVar[bool] = False
    """True in the tests: a start is a fork of what has loaded the program (``loaded``), unless it
    is of another interpreter, another source, by a launcher, or ``fresh``."""

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
        fresh: bool = False,
    ) -> None:
        """Prepare; ``with`` starts it.

        Args:
            data: its data directory.
            flags: more flags.
            bind: where to listen.
            workers: how many.
            settings: by their names, for what has no flag.
            launcher: Python code that runs first, in the process that then becomes the server.
            fresh: in an interpreter of its own in any case: its memory is measured.
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
        self._ordinary = fresh or bool(launcher) or source != ROOT or python != sys.executable
        self._module, program = RELAY, "relay.cli"
        if fault:
            self._module = program = "tests.support.faulty"
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

    def _launch(
        self, command: Sequence[str], environment: Mapping[str, str], log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        rest = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        fits = not self._ordinary and self.forked
        if not fits or not loader("servers").fits(rest | _python_path()):
            return super()._launch(command, environment, log)
        read_fd, write_fd = os.pipe()
        with Path(os.devnull).open("rb") as nothing:
            files = nothing.fileno(), write_fd, log.fileno()
            started = loader("servers").start(
                self._module,
                command[len(self._program) :],
                environment,
                self._scratch,
                files,
                session=True,
            )
        os.close(write_fd)
        started.stdout = os.fdopen(read_fd)
        return cast("subprocess.Popen[bytes]", started)

    def children(self) -> Iterator[psutil.Process]:
        """The server's own processes below the supervisor; one that has ended until it has noticed
        that.
        """
        if self.running:
            with contextlib.suppress(psutil.NoSuchProcess):
                yield from psutil.Process(self.pid).children(recursive=True)

    @property
    def log(self) -> list[str]:
        """The lines of its log so far. A test that looks after the end would see nothing in it."""
        assert self._log.exists(), "it is closed: look at its log before"
        return super().log

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what its log has of one event so far. Raises ValueError at a line that is not an
        event.
        """
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

    def live_workers(self) -> list[int]:
        """Process ids of the workers without those that have ended, noticed or not."""
        return [pid for pid in self.worker_pids() if not _has_ended(pid)]

    def agent(self) -> int | None:
        """Process id of the key agent, or None while it is being restarted."""
        return next(iter(self.pids_titled("relay: key agent")), None)

    def only(self, title: str) -> int:
        """Process id of the only process with this title. (A fork has the title of its parent at
        first.)
        """
        found: list[int] = []

        def one() -> bool:
            found[:] = self.pids_titled(title)
            return len(found) == 1

        wait_until(one, f"one process with the title {title}")
        return found[0]

    def peers_by_worker(self) -> dict[int, set[int]]:
        """Which client ports each worker serves, by the worker's process id."""
        served: dict[int, set[int]] = {}
        for pid in self.live_workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                served[pid] = {
                    connection.raddr.port
                    for connection in psutil.Process(pid).net_connections("tcp")
                    if connection.status == psutil.CONN_ESTABLISHED
                }
        return served

    def kill_worker(self, *numbers: int) -> None:
        """``kill -9`` of workers, by default of the first one, and wait until others have taken
        their places. (To wait for as many as before would be no wait: the killed ones count.)
        """
        before = self.worker_pids()
        killed = {before[number] for number in numbers or (0,)}
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: len(now := self.worker_pids()) == len(before) and not killed & set(now),
            "new workers in their places",
        )

    def kill_workers(self) -> None:
        """``kill -9`` of all workers at once; otherwise as ``kill_worker``."""
        self.kill_worker(*range(len(self.worker_pids())))

    def kill_agent(self) -> None:
        """``kill -9`` of the key agent, and wait until another one serves."""
        killed, served = self.agent(), len(self.events("agent_ready"))
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: len(self.events("agent_ready")) > served, "another key agent")


def _has_ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
