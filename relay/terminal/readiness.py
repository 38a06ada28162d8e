"""Inherited files: their names, and waiting for non-blocking ones.

O_NONBLOCK belongs to the open file description, which our parent and others share, so it must not
be changed.
"""

from __future__ import annotations

import select
import sys
from typing import Final

_NAMES: Final = ("standard input", "standard output", "standard error")


def name_of(fd: int) -> str | None:
    """Return the name of a standard stream in messages; None: it is none."""
    return _NAMES[fd] if 0 <= fd < len(_NAMES) else None


def wait_until_readable(fd: int) -> None:
    """Wait until a read returns something, including the end."""
    _wait(fd, reading=True)


def wait_until_writable(fd: int) -> None:
    """Wait until a write accepts something, or fails."""
    _wait(fd, reading=False)


def _wait(fd: int, reading: bool) -> None:
    if sys.platform == "win32":
        raise BlockingIOError  # it has neither such files nor poll
    poll = select.poll()
    poll.register(fd, select.POLLIN if reading else select.POLLOUT)
    poll.poll()
