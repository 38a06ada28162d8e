"""Listening sockets of one server's processes for each other: named in a private directory.

Names on disk do not last: cleaners of temporary directories remove what looks old. A listening
socket lives on without its name, and nobody can connect to it; so whoever listens looks now and
then whether its name is there, and makes it anew, with the directory if need be.
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

AGAIN_S: Final = 5.0
_UCRED: Final = struct.Struct("3i")


class NamedListener:
    """A listening Unix-domain socket, and the name by which others reach it."""

    def __init__(self, path: Path, backlog: int) -> None:
        """Prepare; ``open`` begins.

        Args:
            path: its name. The directory is made where it does not exist.
            backlog: connections that wait to be accepted.
        """
        self.path = path
        self._backlog = backlog
        self._inode: tuple[int, int] | None = None
        """None until it is open."""
        self._again_s = -math.inf
        """When it may be opened again, after it could not be."""

    def open(self) -> socket.socket:
        """Return a new listening socket; what had the name loses it. The caller closes it.

        Raises:
            OSError: the directory is not ours, or the name cannot be made.
        """
        self._again_s = time.monotonic() + AGAIN_S
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
        self._again_s = -math.inf
        return listener

    @property
    def missing(self) -> bool:
        """True when the name is gone, or has become somebody else's: ``open`` makes it anew.

        Where that has just failed, False for ``AGAIN_S``: whoever looks all the time logs it.
        """
        return self._is_gone() and time.monotonic() >= self._again_s

    def _is_gone(self) -> bool:
        return self._inode is not None and inode_of(self.path) != self._inode

    def remove(self) -> None:
        """Remove the name, if it still is this socket's."""
        if self._inode is not None and not self._is_gone():
            with contextlib.suppress(OSError):
                self.path.unlink()


def make_private_directory(path: Path) -> None:
    """Make a directory of mode 0700, or check that the one that is there is ours alone.

    An empty one that is open to others is closed; of one that is in use, such as the temporary
    directory, the mode is not ours to change. What ``file_access`` counts as others counts here.

    Raises:
        OSError: it cannot be made; it is a link, no directory, or another user's; or it is open to
            others and not empty.
    """
    make_directory(path.parent, 0o777)  # another user may have to pass, to whom the server changes
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
    """Give a socket that was just bound the mode 0600; where modes cannot be changed, see to it.

    Raises:
        OSError: it is open to others.
    """
    try:
        path.chmod(0o600)
    except OSError:  # the umask may have done enough
        if path.lstat().st_mode & 0o077:
            raise


class SocketLike(Protocol):
    """A socket, or an event loop's stand-in for one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """As ``socket.getsockopt``."""


class Credentials(NamedTuple):
    """Of the process at the other end when it connected, as the kernel knows them (unix(7))."""

    pid: int
    uid: int

    @property
    def ours(self) -> bool:
        """True if it ran under our own uid.

        The directory's mode keeps others out already; this holds when somebody opened it.
        """
        return self.uid == os.geteuid()


def credentials(sock: SocketLike) -> Credentials:
    """Return who is at the other end of a Unix-domain socket (SO_PEERCRED)."""
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Credentials(pid, uid)


def inode_of(path: Path) -> tuple[int, int] | None:
    """Return what is at a path now, by the numbers that tell files apart; None: nothing."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_gone(path: Path) -> bool:
    """Tell whether there is no socket at a path. What cannot be looked at is taken for one."""
    try:
        return not stat.S_ISSOCK(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
