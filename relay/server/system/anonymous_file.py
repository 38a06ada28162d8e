"""An unnamed file in memory, which processes share by its descriptor."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from typing import Final

_NOEXEC_SEAL: Final = 8
"""MFD_NOEXEC_SEAL of linux/memfd.h, since Linux 6.3: required with the sysctl vm.memfd_noexec=2."""
_IN_MEMORY: Final = "/dev/shm"  # noqa: S108  # what is made there has no name


def anonymous_file(name: str, *, secret: bool = False) -> int:
    """Return the descriptor of a new, empty file. The caller closes it.

    Where the system refuses memfd_create(2), it is a deleted file in /dev/shm, or else in the
    temporary directory.

    Args:
        name: for those who look at the descriptors of a process.
        secret: what is written there must reach no disk.

    Raises:
        OSError: it cannot be made.
    """
    for more in (_NOEXEC_SEAL, 0):
        try:
            return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | more)
        except OSError as error:
            refused = error
    for directory in (_IN_MEMORY,) if secret else (_IN_MEMORY, None):
        try:
            with tempfile.TemporaryFile(prefix="relay-", dir=directory, buffering=0) as file:
                return os.dup(file.fileno())
        except OSError:
            continue
    raise OSError(refused.errno, f"{refused.strerror} (memfd_create, and {_IN_MEMORY})")


def set_size(fd: int, size: int) -> bool:
    """Set the size of a file for good, before it is mapped. False: only for now.

    A process that uses a mapping of a file dies (SIGBUS) if another process has truncated the file.
    So the size is sealed against all of them, also against a worker that a peer has taken over.
    Files that memfd_create did not make cannot be sealed.

    Raises:
        OSError: there is no space, or a limit on the size of files.
    """
    os.ftruncate(fd, size)
    with contextlib.suppress(OSError):
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return True
    return False
