"""What a backup says of itself: ``backup.json``, written last. Without it, it is not finished."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Final

import msgspec

from relay.chat.partition import PARTITIONS
from relay.errors import StartError
from relay.store.contents import Contents
from relay.store.snapshot import sync_file

NAME: Final = "backup.json"
FORMAT: Final = 1
MANIFEST_BYTES_MAX: Final = 1024 * 1024
LEFT_OUT: Final = frozenset({NAME, "lock", "runtime"})
"""Files of a data directory that belong to a running server alone."""
_CHUNK: Final = 1024 * 1024


class File(msgspec.Struct, frozen=True):
    """One file of it."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """See the module's docstring."""

    format: int
    relay: str
    """The version that made it."""
    made_ms: int
    """The moment, in milliseconds since 1970: what was committed until then is in it."""
    partitions: int
    logs: int
    """Rooms, accounts and invitations."""
    entries: int
    digest: str
    """Of all entries: equal for two backups that hold the same."""
    files: dict[str, File]

    @property
    def contents(self) -> Contents:
        """What it holds."""
        return Contents(self.logs, self.entries, self.digest)


def file_of(path: Path) -> File:
    """Return what a manifest says of a file. Raises OSError."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return File(size, digest.hexdigest())


def write(directory: Path, manifest: Manifest) -> None:
    """Write it, durably. Raises OSError."""
    path = directory / NAME
    text = json.dumps(msgspec.to_builtins(manifest), indent=1)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
    sync_file(path)


def read(directory: Path) -> Manifest:
    """Return the manifest of a backup.

    Raises:
        StartError: it is none that this Relay reads.
    """
    path = directory / NAME
    try:
        with path.open("rb") as file:
            data = file.read(MANIFEST_BYTES_MAX)
    except FileNotFoundError:
        raise StartError(f"{directory} is not a backup, or an unfinished one: no {NAME}") from None
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise StartError(f"{path}: it is no backup's description ({error})") from None
    if found.format != FORMAT or found.partitions != PARTITIONS:
        raise StartError(
            f"{path}: format {found.format} with {found.partitions} partitions; this Relay reads "
            f"format {FORMAT} with {PARTITIONS}: use the Relay that made it ({found.relay})"
        )
    for name in found.files:
        if not _is_plain(name):
            raise StartError(f"{path}: names a file outside of the backup: {name!r}")
    return found


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    return len(parts) <= 2 and all(
        part not in ("", ".", "..") and "\0" not in part for part in parts
    )
