"""Whether a process waits for a CPU, by the kernel's count, and what makes that unknown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.server.worker.process.loop.waiting_processes import LOADAVG, WaitingProcesses

OWN = "/system.slice/relay.service"


def asked(tmp_path: Path, loadavg: str, cgroups: str = "", limits: str = "") -> bool:
    """Write these files, with a limit of CPU time in each of some cgroups, and ask."""
    (tmp_path / "loadavg").write_text(loadavg)
    (tmp_path / "cgroup").write_text(cgroups)
    root = tmp_path / "root"
    for line in limits.splitlines():
        path, _, limit = line.partition(" ")
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    return WaitingProcesses(tmp_path / "loadavg", tmp_path / "cgroup", root).none()


def line(running: int) -> str:
    """Return what the kernel has in /proc/loadavg."""
    return f"3.26 3.91 4.86 {running}/120 27145\n"


def test_nobody_waits_while_there_are_as_many_cpus(tmp_path: Path) -> None:
    """Who asks is one of those that run."""
    cpus = len(os.sched_getaffinity(0))
    assert asked(tmp_path, line(1))
    assert asked(tmp_path, line(cpus))
    assert not asked(tmp_path, line(cpus + 1))


@pytest.mark.parametrize("text", ["", "3.26 3.91", "a b c d e", line(0)])
def test_what_cannot_be_understood_is_unknown(tmp_path: Path, text: str) -> None:
    """Some sandboxes have such a file with zeros, or none that can be read."""
    assert not asked(tmp_path, text)


def test_the_kernel_is_understood() -> None:
    """On this machine: who asks runs."""
    running = int(LOADAVG.read_text().split()[3].partition("/")[0])
    assert running >= 1
    assert not WaitingProcesses(loadavg=Path("/nowhere"), cgroups=Path("/nowhere")).none()


@pytest.mark.parametrize(
    ("cgroups", "limits", "known"),
    [
        (f"0::{OWN}", f"{OWN[1:]}/cpu.max max 100000", True),
        (f"0::{OWN}", f"{OWN[1:]}/cpu.max 50000 100000", False),
        (f"0::{OWN}", f"{OWN[1:]}/cpu.max max 100000\nsystem.slice/cpu.max 150000 100000", False),
        ("0::/seen/from/outside", "cpu.max 50000 100000", False),
        (f"2:cpu,cpuacct:{OWN}", f"cpu,cpuacct{OWN}/cpu.cfs_quota_us -1", True),
        (f"2:cpu,cpuacct:{OWN}\n0::/", f"cpu,cpuacct{OWN}/cpu.cfs_quota_us 50000", False),
        (f"2:cpu,cpuacct:{OWN}", "cpu,cpuacct/cpu.cfs_quota_us 50000", False),
        ("3:cpuset:/\n4:memory:/", "cpuset/cpu.cfs_quota_us 50000", True),
        ("\nno cgroup\n1:", "", True),
        (f"\n0::{OWN}", f"{OWN[1:]}/cpu.max 50000 100000", False),
    ],
)
def test_with_a_limit_it_is_unknown(tmp_path: Path, cgroups: str, limits: str, known: bool) -> None:
    """Of the own cgroup, or of one around it: a process then waits although CPUs are idle."""
    assert asked(tmp_path, line(1), cgroups, limits) is known
