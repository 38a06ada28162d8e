"""Files that get their names when they are complete.

A process that is killed meanwhile leaves an unfinished file beside the place, perhaps with a key in
it. While a process writes such a file it holds a lock on it, so the others can be told from it:
whoever writes the next file for that place removes them. Where the system has no locks they stay.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

SUFFIX: Final = ".new"
FILE_MODE: Final = 0o600


class Unfinished(NamedTuple):
    """A new file without its name."""

    path: Path
    file: BinaryIO
    """Windows requires that it is closed before it is renamed."""


@contextlib.contextmanager
def unfinished(place: Path) -> Iterator[Unfinished]:
    """Yield a new file of mode 0600 beside a place. It is removed at the end unless it was renamed.

    Raises:
        OSError: it cannot be created, or removed.
    """
    remove_unfinished(place)
    path, fd = _created(place)
    try:
        with os.fdopen(fd, "wb") as file:
            yield Unfinished(path, file)
    finally:
        path.unlink(missing_ok=True)


def remove_unfinished(place: Path) -> None:
    """Remove what processes that were killed have left beside a place."""
    ours = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f.]+{re.escape(SUFFIX)}")
    with contextlib.suppress(OSError):
        for path in place.parent.iterdir():
            if ours.fullmatch(path.name):
                _remove_if_left(path)


def _created(place: Path) -> tuple[Path, int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    while True:
        # No with_name: "/" and "." have none.
        path = place.parent / f".{place.name}.{secrets.token_hex(8)}{SUFFIX}"
        fd = os.open(path, flags, FILE_MODE)
        # Another process may have taken it for one that was left: it had no lock until now.
        if _locked(fd) is not False and os.fstat(fd).st_nlink:
            return path, fd
        os.close(fd)


def _remove_if_left(path: Path) -> None:
    """Remove a file unless a process holds its lock."""
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(path.lstat().st_mode):
            return
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        try:
            if _locked(fd):
                path.unlink()
        finally:
            os.close(fd)


def _locked(fd: int) -> bool | None:
    """Take the lock of a file, until it is closed. False: another has it. None: there are none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True
