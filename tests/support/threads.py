"""Threads that run beside a test: none outlives it unnoticed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from tests.support.cluster import DEADLINE_S


@contextlib.contextmanager
def beside(
    *targets: Callable[[], object],
    stop: threading.Event | None = None,
    deadline_s: float = DEADLINE_S,
) -> Iterator[None]:
    """Run each target in a thread while the block runs; then set ``stop`` and wait for the threads.

    A thread that has not ended at the deadline fails the test. It is a daemon thread: otherwise the
    interpreter would wait for it when pytest exits, without a limit.
    """
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        if stop is not None:
            stop.set()
        deadline = time.monotonic() + deadline_s
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        hung = [thread.name for thread in threads if thread.is_alive()]
        assert not hung, f"threads that did not end: {hung}"
