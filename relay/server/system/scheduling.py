"""Which process the kernel runs first where several want the same CPU: see sched(7)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from typing import Final

LONGEST_SLICE_NS: Final = 100_000_000
"""The longest slice that the kernel accepts. Usual ones have a few milliseconds."""
USUAL_SLICE: Final = 0
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
"""``struct sched_attr``: size, policy, flags, niceness, priority, slice, deadline, period."""
_NUMBERS: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""Of the system call, by the machine; C libraries have had a function for it since 2025 only."""


@contextlib.contextmanager
def others_first() -> Iterator[None]:
    """Within the context, any other process that wakes up gets this thread's CPU at once.

    Otherwise a process that computes keeps the CPU for the rest of its slice while one that has
    received something waits. With SCHED_BATCH it interrupts nobody when it wakes up itself; with
    the longest slice, since Linux 6.12, whoever has a shorter one interrupts it. An older kernel
    ignores the slice, and where the system refuses both, nothing changes. Threads that are started
    meanwhile keep both. Unlike a niceness, both can be undone without privileges.

    Not for one thread of several: it would be interrupted while it has the interpreter, and the
    other threads of its process would wait for everybody else on that CPU.
    """
    if os.sched_getscheduler(0) != os.SCHED_OTHER:  # as somebody has configured it
        yield
        return
    _set(os.SCHED_BATCH, LONGEST_SLICE_NS)
    try:
        yield
    finally:
        _set(os.SCHED_OTHER, USUAL_SLICE)


def _set(policy: int, slice_ns: int) -> None:
    number = _NUMBERS.get(os.uname().machine)
    if number is None or struct.calcsize("P") != 8:  # others have other numbers
        return
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, 0, niceness, 0, slice_ns, 0, 0)
    # A refusal is no error: see above.
    ctypes.CDLL(None).syscall(
        ctypes.c_long(number), ctypes.c_int(0), ctypes.c_char_p(attributes), ctypes.c_uint(0)
    )
