"""Pools of threads that all run from the beginning."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from relay.errors import StartError
from relay.server.resource_limits import MORE_PROCESSES, memory_limit


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
    if limited := memory_limit():
        return f"raise the limit on its memory, of which a thread takes a stack ({limited})"
    return MORE_PROCESSES
