"""What to do when the system refuses a process, a thread or memory: which limits to raise."""

from __future__ import annotations

import errno
import resource
from typing import Final

OUT_OF_MEMORY: Final = 12
"""Exit code of a process that was refused memory."""
MORE_PROCESSES: Final = (
    "allow the relay more processes and threads "
    "(TasksMax of its systemd unit, --pids-limit of its container, ulimit -u)"
)
_MEMORY: Final = ((resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d"))


def memory_limit() -> str:
    """Return the flag of a limit on this process's own memory; empty: it has none."""
    limited = [flag for number, flag in _MEMORY if resource.getrlimit(number)[0] >= 0]
    return limited[0] if limited else ""


def more_memory() -> str:
    """Return what gives the relay more memory."""
    if limited := memory_limit():
        return f"raise the limit on its memory ({limited})"
    return (
        "give it more memory, or run fewer workers "
        "(MemoryMax of its systemd unit, --memory of its container)"
    )


def fork_refusal(error: OSError) -> str:
    """Describe why a process cannot be forked, and what to do."""
    text = f"it cannot be forked: {error.strerror}"
    if error.errno == errno.EAGAIN:
        return f"{text}: {MORE_PROCESSES}"
    return f"{text}: {more_memory()}" if error.errno == errno.ENOMEM else text
