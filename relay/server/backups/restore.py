"""Verifies a backup, and restores it to a data directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from relay.errors import StartError
from relay.fsync import sync_directory
from relay.server.backups import manifest
from relay.server.backups.checking import checked
from relay.server.backups.manifest import File, Manifest
from relay.server.backups.nesting import refuse_data_within
from relay.store.contents import total
from relay.store.errors import StoreError
from relay.store.file.directory import FORMAT_FILE, LOCK_FILE, lock_directory
from relay.store.file.integrity import DamagedLog
from relay.store.file.snapshot import sync_with_name


class Verified(NamedTuple):
    """A backup that is as it was made."""

    manifest: Manifest
    damaged: list[DamagedLog]
    """Accounts, invitations and rooms that were not whole when it was made."""


def verify(backup: Path) -> Verified:
    """Read all of a backup, and check what it contains as ``relay data check`` does.

    Raises:
        StartError: it differs from its manifest; every such file is named, one per line.
    """
    found = manifest.read(backup)
    problems = [problem for name in found.files if (problem := _problem(backup, found, name))]
    if problems:
        raise StartError("\n".join(problems))
    paths = [backup / name for name in found.files if name in manifest.LOG_FILES]
    try:
        held, damaged = checked({int(path.stem): path for path in paths})
    except StoreError as error:
        raise StartError(f"backup {backup}: {error}") from None
    if total(held) != found.contents:
        raise StartError(f"backup {backup}: its messages do not match its manifest")
    return Verified(found, damaged)


def _problem(backup: Path, found: Manifest, name: str) -> str | None:
    path = backup / name
    try:
        if manifest.file_of(path) == found.files[name]:
            return None
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return f"{path} was changed after the backup: its SHA-256 differs"


def restore(backup: Path, data: Path) -> Verified:
    """Restore a backup to a data directory, after verifying all of it.

    The new directory has no record of the files' last writer, so the logs begin new epochs
    (docs/operations.md, "Backup").

    Args:
        backup: the backup; it is not changed.
        data: the directory; it must be empty or not exist.

    Raises:
        StartError: it is not possible; what was written is removed.
    """
    refuse_data_within(data)
    verified = verify(backup)
    found = verified.manifest
    try:
        new = not data.exists()
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_is_new = not os.path.lexists(data / LOCK_FILE)
    except OSError as error:
        raise StartError(f"data directory: {data}: {error.strerror}") from None
    with lock_directory(data):  # another restore, or a relay that starts there, is refused
        made: list[Path] = [data / LOCK_FILE] if lock_is_new else []
        try:
            _refuse_used(data)
            data.chmod(0o700)
            (data / "logs").mkdir(mode=0o700)
            made.append(data / "logs")
            # The format file last: a start refuses a directory that has logs but no format file.
            for name in sorted(found.files, key=lambda name: name == FORMAT_FILE):
                _install(backup / name, data / name, found.files[name], made)
            sync_directory(data.parent)
        except BaseException as error:
            for path in reversed(made):
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink(missing_ok=True)
            if new:
                data.rmdir()
            if isinstance(error, OSError):
                raise StartError(f"data directory: {data}: {error.strerror or error}") from None
            raise
    return verified


def _refuse_used(data: Path) -> None:
    """Raise StartError if anything but a lock is in a directory. Raises OSError."""
    if any(path.name != LOCK_FILE for path in data.iterdir()):
        raise StartError(f"{data} is not empty: name a new directory, or move what is there away")


def _install(source: Path, to: Path, expected: File, made: list[Path]) -> None:
    """Copy a file, and note it in ``made``.

    Raises:
        StartError: it has been changed since it was verified.
        OSError: it cannot be copied.
    """
    fd = os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    made.append(to)
    with os.fdopen(fd, "wb") as file, source.open("rb") as original:
        shutil.copyfileobj(original, file)
    sync_with_name(to)
    if manifest.file_of(to) != expected:
        raise StartError(f"{source} was changed while it was restored: try again")
