"""Listening sockets of one server's processes for each other, named in a private directory.

Names on disk do not last: programs that clean temporary directories remove what looks old. A
listening socket survives without its name, but nobody can connect to it. So its owner checks from
time to time that the name exists, and recreates it, with the directory if necessary.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import stat
import struct
import time
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from relay.bounded_files import make_directory
from relay.file_access import open_to_others
from relay.refused_files import refused

AGAIN_S: Final = 5.0
"""Minimum time between two attempts to create a name."""
_UCRED: Final = struct.Struct("3i")


class NotOpened(OSError):
    """A socket's name cannot be created. ``strerror`` is the reason, the text also has the path."""

    def __str__(self) -> str:
        return f"server.runtime: {refused(Path(self.filename), self)}"


class NamedListener:
    """A listening Unix-domain socket, and the name by which others reach it."""

    def __init__(self, path: Path, backlog: int) -> None:
        """Create; ``open`` begins to listen.

        Args:
            path: its name. The directory is created if it does not exist.
            backlog: connections that may wait to be accepted.
        """
        self.path = path
        self._backlog = backlog
        self._inode: tuple[int, int] | None = None
        """None until it is open."""
        self._wanted = False
        """True once it was to be opened."""
        self._again_s = -math.inf
        """When to retry opening it after a failure."""

    def open(self) -> socket.socket:
        """Return a new listening socket, which takes over the name. The caller closes it.

        Raises:
            NotOpened: the directory is not ours, or the name cannot be created.
        """
        self._wanted = True
        self._again_s = time.monotonic() + AGAIN_S
        try:
            listener = self._opened()
        except OSError as error:
            where = error.filename or os.fspath(self.path)
            raise NotOpened(error.errno, error.strerror or str(error), where) from error
        self._again_s = -math.inf
        return listener

    def _opened(self) -> socket.socket:
        make_private_directory(self.path.parent)
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(os.fspath(self.path))
            close_to_others(self.path)
            self._inode = inode_of(self.path)
            listener.listen(self._backlog)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        return listener

    @property
    def missing(self) -> bool:
        """True if the name is gone, was never created, or belongs to another socket: ``open``
        creates it.

        After a recent failure, False for ``AGAIN_S``: otherwise each check would log it.
        """
        return self._is_gone() and time.monotonic() >= self._again_s

    def _is_gone(self) -> bool:
        return self._wanted and (self._inode is None or inode_of(self.path) != self._inode)

    def remove(self) -> None:
        """Remove the name, if it still is this socket's."""
        if self._inode is not None and not self._is_gone():
            with contextlib.suppress(OSError):
                self.path.unlink()


def remove_earlier(directory: Path, index: int, first_generation: int) -> None:
    """Remove the sockets of earlier workers with this index, INDEX.GENERATION.sock.

    Those of killed workers remain, and the file system may have no inode left for another one.

    Args:
        directory: where they are.
        index: of the worker.
        first_generation: lower ones belong to another server, which may still run.
    """
    with contextlib.suppress(OSError, ValueError):
        for stale in directory.glob(f"{index}.*.sock"):
            if int(stale.name.split(".")[1]) >= first_generation:
                stale.unlink()


def make_private_directory(path: Path) -> None:
    """Create a directory of mode 0700, or check that the existing one is private.

    An empty one that is open to others is made private. The mode of one that is in use, such as the
    temporary directory, is not ours to change. "Others" is as defined by ``file_access``.

    Raises:
        OSError: it cannot be created; it is a link, not a directory, or another user's; or it is
            open to others and not empty.
    """
    make_directory(path.parent, 0o777)  # another user may have to pass: the server changes its user
    make_directory(path)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it exists and is not a directory of ours", str(path))
    if not status.st_mode & 0o077:
        return
    if not any(path.iterdir()):
        path.chmod(0o700)
    elif open_to_others(status):
        reason = f"it is open to others (mode {stat.S_IMODE(status.st_mode):04o}) and not empty"
        raise PermissionError(errno.EPERM, reason, str(path))


def close_to_others(path: Path) -> None:
    """Give a socket that was just bound mode 0600; if modes cannot be changed, check it.

    Raises:
        OSError: it is open to others.
    """
    try:
        path.chmod(0o600)
    except OSError:  # the umask may have been sufficient
        if path.lstat().st_mode & 0o077:
            raise


class SocketLike(Protocol):
    """A socket, or an event loop's equivalent."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """As ``socket.getsockopt``."""


class Credentials(NamedTuple):
    """Of the peer process at the time it connected, according to the kernel (unix(7))."""

    pid: int
    uid: int

    @property
    def ours(self) -> bool:
        """True if it ran under our own uid.

        The directory's mode excludes others already; this holds even if somebody changed it.
        """
        return self.uid == os.geteuid()


def credentials(sock: SocketLike) -> Credentials:
    """Return the peer's credentials for a Unix-domain socket (SO_PEERCRED)."""
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Credentials(pid, uid)


def inode_of(path: Path) -> tuple[int, int] | None:
    """Return the identity (device, inode) of what is at a path; None: nothing."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_gone(path: Path) -> bool:
    """Return True if there is no socket at a path. If it cannot be checked, one is assumed."""
    try:
        return not stat.S_ISSOCK(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
