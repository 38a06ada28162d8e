"""What a person is told about a system call that is refused, whoever makes it.

A filter of a container (seccomp) or of a service (systemd) ends a call that it does not know with
EPERM or ENOSYS, and a kernel that is too old ends it with ENOSYS. Neither says so. EPERM has other
meanings where a file is named; ENOSYS is then mostly the file system's, such as one of FUSE.
"""

from __future__ import annotations

import errno
import os
from typing import Final

MORE_PROCESSES: Final = (
    "allow the relay more processes and threads "
    "(TasksMax of its systemd unit, --pids-limit of its container, ulimit -u)"
)
FILTER: Final = (
    "a filter of system calls refuses something that Relay needs "
    "(SystemCallFilter of a systemd unit, seccomp of a container)"
)
FILE_SYSTEM: Final = (
    "its file system cannot do that (use another one), or a filter of system calls refuses it"
)
_BEHIND_MAX: Final = 8
"""Exceptions of a chain that are looked at: one may be its own cause."""
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
    if error.errno != errno.ENOSYS:
        return FILTER
    return f"{FILTER}, or the kernel is too old" if error.filename is None else FILE_SYSTEM


def reason(error: BaseException) -> str:
    """Describe in one line what the system refuses, and what to do; empty: the error is another.

    A thread counts as well: Python does not tell why it cannot be started. So does an exception of
    an event loop that stands for a refused call (``_behind``).
    """
    for _ in range(_BEHIND_MAX):
        if not isinstance(error, RuntimeError):
            break
        if str(error).startswith(_NO_THREAD):
            return f"cannot start a thread: {more_threads()}"
        behind = _behind(error)
        if behind is None:
            return ""
        error = behind
    if not is_refused(error):
        return ""
    assert isinstance(error, OSError)
    where = "" if error.filename is None else f"{error.filename}: "
    return f"{where}{error.strerror or error}: {advice(error)}"


def _behind(error: RuntimeError) -> BaseException | None:
    """Return the exception that another one stands for; None: it is about something of its own.

    Event loops repeat the text of what they have caught. What is merely raised while an exception
    is handled says something else.
    """
    if error.__cause__ is not None:
        return error.__cause__
    context = None if error.__suppress_context__ else error.__context__
    return context if context is not None and str(context) == str(error) else None


def set_umask(mask: int) -> int:
    """Set the process's umask, and return the one before.

    Raises:
        OSError: the call is refused. The C library knows no failure of it, and so Python tells the
            number of an earlier one.
    """
    try:
        return os.umask(mask)
    except OSError:
        raise OSError(errno.EPERM, f"umask: {os.strerror(errno.EPERM)}") from None


def more_threads() -> str:
    """Return what allows this process to start a thread."""
    return f"{MORE_PROCESSES}, and clone3 in a filter of system calls"
