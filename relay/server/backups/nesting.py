"""Refuses a backup inside a data directory, and a data directory inside a backup, by any path.

A backup inside its own data directory would be lost with it, and be part of every copy of it. A
data directory inside a backup would change the content of the backup.
"""

from __future__ import annotations

import os
from pathlib import Path

from relay.errors import StartError
from relay.paths import followed
from relay.store.file.directory import is_backup


def refuse_backup_within(data: Path, to: Path) -> None:
    """Check where a backup is to be created.

    Raises:
        StartError: it would be inside the data directory, or inside another backup.
    """
    if is_within(to, data):
        raise StartError(
            f"backup {to}: it would be in the data directory {data}, and be lost with it: name a "
            "directory outside"
        )
    _refuse_in_backup(to, f"backup {to}")


def refuse_data_within(data: Path) -> None:
    """Check where a backup is to be restored.

    Raises:
        StartError: it would be inside a backup.
    """
    _refuse_in_backup(data, f"data directory: {data}")


def is_within(path: Path, directory: Path) -> bool:
    """Return True if a path, which need not exist, is a directory or inside it.

    Symbolic links are followed. A directory that is mounted a second time, or a part of it, is
    recognised by its inode.
    """
    known = {_identity(Path(at)) for at, _, _ in os.walk(directory)} - {None}
    real = followed(path)
    return any(_identity(above) in known for above in (real, *real.parents))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refuse_in_backup(path: Path, what: str) -> None:
    for above in followed(path).parents:
        if is_backup(above):
            raise StartError(f"{what}: it would be in the backup {above}: name another directory")
