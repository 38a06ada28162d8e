"""A backup's description of itself: ``backup.json``, written last. Without it, it is incomplete."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import msgspec

from relay.chat.partition import PARTITIONS
from relay.errors import StartError
from relay.store.contents import Contents
from relay.store.file.directory import BACKUP_FILE
from relay.store.file.snapshot import sync_with_name

NAME: Final = BACKUP_FILE
FORMAT: Final = 1
MANIFEST_BYTES_MAX: Final = 1024 * 1024
LEFT_OUT: Final = frozenset({NAME, "lock", "runtime"})
"""Files of a data directory that only concern a running server."""
LOG_FILES: Final = frozenset(f"logs/{index:02}.sqlite" for index in range(PARTITIONS))
_CHUNK: Final = 1024 * 1024
_TIME_MS_MAX: Final = 253_402_300_799_999
"""The end of the year 9999."""
_Count = Annotated[int, msgspec.Meta(ge=0)]


class File(msgspec.Struct, frozen=True):
    """A file of the backup."""

    bytes: _Count
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """The content of ``backup.json``."""

    format: int
    relay: str
    """The version that created it."""
    made_ms: Annotated[int, msgspec.Meta(ge=0, le=_TIME_MS_MAX)]
    """The moment, in milliseconds since 1970: it contains what was committed until then."""
    partitions: int
    logs: _Count
    """Number of rooms, accounts and invitations."""
    entries: _Count
    digest: str
    """Of all entries: equal for two backups with the same content."""
    files: dict[str, File]

    @property
    def contents(self) -> Contents:
        """Its contents."""
        return Contents(self.logs, self.entries, self.digest)


def file_of(path: Path) -> File:
    """Return a manifest's record of a file. Raises OSError."""
    digest = hashlib.sha256()
    size = 0
    with _opened(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return File(size, digest.hexdigest())


def write(directory: Path, manifest: Manifest) -> None:
    """Write it durably. Raises OSError."""
    path = directory / NAME
    text = json.dumps(msgspec.to_builtins(manifest), indent=1)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
    sync_with_name(path)


def read(directory: Path) -> Manifest:
    """Return the manifest of a backup.

    Raises:
        StartError: there is none that this Relay can read.
    """
    path = directory / NAME
    try:
        with _opened(path) as file:
            data = file.read(MANIFEST_BYTES_MAX)
    except FileNotFoundError:
        raise StartError(f"{directory} is not a backup, or an unfinished one: no {NAME}") from None
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StartError(f"{path}: it is not a backup's description ({error})") from None
    if found.format != FORMAT or found.partitions != PARTITIONS:
        raise StartError(
            f"{path}: format {found.format} with {found.partitions} partitions; this Relay reads "
            f"format {FORMAT} with {PARTITIONS}: use the Relay that made it ({found.relay})"
        )
    for name in found.files:
        if name not in LOG_FILES and not _is_plain(name):
            raise StartError(f"{path}: names a file that no backup has: {name!r}")
    return found


def _is_plain(name: str) -> bool:
    """Return True if a name is valid for a file beside the logs."""
    return name not in ("", ".", "..", *LEFT_OUT) and "/" not in name and name.isprintable()


def _opened(path: Path) -> BinaryIO:
    """Open a file of a backup. A pipe or a device would have no end. Raises OSError."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return path.open("rb")
