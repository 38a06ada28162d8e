"""A process of the load, and the pipe to it."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Callable

from tests.support.processes import cpu_ns

END_S = 10.0
"""For a process to see that its pipe is closed; then it is killed."""


class Spawned:
    """A process that is started with its end of a pipe, and ends when ours is closed."""

    def __init__(self, main: Callable[..., None], *args: object) -> None:
        """Start ``main(pipe, *args)``, importable, with room for many sockets."""
        raise_open_files()
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_run, args=(main, theirs, *args), daemon=True)
        self._process.start()
        theirs.close()

    def __exit__(self, *exc: object) -> None:
        """End the process; all connections drop."""
        self._pipe.close()
        self._process.join(END_S)
        self._process.kill()
        self._process.join()

    def cpu_s(self) -> float:
        """Return the CPU seconds that the process has used."""
        assert self._process.pid is not None
        return cpu_ns(self._process.pid) / 1e9


def _run(main: Callable[..., None], *args: object) -> None:
    # A terminal's Ctrl-C reaches everybody; our owner decides what it means, and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(*args)


def raise_open_files() -> None:
    """Let this process and its children open as many sockets as the machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
