"""The clock of pytest-benchmark: CPU time of a server's processes."""

from __future__ import annotations

import time

from tests.support.processes import Processes


class CpuClock:
    """A timer for pytest-benchmark: the CPU seconds of whichever server is being measured.

    The mark on a test is made before its server runs, so the clock is told later whom to watch.
    """

    def __init__(self) -> None:
        self._watched: Processes | None = None

    def watch(self, processes: Processes | None) -> None:
        """Show these processes' CPU time from now on."""
        self._watched = processes

    def __call__(self) -> float:
        """Return CPU seconds; of this process while none is watched."""
        return self._watched() if self._watched is not None else time.process_time()


server_cpu = CpuClock()
