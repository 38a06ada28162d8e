"""``relay serve`` as a child process, on a free port, in a temporary directory."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Self

from relay import forks
from relay.client.address import Address, parse_address
from relay.testing import processes, watcher

START_TIMEOUT_S: Final = 60.0
"""A start takes about half a second; a busy machine may be a hundred times slower."""
STOP_TIMEOUT_S: Final = 60.0
"""Longer than the server's own graceful timeout."""
UNSEEN: Final[Mapping[str, object]] = {"control.bind": "off"}
"""Several relays at once must not compete for the default port for metrics."""
QUICK: Final[Mapping[str, object]] = {
    "server.key_bits": 2048,
    "server.graceful_timeout_s": 5,
    "accounts.registration": "open",
}
"""Settings that differ from the defaults of ``relay serve``: a small key is faster to create and
use, and any free name may be registered."""
PROGRAM: Final = (sys.executable, "-m", "relay.cli")
LOG_LINES_SHOWN: Final = 20
_ADDRESS: Final = re.compile(r"relay://[a-z2-7]{52}@\S+")
_OTHERS: Final = ("WEB_CONCURRENCY", "STATE_DIRECTORY")
"""Variables without the prefix RELAY_ that affect the server's settings."""


class RelayNotStarted(RuntimeError):
    """The server is not running; the text contains its status and the end of its log."""


class RelayNotStopped(RuntimeError):
    """The server did not stop after SIGTERM and was killed; the text has the end of its log."""


class RelayServer:
    """A relay: start, stop, start again on the same port with the same messages.

    A context manager, ``with`` or ``async with``: it serves inside, and afterwards its processes
    and its temporary directory are gone. Settings only come from here: environment variables that
    ``relay serve`` would use are removed. Methods block; in a coroutine use ``await
    asyncio.to_thread(server.stop)``.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        data: Path | None = None,
        bind: str = "127.0.0.1:0",
        settings: Mapping[str, object] | None = None,
        quick: bool = True,
        flags: Sequence[str] = (),
        program: Sequence[str] = PROGRAM,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Create; nothing runs yet.

        Args:
            workers: number of worker processes.
            data: the data directory; None: a temporary one, removed at the end.
            bind: HOST:PORT to listen on; port 0: a free one, kept when it is started again.
            settings: by their names in docs/settings.md: ``{"server.keepalive_s": 0.5}``.
            quick: start with ``QUICK``; False: with the defaults of ``relay serve``.
            flags: further flags for ``relay serve``.
            program: what to run as ``relay``; this interpreter's by default.
            environment: further environment variables.
        """
        self.workers = workers
        self._bind = bind
        self._flags = tuple(flags)
        self._program = tuple(program)
        self._environment = _environment(
            {**UNSEEN, **(QUICK if quick else {}), **(settings or {})}, environment or {}
        )
        self._scratch = Path(tempfile.mkdtemp(prefix="relay-testing-"))
        self._remove_scratch = weakref.finalize(
            self, shutil.rmtree, self._scratch, ignore_errors=True
        )
        self._data = data if data is not None else self._scratch / "data"
        self._log = self._scratch / "relay.log"
        self._log.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._announced = ""
        self._address: Address | None = None
        forks.register(self)

    # --- life -------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start it, and return when it serves. After ``stop``: the same port, and the same data.

        Raises:
            RelayNotStarted: it exited instead, or did not serve within ``START_TIMEOUT_S``.
        """
        if self._process is not None:
            raise RelayNotStarted("it was started already")
        if not self._remove_scratch.alive:
            raise RelayNotStarted("it is closed; make another one")
        if sys.platform != "linux":
            raise RelayNotStarted(f"the server needs Linux; this is {sys.platform}")
        command = [*self._program, "serve", "--bind", self._bind, "--data", str(self._data)]
        command += ["--workers", str(self.workers), *self._flags]
        with self._log.open("ab") as log:
            self._process = self._launch(command, self._environment, log)
        atexit.register(self.kill)
        try:
            self._watcher = _watcher(self._process.pid, self._scratch)
            self._announced = self._await_announcement(self._process)
        except BaseException:
            self.kill()
            raise
        found = _ADDRESS.search(self._announced)
        assert found is not None
        self._address = parse_address(found.group())
        host, _, port = self._bind.rpartition(":")
        if port == "0":
            self._bind = f"{host}:{self._address.port}"

    def _launch(
        self, command: Sequence[str], environment: Mapping[str, str], log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        """Start the supervisor's process, with a pipe for its output."""
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            # Not the caller's: python -m would use a package relay/ there.
            cwd=self._scratch,
            # An interrupt is for the tests, which then stop it.
            start_new_session=True,
        )

    def _await_announcement(self, process: subprocess.Popen[bytes]) -> str:
        """Return what it prints once it serves: one write, whose last line contains no address."""
        assert process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        read = b""
        while not _ADDRESS.search(text := read.decode(errors="replace")):
            left_s = deadline - time.monotonic()
            if not select.select([process.stdout], [], [], max(left_s, 0.0))[0]:
                raise RelayNotStarted(
                    self._with_log(f"relay serve does not serve after {START_TIMEOUT_S:.0f} s")
                )
            more = os.read(process.stdout.fileno(), 65_536)
            if not more:
                status = process.wait()
                raise RelayNotStarted(self._with_log(f"relay serve ended with status {status}"))
            read += more
        return text

    def stop(self) -> int | None:
        """Stop it as an operator does, by SIGTERM, and wait. Does nothing if it was not started.

        Returns:
            Its exit status: 0 if all went well; below 0 if a signal had ended it before.

        Raises:
            RelayNotStopped: it did not stop within ``STOP_TIMEOUT_S`` and was killed.
        """
        process = self._process
        if process is None:
            return None
        process.terminate()
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise RelayNotStopped(
                self._with_log(f"relay serve did not end within {STOP_TIMEOUT_S:.0f} s")
            ) from None
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill all of its processes by SIGKILL, like a crash of the machine."""
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.kill)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        watching, self._watcher = self._watcher, None
        if watching is not None:
            watching.wait()  # it notices the end itself

    def close(self) -> None:
        """Stop it permanently; the temporary directory is removed."""
        try:
            self.stop()
        finally:
            self._remove_scratch()

    def _forked(self) -> None:
        """This is a copy in a forked child: whatever ends there, the parent's relay goes on."""
        atexit.unregister(self.kill)
        self._remove_scratch.detach()
        for process in (self._process, self._watcher):
            if process is not None:
                process.returncode = 0  # nobody here waits for it
        self._process = self._watcher = None

    def __enter__(self) -> Self:
        """Start it. Raises RelayNotStarted."""
        try:
            self.start()
        except BaseException:
            self._remove_scratch()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop it, and leave nothing behind."""
        self.close()

    async def __aenter__(self) -> Self:
        """Start it, while the loop runs. Raises RelayNotStarted."""
        import asyncio  # a blocking program does not need it

        starting = asyncio.ensure_future(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread cannot be cancelled: wait for it, and undo its work.
            await asyncio.wait([starting])
            if starting.exception() is None:
                await asyncio.to_thread(self.close)
            raise

    async def __aexit__(self, *exc: object) -> None:
        """Stop it, while the loop runs."""
        import asyncio

        await asyncio.to_thread(self.close)

    # --- properties ---------------------------------------------------------------------------
    @property
    def address(self) -> str:
        """The address for clients:

        ``relay://FINGERPRINT@HOST:PORT``; known after the first start.
        """
        return str(self._known_address())

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for programs under test.

        They find the relay through RELAY_ADDRESS; clients without a device key create one in a
        directory of this relay, and claim their name.
        """
        return {
            "RELAY_ADDRESS": self.address,
            "RELAY_KEYS": str(self._scratch / "keys"),
            "RELAY_REGISTER": "1",
        }

    @property
    def host(self) -> str:
        """The host that it listens on."""
        return self._known_address().host

    @property
    def port(self) -> int:
        """The port that it listens on; the same after another start."""
        return self._known_address().port

    def _known_address(self) -> Address:
        if self._address is None:
            raise RelayNotStarted("it has no address before it is started")
        return self._address

    @property
    def data(self) -> Path:
        """Its data directory: the messages and its key."""
        return self._data

    @property
    def announced(self) -> list[str]:
        """The lines that it printed when it was ready."""
        return self._announced.splitlines()

    @property
    def log(self) -> list[str]:
        """The lines of its log so far, over all starts; empty once it is closed."""
        try:
            return self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []

    @property
    def running(self) -> bool:
        """False before it is started, and after it has ended in any way."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of its supervisor.

        Raises:
            RelayNotStarted: it is not running.
        """
        if self._process is None:
            raise RelayNotStarted("it does not run")
        return self._process.pid

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers, by their numbers: for tests that kill one.

        One that has ended is among them until the relay has noticed it.
        """
        return [] if self._process is None else processes.workers(self._process.pid)

    def pids_titled(self, text: str = "") -> list[int]:
        """Return the process ids of its processes whose title contains this text.

        One that has ended is among them until the process that has started it has noticed it.
        """
        # ``start`` has created its session, which none of its processes leaves.
        return [] if self._process is None else processes.titled(self._process.pid, text)

    def _with_log(self, what: str) -> str:
        lines = self.log[-LOG_LINES_SHOWN:]
        return "\n  ".join([f"{what}; the end of its log:" if lines else what, *lines])


def _watcher(pid: int, scratch: Path) -> subprocess.Popen[bytes] | None:
    """Start a process that stops a relay when this process ends, in any way.

    Returns:
        None: the relay has ended already, or the kernel has no such descriptors (before Linux 5.3).
    """
    descriptors: list[int] = []
    try:
        descriptors.append(os.pidfd_open(os.getpid()))
        descriptors.append(os.pidfd_open(pid))
        return subprocess.Popen(
            [sys.executable, "-I", "-S", watcher.__file__, *map(str, descriptors), str(scratch)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=descriptors,
            cwd="/",
            # A signal to the program's whole group must not end this.
            start_new_session=True,
        )
    except OSError:
        return None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _environment(settings: Mapping[str, object], more: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the server's process."""
    found = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RELAY_") and name not in _OTHERS
    }
    package = Path(__file__).parents[2]
    if str(package) not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        # From a checkout: the server uses the package that was imported here.
        rest = found.get("PYTHONPATH")
        found["PYTHONPATH"] = f"{package}{os.pathsep}{rest}" if rest else str(package)
    for name, value in settings.items():
        section, dot, key = name.partition(".")
        if not dot:
            raise ValueError(f"{name}: a setting's name is SECTION.KEY, as in server.keepalive_s")
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        found[f"RELAY_{section.upper()}__{key.upper()}"] = text
    return found | dict(more)
