"""Tells whether any process waits for a CPU at this moment, by what the kernel counts.

A worker that has waited for a CPU pauses its heavy users; this tells it when nobody needs their
pause any more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LOADAVG: Final = Path("/proc/loadavg")
CGROUPS: Final = Path("/proc/self/cgroup")
CGROUP_ROOT: Final = Path("/sys/fs/cgroup")


class WaitingProcesses:
    """Asks the kernel, which takes some microseconds."""

    def __init__(
        self, loadavg: Path = LOADAVG, cgroups: Path = CGROUPS, root: Path = CGROUP_ROOT
    ) -> None:
        """Look whether the CPU time of this process is limited.

        Args:
            loadavg: see proc(5).
            cgroups: lists those of this process.
            root: where they are mounted.
        """
        self._loadavg = loadavg
        # At its limit a process waits while CPUs are idle: no count shows that.
        self._limited = any(map(_limits, _files(cgroups, root)))

    def none(self) -> bool:
        """Return True if all processes that can run do, on as many CPUs as this one may use.

        Those on other CPUs are counted as well. False if that is unknown.
        """
        if self._limited:
            return False
        try:
            fields = self._loadavg.read_bytes().split()
            running = int(fields[3].partition(b"/")[0])
        except (OSError, ValueError, IndexError):
            return False
        return 0 < running <= len(os.sched_getaffinity(0))


def _files(cgroups: Path, root: Path) -> Iterator[Path]:
    """Yield the files that may limit the CPU time of this process, of either version of cgroups."""
    try:
        lines = cgroups.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon:
            continue
        if not controllers:
            base, name = root, "cpu.max"
        elif "cpu" in controllers.split(","):
            base, name = root / controllers, "cpu.cfs_quota_us"
        else:
            continue
        # A container may see only its own cgroup, at the root, whatever the path.
        own = base / path.lstrip("/")
        for directory in (own, *own.parents):
            yield directory / name
            if directory == base:
                break


def _limits(file: Path) -> bool:
    """Return True if the file contains a limit."""
    try:
        return file.read_text().split()[0] not in ("max", "-1")
    except (OSError, ValueError, IndexError):
        return False  # no such cgroup, or one that limits nothing
