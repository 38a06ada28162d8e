"""The processes of a session, by their titles."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

NAME_CHARS: Final = 15
"""Of the title of a process that has ended, the kernel keeps only this many characters."""
_WORKER: Final = re.compile(r"relay: worker (\d+)")


def titled(session: int, text: str) -> list[int]:
    """Return the process ids of the processes of a session whose title contains this text.

    One that has ended is among them until its parent has noticed it, if that is another one of
    them.
    """
    return sorted(
        pid
        for pid, title in _titles(session).items()
        if text in title or (len(title) == NAME_CHARS and text.startswith(title))
    )


def workers(session: int) -> list[int]:
    """Return the process ids of a relay's workers, by their numbers; otherwise as ``titled``."""
    numbers = {
        pid: int(match[1])
        for pid, title in _titles(session).items()
        if (match := _WORKER.match(title))
    }
    return sorted(numbers, key=lambda pid: (numbers[pid], pid))


def _titles(session: int) -> dict[int, str]:
    found = {}
    # No Path for each process of the machine: tests poll this.
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):  # noqa: PTH208
        with contextlib.suppress(OSError):  # it is gone by now
            if os.getsid(pid) != session:
                continue
            title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            if title:
                found[pid] = title.decode(errors="replace")
            elif (name := _unnoticed(session, pid)) is not None:
                found[pid] = name
    return found


def _unnoticed(session: int, pid: int) -> str | None:
    """Return the name of a process that has ended, which its parent has not noticed.

    None: its parent is not of the session. In a container whose first process waits for nobody, it
    would be listed for ever.
    """
    status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    name, _, rest = status.partition("(")[2].rpartition(") ")
    return name if os.getsid(int(rest.split()[1])) == session else None
