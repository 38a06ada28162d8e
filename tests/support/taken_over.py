"""What an attacker in control of a worker can reach: tries everything, and logs the results."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from pathlib import Path

from relay.server.context import WorkerContext

log = logging.getLogger("relay.worker")
_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17
_PIDFD_GETFD = 438
"""Of every architecture."""


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def attack(context: WorkerContext, more: str) -> None:
    """Try everything, and log the event ``taken_over`` with what was possible, and what not.

    ``more`` names further files that must be inaccessible, separated by ``:``.
    """
    tried: dict[str, str] = {}

    def attempt(what: str, action: Callable[[], object]) -> None:
        try:
            tried[what] = f"done: {action()!r}"[:60]
        except OSError as error:
            tried[what] = f"refused: {error.strerror}"

    data, logs = context.data, context.data / "logs"
    secret = [data / name for name in ("server.key", "server.key.next", "server.id")]
    secret += [Path(path) for path in more.split(":") if path]
    for path in secret:
        attempt(f"read {path.name}", lambda path=path: len(path.read_bytes()))  # type: ignore[misc]
        attempt(f"write {path.name}", lambda path=path: path.open("r+b").close())  # type: ignore[misc]
        attempt(f"cut {path.name}", lambda path=path: os.truncate(path, path.stat().st_size))  # type: ignore[misc]
        moved = logs / f"moved {path.name}"
        attempt(f"link {path.name}", lambda path=path, to=moved: os.link(path, to))  # type: ignore[misc]
        attempt(f"read the link of {path.name}", lambda to=moved: len(to.read_bytes()))  # type: ignore[misc]
    for name, pid in _others().items():
        attempt(f"memory of {name}", lambda pid=pid: _memory(pid))  # type: ignore[misc]
        attempt(f"vm_readv {name}", lambda pid=pid: _vm_readv(pid))  # type: ignore[misc]
        attempt(f"ptrace {name}", lambda pid=pid: _ptrace(pid))  # type: ignore[misc]
        attempt(f"files of {name}", lambda pid=pid: list(Path(f"/proc/{pid}/fd").iterdir()))  # type: ignore[misc]
        attempt(f"environment of {name}", lambda pid=pid: len(_of(pid, "environ").read_bytes()))  # type: ignore[misc]
        attempt(f"descriptor of {name}", lambda pid=pid: _descriptor(pid))  # type: ignore[misc]
        for path in secret:
            there = _of(pid, f"root{path}")
            attempt(f"{path.name} by {name}", lambda there=there: len(there.read_bytes()))  # type: ignore[misc]
        attempt(f"signal {name}", lambda pid=pid: os.kill(pid, 0))  # type: ignore[misc]
    attempt("root", lambda: os.setresuid(0, 0, 0))
    uids = os.getresuid()
    log.warning("taken_over", extra={"tried": tried, "uids": uids, "worker": context.index})


def _others() -> dict[str, int]:
    """The other processes of the server, by title: those that have a parent in common."""
    parent = os.getppid()
    found = {"supervisor": parent}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        title = arguments.decode(errors="replace").strip()  # of any process here
        if int(fields[1]) == parent and title.startswith("relay: "):
            found[title.removeprefix("relay: ").partition(" (")[0]] = int(entry.name)
    return found


def _memory(pid: int) -> int:
    """Read some of another process's memory; return how much."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    start = next(int(line.split("-")[0], 16) for line in maps if " rw-p " in line)
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        return len(os.pread(fd, 4096, start))
    finally:
        os.close(fd)


def _vm_readv(pid: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(16)
    here = _Vector(ctypes.cast(buffer, ctypes.c_void_p), 16)
    there = _Vector(0x400000, 16)
    count = libc.process_vm_readv(
        pid, ctypes.byref(here), 1, ctypes.byref(there), 1, ctypes.c_ulong(0)
    )
    number = ctypes.get_errno()
    if count < 0 and number != 14:  # EFAULT: it may read, and there is nothing
        raise OSError(number, os.strerror(number))
    return int(count)


def _of(pid: int, what: str) -> Path:
    return Path(f"/proc/{pid}/{what}")


def _descriptor(pid: int) -> int:
    """Take a copy of one of another process's open files."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        number = int(libc.syscall(ctypes.c_long(_PIDFD_GETFD), pidfd, 2, 0))
        if number < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        os.close(number)
        return number
    finally:
        os.close(pidfd)


def _ptrace(pid: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(_PTRACE_ATTACH, pid, None, None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.waitpid(pid, 0x40000000)  # __WALL
    libc.ptrace(_PTRACE_DETACH, pid, None, None)
    return "attached"
