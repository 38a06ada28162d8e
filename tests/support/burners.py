"""Processes that only use CPU time: what runs beside them runs as on a busy machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

BURNER: Final = """
import os, sys
parent = int(sys.argv[1])
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""
"""It ends with its parent (its argument), however and whenever that ends: also while it starts."""


@contextlib.contextmanager
def burners(count: int) -> Iterator[list[int]]:
    """Start so many, yield their process ids, and end them.

    Each has a session of its own, as attackers and relays have: where the kernel shares the CPU
    between sessions first (sched_autogroup), they would otherwise have less.
    """
    processes = [
        subprocess.Popen([sys.executable, "-c", BURNER, str(os.getpid())], start_new_session=True)
        for _ in range(count)
    ]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
