"""Whether all partitions have been made, so that a file that is not there is missing, not new.

A lock file tells that of its own partition; but who moves a partition away takes that along. So
there is a file beside them, from when the last one was made on. A start forgets it where one has
neither file nor lock: whoever takes both away from a relay that is stopped wants it to begin anew.
Only a start does, and tells so; commands on a stopped relay's data refuse (``gone``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from relay.chat.partition import PARTITIONS
from relay.store.lock import read_note

NAME: Final = "made"
FILE_MODE: Final = 0o600


def all_made(path: Path) -> bool:
    """Tell whether all partitions have been made; ``path``: of the file of one of them."""
    return path.with_name(NAME).exists()


def was_made(path: Path, lock: Path) -> bool:
    """Tell whether a partition has been made, of which there is no file now."""
    return read_note(lock) is not None or all_made(path)


def note_made(directory: Path) -> None:
    """One was made: note it if it was the last. What cannot be noted is noted by the next one."""
    mark = directory / NAME
    if mark.exists():
        return
    locks = (directory / f"{index:02}.lock" for index in range(PARTITIONS))
    if all(read_note(lock) is not None for lock in locks):
        try:
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
        except OSError:
            return


def begin_anew(directory: Path) -> list[int]:
    """Before anybody opens one: partitions of which nothing is there are new.

    Returns:
        Those that were there before.

    Raises:
        OSError: that cannot be noted.
    """
    found = gone(directory)
    if found:
        (directory / NAME).unlink()
    return found


def gone(directory: Path) -> list[int]:
    """Return the partitions that were there before, and of which nothing is there."""
    if not (directory / NAME).exists():
        return []
    return [
        index
        for index in range(PARTITIONS)
        if not any(os.path.lexists(directory / f"{index:02}.{kind}") for kind in ("sqlite", "lock"))
    ]
