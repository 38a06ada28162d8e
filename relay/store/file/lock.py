"""The lock of a partition, and the note in its file on how the last holder left the partition.

Invariants "One writer per partition" and "Epochs are segments".

The lock is an flock: the kernel releases it when the process dies, in whatever way. It must be
taken after the fork, since an inherited descriptor would keep it.

The lock file also records the identity of the partition's file (inode, and the inode's change time)
and how often it had been opened: a file whose WAL was deleted after a crash has a lower count. A
restored copy has another change time even if it was written over the old file (``cp``), with the
old times (``cp -p``, ``tar``, ``rsync -t``): no program can set it. While a checkpoint changes the
file, the lock file's own change time stands in for it: the note contains the time of its writing. A
harmless change (chmod, a new hard link, another file system) looks like a copy, too. The answer to
doubt is a check of the whole file and a new epoch, which costs no reader an entry.

A partition's file may be a link, and a copy of the data directory leads to the same file. So there
is a second lock beside the target of a link.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self, get_args

from relay.paths import followed
from relay.refused_files import refused
from relay.store.errors import NotTheWriter, StoreUnavailable, UsedElsewhere
from relay.store.file.companions import place_lock_path

NOTE_BYTES: Final = 128
REASON_BYTES_MAX: Final = 1024
"""Size limit for the reason of a refusal, after the note."""
CLOCK_NS_MAX: Final = 2_000_000_000
"""Maximum difference between the time in a note and the lock file's change time: the first is read
just before the kernel sets the second."""
FILE_MODE: Final = 0o600
LOCK_S: Final = 20.0
"""How long to wait for a worker of the previous run, which the kernel is ending."""
ELSEWHERE_S: Final = 1.0
"""How long to wait if only the target of a link is locked: a worker releases both at once."""
RETRY_S: Final = 0.02

State = Literal["open", "changing", "closed", "refused"]
"""In use; in use while a checkpoint writes to the file; closed cleanly (everything is in the file);
or found damaged: not opened before the whole file has been checked."""


class Note(NamedTuple):
    """The content of the lock file."""

    inode: int
    changed_ns: int
    opening: int
    written_ns: int
    state: State


def read_note(path: Path) -> Note | None:
    """Read the note in a lock file, whoever holds the lock; None: there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # it may be a pipe
    except OSError:
        return None
    try:
        return _parsed(os.pread(fd, NOTE_BYTES, 0))
    except OSError:
        return None
    finally:
        os.close(fd)


def read_refusal(path: Path) -> str | None:
    """Return why a file is refused, according to its lock file; None: it is not."""
    note = read_note(path)
    if note is None or note.state != "refused":
        return None
    try:
        return path.read_bytes()[NOTE_BYTES:].decode(errors="replace").strip()
    except OSError:
        return ""


def closed_cleanly(path: Path, file: Path) -> bool:
    """Return True if ``file`` is as its last writer closed it. ``path``: its lock file."""
    note = read_note(path)
    try:
        return note is not None and note.state == "closed" and note[:2] == _identity(file)
    except OSError:
        return False


class PartitionLock:
    """A held flock, with the note in its file."""

    def __init__(self, path: Path, file: Path | None = None) -> None:
        """Take the lock.

        Args:
            path: the lock file.
            file: of the partition. None: there is none, or it is no link.

        Raises:
            NotTheWriter: another process holds it.
            UsedElsewhere: only the target of the link is locked by another process.
            StoreUnavailable: the lock file cannot be opened.
        """
        self._path = path
        self._fd = _locked(path)
        self._place_fd = -1
        try:
            if file is not None:
                self._place_fd = _locked_place(file)
        except BaseException:
            self.close()
            raise
        note = read_note(path)
        self.uncleaned = note is not None and note.state == "changing"
        """True if a writer died during a checkpoint, or before it had overwritten old content in
        pages (``scrub``): which pages is no longer known. Until this is cleared, the note records
        it."""

    def close(self) -> None:
        """Release the lock. This object does not take it again."""
        # A late note must not be written to the next file with this descriptor number.
        held, self._fd, self._place_fd = (self._fd, self._place_fd), -1, -1
        for fd in held:
            if fd >= 0:
                os.close(fd)

    def check_held(self) -> None:
        """Check before opening the partition's file: it may have another writer now.

        Raises:
            StoreUnavailable: the lock was released.
        """
        if self._fd < 0:
            raise StoreUnavailable(f"{self._path}: the partition was closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def note(self, file: Path, opening: int, state: State, *, durable: bool = False) -> None:
        """Record the current identity of ``file``.

        Args:
            file: the partition's file.
            opening: how often it has been opened, by its own count.
            state: what is being done with it.
            durable: wait until the note is on the disk.

        Raises:
            StoreUnavailable: the note cannot be written.
        """
        self.check_held()
        try:
            inode, changed_ns = _identity(file)
            if state == "open" and self.uncleaned:
                state = "changing"
            text = f"{inode} {changed_ns} {opening} {time.time_ns()} {state}"
            os.pwrite(self._fd, text.encode().ljust(NOTE_BYTES), 0)
            if durable:
                os.fdatasync(self._fd)
        except OSError as error:
            raise StoreUnavailable(refused(self._path, error)) from error

    def refuse(self, reason: str) -> None:
        """Record that the file was found damaged. The next start checks all of it.

        Raises:
            StoreUnavailable: the note cannot be written.
        """
        self._note_doubt("refused", reason)

    def readmit(self) -> None:
        """Record that the file was checked and is intact, though not what its last writer left.

        Raises:
            StoreUnavailable: the note cannot be written.
        """
        self._note_doubt("changing", "")  # it is unknown whether its last writer had cleaned it

    def _note_doubt(self, state: State, reason: str) -> None:
        before = self.read_note()
        opening = before.opening if before is not None else 0
        note = f"0 0 {opening} {time.time_ns()} {state}".encode()  # matches no file
        why = reason.encode(errors="backslashreplace")[:REASON_BYTES_MAX]
        self.check_held()
        try:
            os.pwrite(self._fd, note.ljust(NOTE_BYTES) + why, 0)
            os.ftruncate(self._fd, NOTE_BYTES + len(why))
            os.fdatasync(self._fd)
        except OSError as error:
            raise StoreUnavailable(refused(self._path, error)) from error

    def refusal(self) -> str | None:
        """Return why the file is refused; None: it is not.

        Raises:
            StoreUnavailable: the lock file cannot be read.
        """
        note = self.read_note()
        if note is None or note.state != "refused":
            return None
        return self._read(REASON_BYTES_MAX, NOTE_BYTES).decode(errors="replace").strip()

    def read_note(self) -> Note | None:
        """Return the note; None if there is no valid one.

        Raises:
            StoreUnavailable: the lock file cannot be read.
        """
        return _parsed(self._read(NOTE_BYTES, 0))

    def _read(self, size: int, at: int) -> bytes:
        self.check_held()
        try:
            return os.pread(self._fd, size, at)
        except OSError as error:
            raise StoreUnavailable(refused(self._path, error)) from error

    def doubt(self, file: Path) -> str | None:
        """Return why ``file`` may not be what its last writer left; None: it is.

        Raises:
            StoreUnavailable: the lock file cannot be read.
        """
        note = self.read_note()
        if note is None:
            return "the lock file has no record of it"
        if note.state == "refused":
            return "it was found damaged before"
        try:
            inode, changed_ns = _identity(file)
            lock_changed_ns = os.fstat(self._fd).st_ctime_ns
        except OSError:
            return "it cannot be examined"
        if inode != note.inode:
            return "another file than before, such as a copy"
        if note.state == "changing":
            if abs(lock_changed_ns - note.written_ns) > CLOCK_NS_MAX:
                return "its lock file is a copy"
        elif changed_ns != note.changed_ns:
            return "altered by another program"
        return None


def lock_when_free(path: Path, file: Path) -> PartitionLock:
    """Take the lock of a partition, waiting for a holder that is just ending.

    Raises:
        NotTheWriter: it was not released in time.
        StoreUnavailable: a lock file cannot be opened.
    """
    began_s = time.monotonic()
    elsewhere_s: float | None = None
    while True:
        try:
            return PartitionLock(path, file)
        except NotTheWriter as error:
            now_s = time.monotonic()
            if isinstance(error, UsedElsewhere):
                elsewhere_s = now_s if elsewhere_s is None else elsewhere_s
                if now_s - elsewhere_s > ELSEWHERE_S:
                    raise
            elif now_s - began_s > LOCK_S:
                raise
            time.sleep(RETRY_S)


def _parsed(data: bytes) -> Note | None:
    fields = data.split()
    try:
        inode, changed_ns, opening, written_ns = map(int, fields[:4])
    except ValueError:
        return None
    for state in get_args(State):
        if fields[4:] == [state.encode()]:
            return Note(inode, changed_ns, opening, written_ns, state)
    return None


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_ino, status.st_ctime_ns


def _locked_place(file: Path) -> int:
    """Lock the target of a link; -1: it is no link."""
    try:
        if not (file.is_symlink() and file.exists()):
            return -1
        return _locked(place_lock_path(file))
    except NotTheWriter:
        raise UsedElsewhere(
            f"{file} is a link to {followed(file)}, which another relay uses: each needs a file of "
            "its own"
        ) from None
    except OSError as error:
        raise StoreUnavailable(refused(file, error)) from error


def _locked(path: Path) -> int:
    try:
        while True:
            fd = os.open(
                path,
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
                FILE_MODE,
            )
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise StoreUnavailable(f"{path} is not a regular file: remove it")
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The file may have been deleted meanwhile: this lock would then protect nothing.
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
        if error.errno == errno.ELOOP:
            raise StoreUnavailable(f"{path} is a symbolic link: remove it") from error
        if error.errno == errno.EISDIR:
            raise StoreUnavailable(f"{path} is not a regular file: remove it") from error
        advice = "the data directory must be writable, and its file system must have locks (flock)"
        raise StoreUnavailable(refused(path, error, advice)) from error
