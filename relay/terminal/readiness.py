"""Files that were open when we started: what they are called, and waiting for those that are
non-blocking, without knowing why they are.

O_NONBLOCK belongs to the open file, which our parent and others share: whoever set it wants it so.
"""

from __future__ import annotations

import select
import sys
from typing import Final

_NAMES: Final = ("standard input", "standard output", "standard error")


def name_of(fd: int) -> str | None:
    """Return what messages call a standard stream; None: it is none."""
    return _NAMES[fd] if 0 <= fd < len(_NAMES) else None


def wait_until_readable(fd: int) -> None:
    """Wait until a read returns something, the end included."""
    _wait(fd, reading=True)


def wait_until_writable(fd: int) -> None:
    """Wait until a write takes something, or fails."""
    _wait(fd, reading=False)


def _wait(fd: int, reading: bool) -> None:
    if sys.platform == "win32":
        raise BlockingIOError  # it has neither such files nor poll
    poll = select.poll()
    poll.register(fd, select.POLLIN if reading else select.POLLOUT)
    poll.poll()
