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
    """The usage of one process."""

    resident_bytes: int
    """RSS: includes pages shared with other processes."""
    cpu_s: float
    """User and system, since its start."""


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
    """Return the age of a process, independent of clock changes. None: it has ended."""
    try:
        began_s = int(_stat(pid)[19]) / _TICKS_PER_S
    except (OSError, ValueError, IndexError):
        return None
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began_s)


def _stat(pid: int) -> list[str]:
    # The name in parentheses may contain anything; the fields after it do not.
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return stat.rpartition(")")[2].split()
