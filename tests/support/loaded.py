"""Programs run in forks of a process that has already imported their modules.

Importing takes most of the time of a short command or of a relay's start, and the tests do hundreds
of both. A fork is a separate process with its own files, variables, directory, signals, session and
exit. It parses, starts, connects and exits as usual, except that at its very end it does not take
what it has imported to pieces (``_end_as``). Programs with variables that affect the start
of an interpreter are started normally, as is everything that does not request this.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import termios
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Literal, NoReturn, TypeAlias

import setproctitle

from relay.declarations import declarations

ROOT: Final = Path(__file__).parents[2]
RELAY: Final = "relay.cli.__main__"
"""The module of ``relay``."""
REQUEST_BYTES_MAX: Final = 200_000
AT_THE_START: Final = ("PYTHON", "LC_", "LANG", "LD_", "OPENSSL", "MALLOC", "GLIBC", "TZ")
"""Variables that an interpreter and its libraries look at when they are started."""
Kind: TypeAlias = Literal["commands", "servers", "players"]
LOADED: Final[Mapping[str, Sequence[str]]] = {
    "commands": (
        "click._textwrap",
        "cryptography.hazmat.backends.openssl.backend",
        "encodings.ascii",
        "platformdirs.unix",
        "relay.cli.client_commands.account",
        "relay.cli.client_commands.alias",
        "relay.cli.client_commands.chat",
        "relay.cli.server_commands.config",
        "relay.cli.server_commands.ctl",
        "relay.cli.client_commands.device",
        "relay.cli.client_commands.export",
        "relay.cli.client_commands.history",
        "relay.cli.client_commands.invite",
        "relay.cli.main",
        "relay.cli.client_commands.register",
        "relay.cli.client_commands.room",
        "relay.cli.client_commands.send",
        "relay.cli.client_commands.tail",
        "relay.cli.client_commands.user",
    ),
    "servers": (
        "cryptography.hazmat.backends.openssl.backend",
        "encodings.ascii",
        "encodings.idna",
        "relay.cli.server_commands.serve",
        "relay.server.startup.start",
        "relay.server.worker.process.main",
        "relay.server.agent.main",
        "relay.server.control.main",
        "tests.support.faulty",
    ),
    "players": (
        "cryptography.hazmat.backends.openssl.backend",
        "encodings.ascii",
        "encodings.idna",
        "platformdirs.unix",
        "tests.torture.reader",
        "tests.torture.sender",
        "tests.torture.flood",
        "tests.torture.audience",
    ),
}
"""What programs of a kind have in common, with what they import only when they come to it. A
server's own processes load theirs after their forks; here they find it, and OpenSSL and SQLite, as
nothing but code: nobody has used it before."""
COMMANDS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(
        ("account", "alias", "chat", "config", "ctl", "device", "export", "history", "invite",
         "register", "room", "send", "tail", "user"),
        "commands",
    ),
    **dict.fromkeys(("backup", "data", "key", "serve"), "servers"),
}  # fmt: skip
"""Commands of ``relay`` that are forked, and of what."""


def loader(kind: Kind) -> Loader:
    """Return the loader of this process: a fork of the tests creates its own."""
    return _loader(os.getpid(), kind)


@functools.cache
def _loader(_pid: int, kind: Kind) -> Loader:
    return Loader(kind)


class Loader:
    """The tests' handle of the process that has imported everything."""

    def __init__(self, kind: Kind) -> None:
        """Start it."""
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._variables = at_the_start(os.environ)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, kind, str(theirs.fileno())],
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

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Return True if a program can be a fork of it: no variable affects the interpreter's
        start.
        """
        return at_the_start(environment) == self._variables

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        files: tuple[int, int, int],
        *,
        session: bool = False,
        terminal: bool = False,
    ) -> Forked:
        """Start a program.

        Args:
            module: has a function ``main`` that takes nothing and returns an exit code.
            arguments: of the program.
            environment: all of its variables.
            directory: its current one.
            files: what it has as input, output and for errors; they stay open here.
            session: it leads a session of its own.
            terminal: whose terminal is what it has for errors.
        """
        request = {
            "module": module,
            "arguments": list(arguments),
            "environment": dict(environment),
            "directory": str(directory),
            "session": session,
            "terminal": terminal,
        }
        told_read, told_write = os.pipe()
        with self._lock:
            socket.send_fds(self._ours, [json.dumps(request).encode()], [*files, told_write])
        os.close(told_write)
        return Forked([module, *arguments], told_read)

    def command(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        typed: bool,
        module: str = RELAY,
    ) -> Forked:
        """Start a command, with pipes for its output; ``typed``: for its input, too."""
        in_read, in_write = os.pipe() if typed else (os.open(os.devnull, os.O_RDONLY), None)
        (out_read, out_write), (err_read, err_write) = os.pipe(), os.pipe()
        given = (in_read, out_write, err_write)
        started = self.start(module, arguments, environment, Path.cwd(), given)
        for fd in given:
            os.close(fd)
        if in_write is not None:  # what is no text is written in Python's way (PEP 383)
            started.stdin = os.fdopen(in_write, "w", errors="surrogateescape")
        started.stdout, started.stderr = os.fdopen(out_read), os.fdopen(err_read)
        return started

    def piped(self, module: str, arguments: Sequence[str]) -> Forked:
        """Start a program in a session of its own, with pipes for its input and its output."""
        (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
        started = self.start(
            module, arguments, os.environ, ROOT, (in_read, out_write, 2), session=True
        )
        os.close(in_read)
        os.close(out_write)
        started.stdin, started.stdout = os.fdopen(in_write, "w"), os.fdopen(out_read)
        return started

    def run(
        self,
        arguments: Sequence[str],
        text: str,
        environment: Mapping[str, str],
        timeout_s: float,
        *,
        module: str = RELAY,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as ``subprocess.run`` would.

        Raises:
            subprocess.TimeoutExpired: it did not end in time, and was killed.
        """
        process = self.command(arguments, environment, typed=True, module=module)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
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
            threading.Thread(target=collect, args=(process.stdout,), daemon=True),
            threading.Thread(target=collect, args=(process.stderr,), daemon=True),
            threading.Thread(target=write, args=(process.stdin,), daemon=True),
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
    """A started program: the part of ``subprocess.Popen`` that tests use, with text on pipes."""

    stdin: IO[str] | None = None
    stdout: IO[str] | None = None
    stderr: IO[str] | None = None

    def __init__(self, args: list[str], told: int) -> None:
        """Take over the descriptor that gives its process id, then its status."""
        self.args = args
        self.returncode: int | None = None
        self._told = told
        # Not sooner: one thread may wait while another asks.
        weakref.finalize(self, os.close, told)
        self._lock = threading.Lock()
        self.pid = self._number()

    def _number(self) -> int:
        line = b""
        while not line.endswith(b"\n"):
            line += (byte := os.read(self._told, 1))
            if not byte:
                raise ChildProcessError(f"{self.args}: what has loaded it has ended")
        return int(line)

    def poll(self) -> int | None:
        """Return its status, as Popen's: None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired if it continues."""
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
                with self._lock:
                    if self.returncode is None:
                        self.returncode = self._number()
        return self.returncode


def at_the_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an interpreter reads when it starts."""
    return {name: environment[name] for name in environment if name.startswith(AT_THE_START)}


def serve(kind: str, listener: socket.socket) -> int:
    """Fork on request, in the process that has imported everything. Returns, in a fork, its exit
    code.
    """
    for module in LOADED[kind]:
        importlib.import_module(module)
    declarations()  # kept, as what the modules' own lines compute
    # While it still finds the arguments by the variables: servers name their processes.
    setproctitle.setproctitle(f"loaded for tests: {kind}")
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
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for one in (listener, wake_read, wake_write):
        one.close()
    request = json.loads(data)
    if request["session"]:
        os.setsid()
    if request["terminal"]:
        fcntl.ioctl(given[2], termios.TIOCSCTTY, 0)
    # It is what was asked for from now on: a signal may come.
    os.write(given[3], b"%d\n" % os.getpid())
    for fd in [*running.values(), given[3]]:
        os.close(fd)
    _become(given[:3], request["environment"], request["directory"])
    program = importlib.import_module(request["module"])
    sys.argv[:] = [str(program.__file__), *request["arguments"]]
    # How it would be started again.
    name = request["module"].removesuffix(".__main__")
    sys.orig_argv[:] = [sys.executable, "-m", name, *request["arguments"]]
    code: int | None = program.main()
    return code or 0


def _report(running: dict[int, int]) -> None:
    """Report the status of each fork that has ended."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        fd = running.pop(pid)
        # Who asked for it may have gone.
        with contextlib.suppress(BrokenPipeError):
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


def _end_as(code: int) -> NoReturn:
    """End this process as an interpreter ends, up to where it would clear all modules.

    That would write to nearly each page that the fork shares, and copy it: more than half of what a
    short command costs. Threads are joined, exit handlers run, garbage is finalized, and output is
    flushed; what cannot be flushed is left to the interpreter, which has its own way to report it.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing does in its forks
    atexit._run_exitfuncs()
    gc.collect()
    with contextlib.suppress(OSError, ValueError):
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _end_as(serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2]))))
