"""What a worker's threads do while a probe waits for its loop, as the kernel shows them.

A loop that neither runs nor waits for a CPU sleeps in a system call: in a write that waits for the
disk, or in a futex, which is mostly the interpreter that another thread of the worker has. That one
may itself wait for a CPU.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

CALLS: Final = {
    0: "read", 1: "write", 17: "pread64", 18: "pwrite64", 20: "writev", 46: "sendmsg",
    44: "sendto", 47: "recvmsg", 45: "recvfrom", 72: "fcntl", 74: "fsync", 75: "fdatasync",
    77: "ftruncate", 87: "unlink", 202: "futex", 232: "epoll_wait", 257: "openat",
    281: "epoll_pwait",
}  # fmt: skip
"""Of x86-64; others are shown as numbers."""
OF_FILES: Final = frozenset({0, 1, 17, 18, 20, 72, 74, 75, 77})
"""Those whose first argument is a descriptor of a file."""
RUNNABLE: Final = "R"
UNINTERRUPTIBLE: Final = "D"


def look(pid: int) -> str:
    """Return what the threads of a process are doing, the main one first.

    Of the others those that run, or would, or wait for a disk.
    """
    main = _doing(pid, pid)
    others: list[str] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            tid = int(task.name)
            if tid == pid:
                continue
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{pid}/task/{tid}/stat").read_text(encoding="utf-8")
                name, _, rest = stat.partition("(")[2].rpartition(")")
                if rest.split()[0] in (RUNNABLE, UNINTERRUPTIBLE):
                    others.append(f"{name} {_doing(pid, tid)}")
    return " + ".join([main, *sorted(others)])


def _doing(pid: int, tid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/task/{tid}/syscall").read_text(encoding="ascii").split()
    except OSError as error:
        return f"unknown ({error.strerror})"
    if words[0] == "running":
        return "runs"
    number = int(words[0])
    call = CALLS.get(number, f"call {number}")
    if number in OF_FILES:
        with contextlib.suppress(OSError):
            target = Path(f"/proc/{pid}/fd/{int(words[1], 16)}").readlink()
            return f"{call} {target.name}"
    return call


class OtherThreads:
    """How long the threads of a process, but for the main one, were ready and waited for a CPU.

    One of them may hold the interpreter lock meanwhile, and then the loop waits as well.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._files: dict[int, int] = {}
        self.refresh()

    def refresh(self) -> None:
        """See which threads there are."""
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{self._pid}/task").iterdir():
                tid = int(task.name)
                if tid != self._pid and tid not in self._files:
                    with contextlib.suppress(OSError):
                        self._files[tid] = os.open(task / "schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def waited_ns(self) -> int:
        """Return the sum. A thread that has ended is forgotten."""
        waited_ns = 0
        for tid, fd in list(self._files.items()):
            try:
                waited_ns += int(os.pread(fd, 128, 0).split()[1])
            except OSError:
                os.close(self._files.pop(tid))
        return waited_ns

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])


def summary(looks: Iterable[str]) -> str:
    """Return what was seen, and how often, the most frequent first."""
    return ", ".join(f"{count} x {seen}" for seen, count in Counter(looks).most_common())
