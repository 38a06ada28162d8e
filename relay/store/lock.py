"""The lock of a partition, and its holder's note of how it left the file.

Invariants "One writer per partition" and "Epochs are segments".

The lock is an flock: the kernel frees it at the death of the process, however it dies. Take it
after the fork; an inherited descriptor would keep it.

The lock file also says which file the partition was (inode, and the inode's change time) and how
often it had been opened: a file whose WAL was deleted after a crash knows of fewer times. The
change time of a restored copy differs from the noted one even when it was written over the old
file (``cp``), with the old times (``cp -p``, ``tar``, ``rsync -t``): no program can set it. A
harmless change (chmod, a new hard link, another file system) looks like a copy, too. The answer to
doubt is a new epoch, which costs no reader an entry.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final, Self

from relay.store.errors import NotTheWriter, StoreUnavailable

NOTE_BYTES: Final = 64
CHANGING: Final = 0
"""Noted instead of the change time while a checkpoint writes to the file."""
FILE_MODE: Final = 0o600


class PartitionLock:
    """An flock that is held, with the note in its file."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            NotTheWriter: another process holds it.
            StoreUnavailable: the lock file cannot be opened.
        """
        self._path = path
        self._fd = _locked(path)

    def close(self) -> None:
        """Release the lock."""
        fd, self._fd = self._fd, -1  # a late note must not reach what gets this number next
        os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def note(
        self, file: Path, opening: int, *, changing: bool = False, durable: bool = False
    ) -> None:
        """Note the identity of ``file`` now.

        Args:
            file: the partition's file.
            opening: how often it has been opened, as it says itself.
            changing: a checkpoint is about to write to it.
            durable: the note must be on the disk when this returns.

        Raises:
            StoreUnavailable: the note cannot be written.
        """
        try:
            inode, changed_ns = _identity(file)
            text = f"{inode} {CHANGING if changing else changed_ns} {opening}"
            os.pwrite(self._fd, text.encode().ljust(NOTE_BYTES), 0)
            if durable:
                os.fdatasync(self._fd)
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error.strerror}") from error

    def doubt(self, file: Path) -> str | None:
        """Return why ``file`` may not be what its last writer left; None: it is."""
        noted = os.pread(self._fd, NOTE_BYTES, 0).split()
        try:
            inode, changed_ns = _identity(file)
            noted_inode, noted_ns, _ = map(int, noted)
        except (OSError, ValueError):
            return "no note of it in the lock file"
        if inode != noted_inode:
            return "another file than before, such as a copy"
        if noted_ns not in (changed_ns, CHANGING):
            return "altered by another program"
        return None

    def noted_opening(self) -> int:
        """Return how often the file had been opened; 0 if the note cannot be read."""
        try:
            _, _, opening = map(int, os.pread(self._fd, NOTE_BYTES, 0).split())
        except ValueError:
            return 0
        return opening


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_ino, status.st_ctime_ns


def _locked(path: Path) -> int:
    try:
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Somebody may have deleted the file meanwhile: then this is a lock on nothing.
                if path.stat().st_ino == os.fstat(fd).st_ino:
                    return fd
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
    except BlockingIOError as error:
        raise NotTheWriter(f"{path} is locked by another process") from error
    except OSError as error:
        raise StoreUnavailable(
            f"{path}: {error.strerror}: the data directory must be writable"
        ) from error
