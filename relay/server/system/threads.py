"""Threads: pools whose threads all run from the beginning, and work of low priority."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from relay.errors import StartError
from relay.refused_calls import more_threads
from relay.server.system.resource_limits import memory_limit

NICENESS: Final = 10
"""Of work of low priority: it gets a tenth of what a process that wants the same CPU gets."""
PAUSE_S: Final = 0.005
"""Between two modules that are imported at low priority, each of which takes about a millisecond:
before Linux 6.12 (``scheduling``) the kernel lets even such a process finish its slice of some
milliseconds while others wait."""


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


class _Pauses:
    """Pauses before each module that is imported: a finder of modules that finds none."""

    def find_spec(self, *_: object) -> None:
        time.sleep(PAUSE_S)


def import_at_low_priority(work: Callable[[], None]) -> None:
    """Run something that imports modules while other processes need the CPU more.

    Raises what it raises. In a thread, because on Linux a priority belongs to a thread, and only a
    privileged process may raise it again. The caller waits. If no thread can be started, it runs at
    the usual priority.
    """
    failures: list[BaseException] = []
    pauses = _Pauses()

    def run() -> None:
        try:
            os.nice(NICENESS)
            sys.meta_path.insert(0, pauses)
            try:
                work()
            finally:
                sys.meta_path.remove(pauses)
        except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
            failures.append(error)

    thread = threading.Thread(target=run, name="relay-low-priority")
    try:
        thread.start()
    except RuntimeError:
        work()
        return
    thread.join()
    if failures:
        raise failures[0]


def _advice() -> str:
    if limited := memory_limit():
        return f"raise the limit on its memory, of which a thread takes a stack ({limited})"
    return more_threads()
