"""CPU and memory of other processes, as the kernel accounts them.

A server's cost is the sum over *all* of its processes: supervisor, key agent, workers.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil


def cpu_ns(pid: int) -> int:
    """Return a process's user and system time, all threads, in ns.

    ``(~pid << 3) | 2`` is Linux's clock id of another process's CPU time (clock_getcpuclockid).

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def own_bytes(pid: int) -> int:
    """Return the memory that a process has allocated and uses, without mapped files such as
    libraries.

    The allocator keeps some of what was freed, by no rule: compare this only with much more.

    Raises:
        OSError: there is no such process.
    """
    with Path(f"/proc/{pid}/status").open() as status:
        line = next(line for line in status if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


class Scheduled(NamedTuple):
    """What the kernel's scheduler has counted for a thread, in ns."""

    ran_ns: int
    waited_ns: int
    """Ready to run, while others had the CPU."""


def scheduled(pid: int) -> Scheduled:
    """Return the times of a process's main thread: of a worker, its loop.

    Raises:
        OSError: there is no such process.
    """
    ran, waited, _ = Path(f"/proc/{pid}/task/{pid}/schedstat").read_bytes().split()
    return Scheduled(int(ran), int(waited))


class Processes:
    """A server's processes: a root and everything below it. Callable: their CPU time in seconds.

    The list is updated only by ``refresh``; the CPU time of a process that has ended is lost.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.pids: list[int] = []
        self.refresh()

    def refresh(self) -> None:
        """Look again which processes there are."""
        root = psutil.Process(self.root)
        self.pids = [self.root, *(child.pid for child in root.children(recursive=True))]

    def __call__(self) -> float:
        """Return the CPU time of all processes so far, in seconds."""
        return sum(map(cpu_ns, self.pids)) / 1e9

    def pin(self, cores: Iterable[int]) -> None:
        """Let all processes, and all threads of theirs, run on these cores alone."""
        wanted = set(cores)
        for pid in self.pids:
            for thread in psutil.Process(pid).threads():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(thread.id, wanted)

    def memory(self) -> dict[str, int]:
        """Return the bytes of all processes: ``pss`` (shared pages by share), ``uss``, ``rss``."""
        total = {"pss": 0, "uss": 0, "rss": 0}
        for pid in self.pids:
            info = psutil.Process(pid).memory_full_info()
            for kind in total:
                total[kind] += getattr(info, kind)
        return total
