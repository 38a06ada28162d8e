"""Forks a child, reads its report, and reaps it."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

import setproctitle

from relay.refused_calls import FILTER
from relay.server import boot_report, logs
from relay.server.boot_report import BootReport
from relay.server.supervisor.signals import block_all, restore
from relay.server.system.prctl import die_with_parent
from relay.server.system.resource_limits import OUT_OF_MEMORY, more_memory

BLIND_S: Final = 0.1
"""Polling interval where the kernel refuses to wait for this many descriptors."""
log = logging.getLogger("relay.supervisor")


class Exit(NamedTuple):
    """How a process ended: its exit code, or minus the signal that killed it."""

    code: int

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exit code {self.code}"
        try:
            return f"signal {signal.Signals(-self.code).name}"
        except ValueError:
            return f"signal {-self.code}"

    @property
    def before_ready(self) -> str:
        """How a process ended that never was ready, and what to do if that is known."""
        if self.code == OUT_OF_MEMORY:
            return f"it was refused memory: {more_memory()}"
        text = f"it ended with {self} before it was ready"
        if self.code == -signal.SIGKILL:
            text += f"; if the kernel has killed it because memory ran out, {more_memory()}"
        if self.code == -signal.SIGSYS:
            text += f": {FILTER}"
        if self.code == -signal.SIGABRT:
            text += f": a library ended it, for the reason that it has printed; perhaps {FILTER}"
        return text


@dataclass(slots=True)
class Process:
    """A running child, and the pipe on which it reports that it is ready or why it cannot be."""

    pid: int
    ready_fd: int
    """-1 once the pipe is closed."""
    buffered: bytes = b""

    def read(self) -> str | None:
        """Read the pipe. Returns the child's line once it is complete, else None."""
        while self.ready_fd >= 0:
            try:
                data = os.read(self.ready_fd, boot_report.BYTES_MAX)
            except BlockingIOError:
                break
            self.buffered += data
            if not data or len(self.buffered) > boot_report.BYTES_MAX:
                self.close()
        line, newline, self.buffered = self.buffered.partition(b"\n")
        if newline:
            return line.decode(errors="replace")
        self.buffered = line
        return None

    def close(self) -> None:
        """Close the pipe."""
        if self.ready_fd >= 0:
            os.close(self.ready_fd)
            self.ready_fd = -1


def fork(title: str, main: Callable[[BootReport], int], reset: Callable[[], None]) -> Process:
    """Fork a child that runs ``main(boot)`` and exits with the code that it returns.

    ``reset`` is called first in the child: it closes what only the supervisor uses.

    Raises:
        OSError: the system has no process, memory or descriptor left for it.
    """
    parent = os.getpid()
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_fd, False)
    # A signal between the fork and ``reset`` would run the supervisor's handler in the child.
    mask = block_all()
    try:
        pid = os.fork()
        if pid == 0:
            _run_child(title, main, BootReport(write_fd), read_fd, reset, parent, mask)
    except OSError:
        os.close(read_fd)
        raise
    finally:
        restore(mask)
        os.close(write_fd)
    return Process(pid, read_fd)


def _run_child(
    title: str,
    main: Callable[[BootReport], int],
    boot: BootReport,
    read_fd: int,
    reset: Callable[[], None],
    parent: int,
    mask: set[signal.Signals],
) -> NoReturn:
    code = 1
    try:
        reset()
        os.close(read_fd)
        restore(mask)
        die_with_parent(parent)
        set_title(title)
        code = boot_report.booted(boot, lambda: main(boot))
        logs.report_left_out(math.inf)
    except MemoryError:
        code = OUT_OF_MEMORY
        with contextlib.suppress(Exception):  # logging needs memory, too
            log.error("memory_exhausted")
    except BaseException:
        log.critical("process_failed", exc_info=True)
    finally:
        # Not sys.exit: the call stack with its clean-ups, and data buffered in streams, belong to
        # the supervisor. The log buffers nothing.
        os._exit(code)


def spawn(
    command: Sequence[str], environ: Mapping[str, str], descriptors: Sequence[int], stderr: int
) -> int:
    """Fork a child that executes another program and dies with this process; return its id.

    Args:
        command: the program and its arguments.
        environ: its environment.
        descriptors: inherited by it.
        stderr: its stderr; also receives the reason if it cannot start.

    Raises:
        OSError: the system has no process or memory left for it.
    """
    parent = os.getpid()
    mask = block_all()  # the child never unblocks them: the program does
    try:
        pid = os.fork()
        if pid == 0:
            _become(command, environ, descriptors, stderr, parent)
    finally:
        restore(mask)
    return pid


def _become(
    command: Sequence[str],
    environ: Mapping[str, str],
    descriptors: Sequence[int],
    stderr: int,
    parent: int,
) -> NoReturn:
    try:
        die_with_parent(parent)
        os.dup2(stderr, 2)
        for fd in descriptors:
            os.set_inheritable(fd, True)
        os.execve(command[0], list(command), environ)  # noqa: S606  # it needs no shell
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode(errors="backslashreplace"))
    finally:
        os._exit(1)


def wait_readable(fds: Sequence[int], timeout_s: float) -> None:
    """Wait until a descriptor is readable, a signal arrives, or the timeout expires."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    try:
        poll.poll(timeout_s * 1000 + 1)
    except OSError:  # the limit on open files was lowered below the number of open ones
        time.sleep(min(timeout_s, BLIND_S))


def send(pid: int, number: int) -> None:
    """Send a signal to a child that was not reaped yet, so that its id is still valid.

    A stopped process only sees the signal when it runs again, so it is continued, as systemd does.
    """
    os.kill(pid, number)
    os.kill(pid, signal.SIGCONT)


def set_title(title: str) -> None:
    """Set this process's title, for process lists."""
    setproctitle.setproctitle(title)


def reap() -> list[tuple[int, Exit]]:
    """Return (pid, exit) of children that ended; as process 1 of a container, also of orphans."""
    ended = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        ended.append((pid, Exit(os.waitstatus_to_exitcode(status))))
    return ended
