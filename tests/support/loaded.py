"""``relay`` commands in forks of a process that has loaded what all of them load.

Loading is most of what a short command costs, and the tests run hundreds. A fork is a process of
its own as any other: its files, variables, directory, signals and end are its own. It parses, loads
its own command, connects and ends as ever. All that is not run to its end by ``cluster.run_relay``,
and whatever has variables that are about the start, is started in the ordinary way.
"""

from __future__ import annotations

import atexit
import functools
import gc
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

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

    def run(
        self, arguments: Sequence[str], text: str, environment: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as ``subprocess.run`` would.

        Raises:
            subprocess.TimeoutExpired: it did not end in time, and was killed.
        """
        request = {
            "arguments": list(arguments),
            "environment": environment,
            "directory": str(Path.cwd()),
        }
        data = json.dumps(request).encode()
        pipes = [os.pipe() for _ in range(4)]
        (
            (in_read, in_write),
            (out_read, out_write),
            (err_read, err_write),
            (told_read, told_write),
        ) = pipes
        given = [in_read, out_write, err_write, told_write]
        with self._lock:
            socket.send_fds(self._ours, [data], given)
        for fd in given:
            os.close(fd)
        read: dict[int, bytes] = {}

        def collect(fd: int) -> None:
            with os.fdopen(fd, "rb") as file:
                read[fd] = file.read()

        def write() -> None:
            with os.fdopen(in_write, "wb", buffering=0) as file:
                left = memoryview(text.encode())
                try:
                    while left:
                        left = left[file.write(left) :]
                except BrokenPipeError:
                    pass  # as subprocess does

        threads = [threading.Thread(target=collect, args=(fd,)) for fd in (out_read, err_read)]
        threads.append(threading.Thread(target=write))
        for thread in threads:
            thread.start()
        with os.fdopen(told_read, "rb") as told:
            pid = int(told.readline())
            killer = threading.Timer(timeout_s, os.kill, (pid, signal.SIGKILL))
            killer.start()
            status = int(told.readline())
            late = killer.finished.is_set()
            killer.cancel()
            killer.join()
        for thread in threads:
            thread.join()
        command = ["relay", *arguments]
        if late:
            raise subprocess.TimeoutExpired(command, timeout_s)
        out, err = (io.TextIOWrapper(io.BytesIO(read[fd])).read() for fd in (out_read, err_read))
        return subprocess.CompletedProcess(command, status, out, err)


def at_the_start(environment: Any) -> dict[str, str]:  # noqa: ANN401
    """Return the variables that an interpreter looks at when it is started."""
    return {name: environment[name] for name in environment if name.startswith(AT_THE_START)}


def serve(listener: socket.socket) -> int:
    """In the process that has loaded everything: fork. Returns, in a fork, its exit code."""
    import relay.cli.connecting  # noqa: F401
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
