"""The data directory: its format, the names of its files, and the lock of the server using it.

Nothing here needs SQLite: the supervisor, which must not load it, uses this module.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

from relay.chat.partition import PARTITIONS
from relay.errors import StartError
from relay.file_access import open_to_others
from relay.fsync import sync_directory, sync_file
from relay.new_files import unfinished
from relay.refused_calls import FILTER
from relay.store.file import created
from relay.store.file.companions import wal_bytes
from relay.store.file.lock import closed_cleanly, read_note

FORMAT: Final = f"relay data directory, format 1, partitions {PARTITIONS}\n"
FORMAT_BYTES_MAX: Final = 1024
FORMAT_FILE: Final = "format"
BACKUP_FILE: Final = "backup.json"
"""Describes a backup. A relay must not run in a backup, which would then no longer match."""
SEARCH: Final = "search"
"""The directory of the search indexes."""
LOCK_FILE: Final = "lock"
_FLOCK: Final = struct.Struct("@hhqqi0q")
"""The C library's ``struct flock``, with 64-bit file offsets."""
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
ADVICE: Final = "fix this, or choose another directory with --data"


def is_data_directory(path: Path) -> bool:
    """Return True if a relay has used a directory."""
    return (path / FORMAT_FILE).exists()


def is_backup(path: Path) -> bool:
    """Return True if a directory is a backup."""
    return (path / BACKUP_FILE).exists()


def user_of(path: Path) -> int | None:
    """Return the id of the process that locks a data directory; 0: in a container; None: none does.

    Raises:
        OSError: it cannot be determined.
    """
    try:
        fd = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        return _holder(fd)
    finally:
        os.close(fd)


def _holder(fd: int) -> int | None:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else pid


class DirectoryLock:
    """The lock of a whole data directory. Released by ``close``, or by the holder's death.

    A POSIX record lock belongs to the process alone. So it ends with the supervisor, even if a
    worker that inherited the descriptor lives a second longer; partitions have their own locks.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        """Release the lock."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lock_directory(directory: Path) -> DirectoryLock:
    """Lock a data directory, or one that becomes one, for this process, not for its children.

    Raises:
        StartError: another server uses it; the message names its process.
    """
    path = directory / LOCK_FILE
    try:
        fd = os.open(
            path,
            os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
            FILE_MODE,
        )
    except OSError as error:
        raise _unusable(path, error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StartError(f"data directory: {path}: it is not a regular file: remove it")
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):  # fcntl(2): locked
            os.close(fd)
            raise StartError(
                f"data directory: {path}: it cannot be locked (fcntl): {error.strerror}: "
                "put the directory on a file system with locks"  # ``needed_calls`` had some
            ) from error
        # What is written there may be of an earlier one, if the disk was full.
        holder = _holder(fd) or os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise StartError(
            f"data directory {directory} is in use by another relay (process {holder}): "
            "stop it, ask it with 'relay ctl', or name another --data directory"
        ) from error
    with contextlib.suppress(OSError):  # only for the message above; the disk may be full
        os.ftruncate(fd, os.pwrite(fd, f"{os.getpid()}\n".encode(), 0))
    return DirectoryLock(fd)


class DataDirectory:
    """A directory with a format file and a file for each partition."""

    def __init__(self, path: Path) -> None:
        """Create the directory if it does not exist.

        Raises:
            StartError: it cannot be created or used, belongs to another user, is accessible to
                others, has another format, or is a backup.
        """
        if is_backup(path):
            raise StartError(
                f"{path} is a backup: make a data directory of it: "
                f"relay backup restore {shlex.quote(str(path))} --data DIR"
            )
        self.path = path
        self._logs = path / "logs"
        try:
            str(path).encode()
        except UnicodeEncodeError:  # SQLite accepts no other names
            raise StartError(
                f"data directory: {path}: its path is not UTF-8 text: {ADVICE}"
            ) from None
        try:
            _make_private(path)
            self._check_format()
            _make_private(self._logs)
            # Created here, before there are workers: they cannot use directories created later.
            _make_private(path / SEARCH)
        except OSError as error:
            raise _unusable(path, error) from error
        if not os.access(path, os.W_OK | os.X_OK):
            refused = not os.access(path, os.F_OK)  # it is there
            why = f"the system call access: {FILTER}" if refused else "not writable for this user"
            raise StartError(f"data directory: {path}: {why}{'' if refused else f': {ADVICE}'}")

    @classmethod
    def existing(cls, path: Path) -> Self:
        """Return a directory that a relay has used.

        Raises:
            StartError: it is none, or cannot be used.
        """
        if not is_data_directory(path):
            raise StartError(f"{path} is not the data directory of a relay: name it with --data")
        return cls(path)

    @property
    def holds_messages(self) -> bool:
        """True if any partition was ever opened."""
        return any(self._logs.glob("*.sqlite"))

    @property
    def partitions_there(self) -> int:
        """Number of partitions that have a file."""
        return sum(os.path.lexists(self.partition_path(index)) for index in range(PARTITIONS))

    def partition_path(self, partition: int) -> Path:
        """Return the path of a partition's SQLite file."""
        assert 0 <= partition < PARTITIONS
        return self._logs / f"{partition:02}.sqlite"

    def search_path(self, partition: int) -> Path:
        """Return the path of a partition's search index. It may be removed at any time."""
        assert 0 <= partition < PARTITIONS
        return self.path / SEARCH / f"{partition:02}.sqlite"

    def lock_path(self, partition: int) -> Path:
        """Return the path of a partition's lock file."""
        assert 0 <= partition < PARTITIONS
        return self._logs / f"{partition:02}.lock"

    def begin_anew(self) -> list[int]:
        """Allow the creation of partitions without any files. Called before any of them is opened.

        Returns:
            Those that existed before.

        Raises:
            StartError: that cannot be recorded.
        """
        try:
            return created.accept_absent(self._logs)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def gone_partitions(self) -> list[int]:
        """Return those that were there before, and of which neither file nor lock file is there."""
        return created.absent(self._logs)

    def refuse_gone(self, wanted: Iterable[int] = range(PARTITIONS)) -> None:
        """Make sure that none of these has been taken away: only a start makes one anew.

        Raises:
            StartError: one has.
        """
        found = sorted({*wanted} & {*self.gone_partitions()})
        if found:
            raise StartError(gone_text(self.path, found))

    def linked_partitions(self) -> list[int]:
        """Return the partitions whose file is a link, which another directory may share."""
        return [index for index in range(PARTITIONS) if self.partition_path(index).is_symlink()]

    def unclean_partitions(self) -> list[int]:
        """Return the existing partitions that differ from how their last writer closed them."""
        return [index for index in range(PARTITIONS) if self._is_unclean(index)]

    def _is_unclean(self, index: int) -> bool:
        path, lock = self.partition_path(index), self.lock_path(index)
        pending = wal_bytes(path) > 0
        if closed_cleanly(lock, path):
            return pending
        return pending or path.exists() or read_note(lock) is not None

    def lock(self) -> DirectoryLock:
        """Lock the directory for this process, not for its children.

        Raises:
            StartError: another server uses it; the message names its process.
        """
        return lock_directory(self.path)

    def _check_format(self) -> None:
        path = self.path / FORMAT_FILE
        try:
            # NONBLOCK: a pipe in its place must not block the start.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            if path.is_symlink():
                raise StartError(
                    f"data directory: {path}: a broken symbolic link: {ADVICE}"
                ) from None
            if self._logs.exists():
                raise StartError(
                    f"data directory {self.path} holds logs but no file named format: "
                    "restore it from the backup that the logs came from"
                ) from None
            self._write_format(path)
            return
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise StartError(f"data directory: {path}: it is not a regular file: {ADVICE}")
            found = os.read(fd, FORMAT_BYTES_MAX).decode(errors="replace")
        finally:
            os.close(fd)
        if found != FORMAT:
            raise StartError(
                f"data directory {self.path} has another format ({_first_line(found)}); this Relay "
                f"reads: {_first_line(FORMAT)}: use the Relay that wrote it, or another directory"
            )

    def _write_format(self, path: Path) -> None:
        """Write it atomically."""
        with unfinished(path) as (new, file):
            file.write(FORMAT.encode())
            file.flush()
            sync_file(file.fileno(), path)
            new.rename(path)  # nothing is there: checked before, and only we may write here
        sync_directory(self.path)


def _make_private(path: Path) -> None:
    """Create a directory if it does not exist; refuse one that others can use.

    Raises:
        StartError: it belongs to another user, or others may enter it.
        OSError: it cannot be created.
    """
    new = not path.exists()
    path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    where = shlex.quote(str(path))
    if status.st_uid != os.geteuid():
        raise StartError(
            f"data directory: {path} belongs to uid {status.st_uid}, and this process runs as uid "
            f"{os.geteuid()}: run: chown -R {os.geteuid()} {where} "
            "(or run as that user, or name a new directory in it with --data)"
        )
    if not open_to_others(status):
        return
    if new:
        raise StartError(
            f"data directory: {path}: other users can read it (mode "
            f"{mode:04o} although it was created with mode 0700): mount it with umask=0077, or "
            "name a "
            "directory on another one with --data"
        )
    raise StartError(
        f"data directory: {path} is open to others (mode {mode:04o}): run: chmod 700 {where} "
        "(under systemd: StateDirectoryMode=0700), or name a new directory in it with --data"
    )


def _unusable(path: Path, error: OSError) -> StartError:
    where = error.filename or path  # may be a file in it, or an obstacle above it
    if isinstance(error, FileExistsError):
        why = "it is not a directory"
    elif isinstance(error, NotADirectoryError):
        why = "it is below something that is not a directory"
    elif error.errno == errno.ELOOP:
        why = "it is a symbolic link: remove it"
    else:
        why = error.strerror or str(error)
    return StartError(f"data directory: {where}: {why}: {ADVICE}")


def _first_line(text: str) -> str:
    """Return what can be shown of a foreign file: one short printable line."""
    line = text.split("\n", 1)[0][:100]
    return "".join(char if char.isprintable() else "?" for char in line)


def gone_text(path: Path, partitions: Iterable[int]) -> str:
    """Return what a person is told of partitions that were taken away."""
    which = ", ".join(f"{index:02}" for index in partitions)
    return (
        f"the files of partition {which} in {path} are missing: put them back; or start the relay,"
        " which creates new, empty ones"
    )
