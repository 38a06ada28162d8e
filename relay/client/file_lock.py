"""Locks an open file against other programs, and appends lines atomically.

Where the system has no locks nothing is locked.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import time
from collections.abc import Iterator
from typing import Final

from relay.fsync import sync_file

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

RETRY_S: Final = 0.005


@contextlib.contextmanager
def locked(descriptor: int, *, shared: bool, timeout_s: float) -> Iterator[bool]:
    """Hold a lock of ``flock`` on an open file.

    Yields:
        True with the lock; False if another process held it all the time, or if the file system has
        no locks. The caller decides what that means.
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


def append_whole(file: io.FileIO, line: bytes, *, synced: bool) -> None:
    """Append a line to a file atomically.

    A full disk accepts only part of it: half a line would be unreadable, and so would the next one.

    Args:
        file: unbuffered, opened for appending.
        line: including its newline.
        synced: wait until it is on the disk.

    Raises:
        OSError: it could not be written.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if synced:
            sync_file(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), size)
        raise
