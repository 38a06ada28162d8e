"""Resource usage of a process, from the kernel."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Final, NamedTuple

_PAGE_BYTES: Final = resource.getpagesize()
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Of one process."""

    resident_bytes: int
    """RSS: pages that it shares with others are counted, too."""
    cpu_s: float
    """User and system, from its begin on."""


def usage_of(pid: int) -> Usage | None:
    """Ask the kernel. None: it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        fields = _stat(pid)
        ticks = int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError):
        return None
    return Usage(pages * _PAGE_BYTES, ticks / _TICKS_PER_S)


def age_s(pid: int) -> float | None:
    """Tell how long ago a process began, however the clock was set since. None: it has ended."""
    try:
        began_s = int(_stat(pid)[19]) / _TICKS_PER_S
    except (OSError, ValueError, IndexError):
        return None
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began_s)


def _stat(pid: int) -> list[str]:
    # The name in parentheses may hold anything; the fields that follow it do not.
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return stat.rpartition(")")[2].split()
