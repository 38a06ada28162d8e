"""A server's memory while something happens: sampled by a thread, 4 times a second.

USS is what a process would give back if it ended: its own pages, none that are shared.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil

EVERY_S: Final = 0.25
PAGE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Memory:
    """One sample, or the highest of several, in bytes."""

    uss: dict[int, int]
    """By process id."""
    tcp: int
    """Buffers of all TCP sockets of the machine: of the server, the load, and everybody else."""


def sample(pids: list[int]) -> Memory:
    """Take one sample. A process that has ended has nothing."""
    uss: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            uss[pid] = psutil.Process(pid).memory_full_info().uss
    return Memory(uss, _tcp_bytes())


def _tcp_bytes() -> int:
    for line in Path("/proc/net/sockstat").read_text(encoding="ascii").splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * PAGE_BYTES
    return 0


class MemoryWatch:
    """A context manager: ``peak`` and ``grown`` speak of the time inside it."""

    def __init__(self, pids: list[int]) -> None:
        """Watch these processes."""
        self._pids = pids
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Take the first sample, with which the others are compared."""
        self.first = self.last = sample(self._pids)
        self.peak = self.first
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Take the last one."""
        self._stop.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        self.last = now = sample(self._pids)
        self.peak = Memory(
            {pid: max(size, self.peak.uss.get(pid, 0)) for pid, size in now.uss.items()},
            max(now.tcp, self.peak.tcp),
        )

    def growth_now_mb(self) -> float:
        """Return the growth of all processes since the beginning."""
        return _mb(sum(sample(self._pids).uss.values()) - sum(self.first.uss.values()))

    def figures(self) -> dict[str, float]:
        """Return MB: all workers at the beginning, their growth at the peak and at the end."""
        first, peak, last = self.first.uss, self.peak.uss, self.last.uss
        grown = [size - first.get(pid, 0) for pid, size in peak.items()]
        return {
            "uss_before_mb": _mb(sum(first.values())),
            "uss_peak_growth_mb": _mb(sum(grown)),
            "uss_peak_growth_of_a_worker_mb": _mb(max(grown)),
            "uss_end_growth_mb": _mb(sum(last.values()) - sum(first.values())),
            "kernel_tcp_peak_growth_mb": _mb(self.peak.tcp - self.first.tcp),
        }


def _mb(size: int) -> float:
    return round(size / 1e6, 2)
