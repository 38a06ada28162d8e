"""Whether all partitions have been created, so that an absent file is missing, not new.

A lock file records this for its own partition, but is usually moved along with it. So a file beside
them is written when the last partition has been created. A start removes it if a partition has
neither file nor lock: whoever deletes both from a stopped relay wants it to start afresh. Only a
start does so, and logs it; commands on the data of a stopped relay refuse (``absent``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from relay.chat.partition import PARTITIONS
from relay.store.file.lock import read_note

NAME: Final = "made"
FILE_MODE: Final = 0o600


def all_created(path: Path) -> bool:
    """Return True if all partitions have been created. ``path``: of the file of one of them."""
    return path.with_name(NAME).exists()


def was_created(path: Path, lock: Path) -> bool:
    """Return True if a partition without a file has been created before."""
    return read_note(lock) is not None or all_created(path)


def note_created(directory: Path) -> None:
    """Record the creation of a partition if it was the last one.

    Errors are left to the next one.
    """
    mark = directory / NAME
    if mark.exists():
        return
    locks = (directory / f"{index:02}.lock" for index in range(PARTITIONS))
    if all(read_note(lock) is not None for lock in locks):
        try:
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
        except OSError:
            return


def accept_absent(directory: Path) -> list[int]:
    """Treat partitions without any files as new, before any partition is opened.

    Returns:
        Those that existed before.

    Raises:
        OSError: that cannot be recorded.
    """
    found = absent(directory)
    if found:
        (directory / NAME).unlink()
    return found


def absent(directory: Path) -> list[int]:
    """Return the partitions that have been created and have no files any more."""
    if not (directory / NAME).exists():
        return []
    return [
        index
        for index in range(PARTITIONS)
        if not any(os.path.lexists(directory / f"{index:02}.{kind}") for kind in ("sqlite", "lock"))
    ]
