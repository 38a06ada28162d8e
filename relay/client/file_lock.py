"""A lock on an open file against other programs, and lines added to it as a whole.

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


def append_whole(file: io.FileIO, line: bytes, *, synced: bool) -> None:
    """Add a line to a file that was opened to append, as a whole or not at all.

    A full disk takes a part of it: a half line could not be read again, nor the next one behind it.

    Args:
        file: without a buffer.
        line: with its newline.
        synced: it is to be on the disk before this returns.

    Raises:
        OSError: it could not be written.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if synced:
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), size)
        raise
