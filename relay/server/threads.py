"""Pools of threads that all run from the beginning."""

from __future__ import annotations

import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from relay.errors import StartError

_MEMORY: Final = ((resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d"))
"""Limits that a thread's stack counts for. -1: there is none."""


def started_pool(count: int, name: str) -> ThreadPoolExecutor:
    """Return a pool whose threads have all been started.

    By itself a pool starts a thread when work is submitted. If the system allows no more threads by
    then, submitting fails, in the middle of whatever needed the thread.

    Args:
        count: number of threads.
        name: prefix of their names.

    Raises:
        StartError: the system does not allow that many threads.
    """
    pool = ThreadPoolExecutor(count, name)
    all_started = threading.Event()
    try:
        for _ in range(count):
            pool.submit(all_started.wait)  # no thread is idle yet: this starts another
    except RuntimeError as error:
        all_started.set()
        pool.shutdown(wait=True, cancel_futures=True)
        raise StartError(f"cannot start a thread ({error}): {_advice()}") from error
    all_started.set()
    return pool


def _advice() -> str:
    limited = [flag for number, flag in _MEMORY if resource.getrlimit(number)[0] >= 0]
    if limited:
        return f"raise the limit on its memory, of which a thread takes a stack ({limited[0]})"
    return (
        "allow the relay more processes and threads "
        "(TasksMax of its systemd unit, --pids-limit of its container, ulimit -u)"
    )
