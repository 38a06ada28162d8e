"""What to do when the system refuses a process, a thread, memory or a descriptor."""

from __future__ import annotations

import errno
import resource
from typing import Final

from relay.errors import StartError
from relay.local_sockets import NotOpened
from relay.refused_calls import MORE_PROCESSES, advice, reason
from relay.refused_files import NO_DESCRIPTOR, missing_descriptors, more_descriptors
from relay.server.system.inherited import raise_open_files_limit
from relay.server.system.needed_calls import check_files

OUT_OF_MEMORY: Final = 12
"""Exit code of a process that was refused memory."""
COMMAND_FILES: Final = 96
"""Descriptors of a command that opens all 16 partitions: each has a file, a write-ahead log, the
index of that and one or two for its lock. If they run out, SQLite reports that a file cannot be
opened, or doubts its content."""
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


def need_command_files() -> None:
    """Check that there are enough descriptors, and no refused calls, before a command opens
    partitions.

    Raises:
        StartError: there are not, or a call is refused.
    """
    check_files()
    limit = raise_open_files_limit()
    if advice := missing_descriptors(COMMAND_FILES):
        raise StartError(
            f"this command opens up to {COMMAND_FILES} files more than it has open now, and its "
            f"limit is {limit}: {advice}"
        )


def refusal(error: OSError | RuntimeError) -> str:
    """Describe what the system has refused, and what to do about it if that is known.

    Empty for a RuntimeError that is about something else.
    """
    if isinstance(error, RuntimeError):
        return reason(error)
    where = "" if error.filename is None else f"{error.filename}: "
    own = isinstance(error, NotOpened)
    text = str(error) if own else f"{where}{error.strerror or error}"
    what = _advice(error)
    return f"{text}: {what}" if what else text


def fork_refusal(error: OSError) -> str:
    """Describe why a process cannot be forked, and what to do."""
    return f"it cannot be forked: {refusal(error)}"


def _advice(error: OSError) -> str:
    if error.errno in NO_DESCRIPTOR:
        return more_descriptors(error)
    if error.errno == errno.ENOMEM:
        return more_memory()
    if error.errno == errno.EAGAIN:
        return MORE_PROCESSES
    return advice(error)
