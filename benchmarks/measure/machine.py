"""What the figures depend on: the machine, the versions, and which process runs on which cores."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

import apsw
from cryptography.hazmat.backends.openssl import backend

HOST: Final = "127.0.0.1"
"""Servers and load are on the same machine."""
MODULES: Final = ("uvloop", "cryptography", "apsw", "msgpack")


def cores() -> tuple[set[int], set[int]]:
    """Return (the server's cores, the load's cores): one each where there are two or more.

    Everything that is compared is pinned in this same way. With more cores the load gets all but
    the first, so that it never is the bottleneck.
    """
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        return set(available), set(available)
    return {available[0]}, set(available[1:])


ALL_CORES: Final = frozenset(os.sched_getaffinity(0))
SERVER_CORES, LOAD_CORES = cores()


@contextlib.contextmanager
def exact_timers() -> Iterator[None]:
    """Wake up exactly on time, not up to 50 µs later (Linux's default timer slack).

    It is the load's, and would count as a delay of the server. Of this thread, and not of what it
    starts later.
    """
    prctl, set_timer_slack = ctypes.CDLL(None).prctl, 29
    prctl(set_timer_slack, ctypes.c_ulong(1))
    try:
        yield
    finally:
        prctl(set_timer_slack, ctypes.c_ulong(0))  # the default again


def describe() -> dict[str, str]:
    """Return the machine and the versions as printable facts."""
    facts = {
        "cpu": _cpu(),
        "cores": str(len(ALL_CORES)),
        "aes": "yes" if re.search(r"\baes\b", _read("/proc/cpuinfo")) else "no",
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
        or "not shown",
        "kernel": platform.release(),
        "distribution": _distribution(),
        "python": platform.python_version(),
        "openssl": _openssl(),
        "sqlite": _sqlite(),
        "commit": COMMIT,
    }
    facts |= {name: metadata.version(name) for name in MODULES}
    return facts


def filesystem(path: Path) -> str:
    """Return the type of the file system that holds a path."""
    best, kind = "", "unknown"
    for line in _read("/proc/mounts").splitlines():
        _, where, found, *_ = line.split()
        if path.resolve().is_relative_to(where) and len(where) >= len(best):
            best, kind = where, found
    return kind


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found.group(1) if found else platform.processor() or platform.machine()


def _distribution() -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read("/etc/os-release"), re.MULTILINE)
    return found.group(1) if found else platform.system()


def _openssl() -> str:
    return backend.openssl_version_text()


def _sqlite() -> str:
    return str(apsw.sqlite_lib_version())


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


COMMIT: Final = _commit()
"""Of when this was imported: what a run writes into the checkout does not make it another."""
