"""Makes the names in a directory durable, as far as the file system supports it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF})


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
