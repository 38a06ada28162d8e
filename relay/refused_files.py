"""What a person is told about a file that the system refuses to create or write."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No space; a quota; a limit for file sizes. SQLite only knows the first, and treats the others as
a bad disk."""

NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""This process, or the whole machine, has as many open files as it may have."""


def no_space(path: Path) -> str:
    """Return the error text for a disk that is full."""
    if inodes_used_up(path):
        return f"no inode left for {path}: remove files from its file system (df -i shows it)"
    return f"no space left for {path}: free some; what is stored can still be read"


def inodes_used_up(path: Path) -> bool:
    """Return True if a file system has no room for another file, however small."""
    try:
        status = os.statvfs(path.parent)
    except OSError:
        return False
    return status.f_files > 0 and status.f_favail == 0  # some file systems have no fixed number


def more_descriptors(error: OSError) -> str:
    """Return what gives this process more descriptors. ``error``: one of ``NO_DESCRIPTOR``."""
    if error.errno == errno.ENFILE:
        return "the whole machine has too many open files (sysctl fs.file-max)"
    return "raise the limit on open files (ulimit -Hn, LimitNOFILE)"


def missing_descriptors(count: int) -> str:
    """Return what allows this process to open so many more files; empty: it can."""
    with contextlib.ExitStack() as opened:
        try:
            for _ in range(count):
                opened.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            return more_descriptors(error) if error.errno in NO_DESCRIPTOR else ""
    return ""


def refused(path: Path, error: OSError, advice: str = "") -> str:
    """Return the error text for a file that the system refused. ``advice``: unless it is full."""
    if error.errno in NO_SPACE:
        return no_space(path)
    return f"{path}: {error.strerror or error}{advice and f': {advice}'}"
