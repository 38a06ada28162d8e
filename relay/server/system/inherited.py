"""Sets what a process inherits from its parent (limits, files) to known values.

A shell, nohup, cron or a container may pass on closed standard streams, an open umask and low
limits. Signals were reset before: see ``start_signals``.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Mapping
from typing import Final

from relay.refused_calls import set_umask

OPEN_FILES_MAX: Final = 1 << 20
"""Used if there is no limit: Linux's default of fs.nr_open."""
OPEN_FILES_USUAL: Final = 1024
"""Used if the limit is unknown: Linux's default."""
PYTHON_VARIABLES: Final = (
    "PYTHONHASHSEED", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONASYNCIODEBUG",
    "PYTHONMALLOC", "PYTHONTRACEMALLOC", "PYTHONPROFILEIMPORTTIME", "PYTHONVERBOSE", "PYTHONDEBUG",
)  # fmt: skip
"""Variables by which Python runs the same program slower, prints more, or gives up a protection."""


def reset() -> None:
    """Do all of it. Before anything is opened: a file must not get the number of a stream."""
    open_missing_streams()
    set_umask(0o077)  # SQLite's files contain messages: an old directory may be open to others
    # A core file contains keys and messages. Where this is refused, ``prctl`` forbids it.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def open_missing_streams() -> None:
    """Open /dev/null for each of the descriptors 0 to 2 that is closed."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDONLY if fd == 0 else os.O_WRONLY)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            else:
                os.set_inheritable(fd, True)


def python_variables(environ: Mapping[str, str]) -> list[str]:
    """Return those of ``PYTHON_VARIABLES`` that are set and have an effect."""
    if sys.flags.ignore_environment:
        return []
    given = {name: environ.get(name, "") for name in PYTHON_VARIABLES}
    given["PYTHONHASHSEED"] = given["PYTHONHASHSEED"].replace("random", "")
    return [name for name, value in given.items() if value]


def raise_open_files_limit() -> int:
    """Raise the soft limit on open files to the hard one, where permitted; return it."""
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:
        return OPEN_FILES_USUAL
    if hard == resource.RLIM_INFINITY:
        hard = OPEN_FILES_MAX
    if soft != resource.RLIM_INFINITY and soft < hard:
        try:
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            )
        except (OSError, ValueError):
            return soft
    return hard if soft == resource.RLIM_INFINITY else max(soft, hard)
