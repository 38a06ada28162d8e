"""Connections do not survive ``os.fork()``: two processes with the same keys repeat nonces.

The process counts its forks: a connection records the count at its creation, and refuses to work
when it has changed. Python tells of a fork, but not of one by another library (in C), and it tells
those first that asked first: they may use a connection before this module knows. So where the
kernel can do it (Linux), there also is a page that it empties in every child. These are the only
lines in this package that touch the operating system.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

_WIPE_ON_FORK: Final = 18
"""MADV_WIPEONFORK of linux/mman.h, since Linux 4.14; ``mmap`` has no name for it."""


def _new_page() -> mmap.mmap | None:
    """Return a page that is empty in a child; None: this system has none."""
    if not hasattr(mmap.mmap, "madvise"):
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_WIPE_ON_FORK)
    except OSError:
        return None
    page[0] = 1
    return page


forks = 0
"""Number of forks noticed so far, to compare where ``generation`` costs too much."""
_page: Final = _new_page()


def generation() -> int:
    """Return the number of forks between this process and the one that first imported this."""
    if _page is not None and not _page[0]:
        _in_child()
    return forks


def _in_child() -> None:
    """Count this fork; twice if both tell of it, which harms nobody."""
    global forks
    forks += 1
    if _page is not None:
        _page[0] = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
