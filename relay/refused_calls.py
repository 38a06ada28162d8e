"""What a person is told about a system call that is refused, whoever makes it.

A filter of a container (seccomp) or of a service (systemd) ends a call that it does not know with
EPERM or ENOSYS, and a kernel that is too old ends it with ENOSYS. Neither says so. EPERM has other
meanings where a file is named.
"""

from __future__ import annotations

import errno
from typing import Final

MORE_PROCESSES: Final = (
    "allow the relay more processes and threads "
    "(TasksMax of its systemd unit, --pids-limit of its container, ulimit -u)"
)
FILTER: Final = (
    "a filter of system calls refuses something that Relay needs "
    "(SystemCallFilter of a systemd unit, seccomp of a container)"
)
_NO_THREAD: Final = "can't start new thread"
"""What Python says, whatever the reason is."""


def is_refused(error: BaseException) -> bool:
    """Return True for a call that is refused to whoever makes it: waiting does not help."""
    if not isinstance(error, OSError):
        return False
    return error.errno == errno.ENOSYS or (error.errno == errno.EPERM and error.filename is None)


def advice(error: BaseException, otherwise: str = "") -> str:
    """Return what to do about a refused call; ``otherwise`` if the error is none."""
    if not is_refused(error):
        return otherwise
    assert isinstance(error, OSError)
    return f"{FILTER}, or the kernel is too old" if error.errno == errno.ENOSYS else FILTER


def reason(error: BaseException) -> str:
    """Describe in one line what the system refuses, and what to do; empty: the error is another.

    A thread counts as well: Python does not tell why it cannot be started. So does an exception of
    an event loop with a refused call behind it, which its text may not show.
    """
    if isinstance(error, RuntimeError):
        if str(error).startswith(_NO_THREAD):
            return f"cannot start a thread: {more_threads()}"
        behind = error.__cause__ or error.__context__
        return "" if behind is None or isinstance(behind, RuntimeError) else reason(behind)
    if not is_refused(error):
        return ""
    assert isinstance(error, OSError)
    where = "" if error.filename is None else f"{error.filename}: "
    return f"{where}{error.strerror or error}: {advice(error)}"


def more_threads() -> str:
    """Return what allows this process to start a thread."""
    return f"{MORE_PROCESSES}, and clone3 in a filter of system calls"
