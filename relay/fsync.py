"""Makes files and names durable, as far as the file system supports it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF})


def sync_file(fd: int, path: Path | None = None, sync: Callable[[int], None] | None = None) -> None:
    """Wait until the content of an open file is on the disk.

    Args:
        fd: of the file.
        path: of it, for the error; None: the caller adds it.
        sync: ``os.fdatasync``; None: ``os.fsync``.

    Raises:
        OSError: the disk failed, or its file system cannot do this: nothing there is durable.
    """
    try:
        (sync or os.fsync)(fd)
    except OSError as error:
        reason = error.strerror
        if error.errno in _UNSUPPORTED:
            reason = f"its file system cannot make files durable ({reason}): use another one"
        raise OSError(error.errno, reason, path and os.fspath(path)) from None


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk.

    Does nothing if the file system has no such operation (some network and FUSE ones): names are
    then as durable as that file system makes them.

    Raises:
        OSError: the disk failed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(fd)
