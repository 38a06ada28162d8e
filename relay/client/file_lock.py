"""A lock on an open file against other programs; where the system has none, nothing is locked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

RETRY_S: Final = 0.005


@contextlib.contextmanager
def locked(descriptor: int, *, shared: bool, timeout_s: float) -> Iterator[bool]:
    """Hold a lock of ``flock`` on an open file.

    Yields:
        True with the lock; False when somebody else held it all the time, or the file's system
        knows no locks. The caller decides what that means.
    """
    if fcntl is None:
        yield False
        return
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    deadline = time.monotonic() + timeout_s
    held = False
    while not held:
        try:
            fcntl.flock(descriptor, kind)
            held = True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                break
            time.sleep(RETRY_S)
        except OSError:  # a file system without locks
            break
    try:
        yield held
    finally:
        if held:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
