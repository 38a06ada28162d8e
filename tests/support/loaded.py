"""``relay`` commands in forks of a process that has loaded what all of them load.

Loading is most of what a short command costs, and the tests run hundreds. A fork is a process of
its own as any other: its files, variables, directory, signals and end are its own. It parses, loads
its own command, connects and ends as ever. All that is not started by ``cluster.run_relay`` or
``cluster.start_client``, and whatever has variables that are about the start, is started in the
ordinary way.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

ROOT: Final = Path(__file__).parents[2]
REQUEST_BYTES_MAX: Final = 200_000
AT_THE_START: Final = ("PYTHON", "LC_", "LANG", "LD_", "OPENSSL", "MALLOC", "GLIBC")
"""Variables that an interpreter and its libraries look at when they are started."""
COMMANDS: Final = frozenset(
    {
        "alias",
        "chat",
        "ctl",
        "device",
        "history",
        "invite",
        "register",
        "room",
        "send",
        "tail",
        "user",
    }
)
"""Those of clients. The server's own, such as serve, load something else, and in their order."""


@functools.cache
def loader(_pid: int) -> Loader:
    """Return that of the process with this id: a fork of the tests makes its own."""
    return Loader()


class Loader:
    """In the tests: the process that has loaded everything."""

    def __init__(self) -> None:
        """Start it."""
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._variables = at_the_start(os.environ)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # of the kind that a command's output is
                stderr=None,
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
            )
        self._lock = threading.Lock()
        self._pid = os.getpid()
        atexit.register(self._end)

    def _end(self) -> None:
        if self._pid == os.getpid():  # not in a fork of the tests
            self._ours.close()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def fits(self, arguments: Sequence[str], environment: dict[str, str]) -> bool:
        """Tell whether a command can be a fork of it: nothing is about the start."""
        return (
            not COMMANDS.isdisjoint(arguments[:1]) and at_the_start(environment) == self._variables
        )

    def start(
        self, arguments: Sequence[str], environment: dict[str, str], *, typed: bool
    ) -> Forked:
        """Start a command.

        Args:
            arguments: of ``relay``.
            environment: all of its variables.
            typed: it has a pipe for its input; otherwise nothing.
        """
        request = {
            "arguments": list(arguments),
            "environment": environment,
            "directory": str(Path.cwd()),
        }
        data = json.dumps(request).encode()
        in_read, in_write = os.pipe() if typed else (os.open(os.devnull, os.O_RDONLY), None)
        (out_read, out_write), (err_read, err_write), (told_read, told_write) = (
            os.pipe() for _ in range(3)
        )
        given = [in_read, out_write, err_write, told_write]
        with self._lock:
            socket.send_fds(self._ours, [data], given)
        for fd in given:
            os.close(fd)
        return Forked(["relay", *arguments], in_write, out_read, err_read, told_read)

    def run(
        self, arguments: Sequence[str], text: str, environment: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as ``subprocess.run`` would.

        Raises:
            subprocess.TimeoutExpired: it did not end in time, and was killed.
        """
        process = self.start(arguments, environment, typed=True)
        assert process.stdin is not None
        read: dict[IO[str], str] = {}

        def collect(file: IO[str]) -> None:
            with file:
                read[file] = file.read()

        def write(file: IO[str]) -> None:
            try:
                with file:
                    file.write(text)
            except BrokenPipeError:
                pass  # as subprocess does

        threads = [
            threading.Thread(target=collect, args=(process.stdout,)),
            threading.Thread(target=collect, args=(process.stderr,)),
            threading.Thread(target=write, args=(process.stdin,)),
        ]
        for thread in threads:
            thread.start()
        try:
            status = process.wait(timeout_s)
        finally:
            process.kill()
            process.wait()
            for thread in threads:
                thread.join()
        return subprocess.CompletedProcess(
            process.args, status, read[process.stdout], read[process.stderr]
        )


class Forked:
    """A command that was started: what tests use of ``subprocess.Popen``, with text on pipes."""

    def __init__(
        self, args: list[str], stdin: int | None, stdout: int, stderr: int, told: int
    ) -> None:
        """Take over the ends of its pipes; ``told``: gives its process id, then its status."""
        self.args = args
        self.stdin = None if stdin is None else os.fdopen(stdin, "w")
        self.stdout = os.fdopen(stdout)
        self.stderr = os.fdopen(stderr)
        self.returncode: int | None = None
        self._told = os.fdopen(told, "rb", buffering=0)
        self.pid = int(self._told.readline())

    def poll(self) -> int | None:
        """Return its status, as Popen's: None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired: it goes on."""
        status = self._ended(timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """TERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """``kill -9``."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()  # not select, which takes low descriptors alone
            poll.register(self._told, select.POLLIN)
            if poll.poll(None if timeout is None else timeout * 1000):
                with self._told as told:
                    self.returncode = int(told.readline())
        return self.returncode


def at_the_start(environment: Any) -> dict[str, str]:  # noqa: ANN401
    """Return the variables that an interpreter looks at when it is started."""
    return {name: environment[name] for name in environment if name.startswith(AT_THE_START)}


def serve(listener: socket.socket) -> int:
    """In the process that has loaded everything: fork. Returns, in a fork, its exit code."""
    import relay.cli.connecting
    import relay.cli.main  # noqa: F401
    from relay.cli.__main__ import main

    gc.collect()
    gc.freeze()
    wake_read, wake_write = socket.socketpair()
    for end in (wake_read, wake_write):
        end.setblocking(False)
    signal.set_wakeup_fd(wake_write.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if wake_read in ready:
                wake_read.recv(4096)
                _report(running)
            if listener not in ready:
                continue
            data, given, _, _ = socket.recv_fds(listener, REQUEST_BYTES_MAX, 4)
            if not data:
                return 0
            pid = os.fork()
            if pid == 0:
                break
            for fd in given[:3]:
                os.close(fd)
            running[pid] = given[3]
            os.write(given[3], b"%d\n" % pid)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for one in (listener, wake_read, wake_write):
        one.close()
    for fd in [*running.values(), given[3]]:
        os.close(fd)
    request = json.loads(data)
    _become(given[:3], request["environment"], request["directory"])
    sys.argv[1:] = request["arguments"]
    return main()


def _report(running: dict[int, int]) -> None:
    """Tell of each that has ended how it did."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        fd = running.pop(pid)
        os.write(fd, b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(fd)


def _become(files: list[int], environment: dict[str, str], directory: str) -> None:
    for number, fd in enumerate(files):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace")
    sys.stdout.reconfigure(write_through=unbuffered)
    sys.stderr.reconfigure(line_buffering=True, write_through=unbuffered)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(serve(socket.socket(fileno=int(sys.argv.pop()))))
