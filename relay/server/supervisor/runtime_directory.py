"""The directory of the processes' own sockets: private, with short paths, clean at the start."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import stat
import tempfile
from pathlib import Path
from typing import Final

from relay.errors import StartError
from relay.local_sockets import make_private_directory
from relay.server.context import BUS_DIRECTORY, CTL_DIRECTORY, CTL_SOCKET

SOCKET_PATH_BYTES_MAX: Final = 100
"""The kernel's limit is 107, and that of some systems 103."""
LINK: Final = "runtime"
"""In the data directory: leads to a directory elsewhere. Used by commands that find a relay by its
data, and by the next start if the directory has a random name."""
_LONGEST_NAME: Final = "/bus/255.99999999999.sock"
PATH_BYTES_MAX: Final = SOCKET_PATH_BYTES_MAX - len(_LONGEST_NAME)
_OURS: Final = re.compile(rf"([0-9]+|agent)\.[0-9]+\.sock|agent\.sock|{re.escape(CTL_SOCKET)}")
"""The names that a relay gives to sockets; ``agent.sock`` was used before version 0.2."""
_PROBE: Final = "0.0.sock"


class RuntimeDirectory:
    """A directory in use. No other relay can use it meanwhile."""

    def __init__(self, path: Path, link: Path, lock_fd: int | None = None) -> None:
        """Lock it.

        Args:
            path: of the directory.
            link: the data directory's link to it, if it is elsewhere.
            lock_fd: the lock, if it was handed over; None: take it.

        Raises:
            StartError: another relay uses it, or it cannot be locked.
        """
        self.path = path
        self._link = link
        if lock_fd is None:
            lock_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(lock_fd)
                raise _not_locked(path, error) from None
        self.lock_fd = lock_fd

    def close(self) -> None:
        """Release it. In a child: the supervisor keeps the lock."""
        os.close(self.lock_fd)

    def clean_up(self) -> None:
        """Remove what a run has left, at its clean end. Foreign files stay."""
        with contextlib.suppress(OSError):
            _remove_sockets(self.path)
        for directory in (*_directories(self.path), self.path):
            with contextlib.suppress(OSError):
                directory.rmdir()
        if not self.path.exists():
            with contextlib.suppress(OSError):
                self._link.unlink()


def prepare(wanted: str, data: Path) -> RuntimeDirectory:
    """Create the directory (0700), remove a dead run's sockets, and return it.

    ``wanted`` is a full path or empty. Empty: run/ in the data directory or, if its paths would be
    too long for a socket, a directory with a random name in $XDG_RUNTIME_DIR or the temporary
    directory. The data directory must be locked: then no other run can be using the result.

    Raises:
        StartError: it cannot be used; the message names server.runtime and why.
    """
    link = data / LINK
    path = Path(wanted) if wanted else data / "run"
    if wanted and _too_long(path):
        raise StartError(
            f"server.runtime {path}: {_length(path)} bytes are too long for the path of sockets "
            f"in it, {PATH_BYTES_MAX} are possible; choose a shorter one"
        )
    try:
        if _too_long(path):
            path = _elsewhere(link)
        for directory in (path, *_directories(path)):
            make_private_directory(directory)
        directory_in_use = RuntimeDirectory(path, link)
        _remove_sockets(path)
        _check_sockets(path / BUS_DIRECTORY)
        _note(link, path, beside=path == data / "run")
    except OSError as error:
        raise StartError(
            f"server.runtime {path}: cannot be used for sockets: {error.strerror or error}; "
            f"choose another directory, with a path of at most {PATH_BYTES_MAX} bytes"
        ) from None
    return directory_in_use


def handed_over(path: Path, data: Path, lock_fd: int) -> RuntimeDirectory:
    """Return the directory of the server that this one takes over from, with its lock."""
    return RuntimeDirectory(path, data / LINK, lock_fd)


def find(wanted: str, data: Path) -> Path:
    """Return the directory that a running relay with this data uses, as recorded by the relay.

    ``wanted`` is the present setting, which may differ from the one at its start. It is used if
    nothing is recorded, as by a relay before 0.2.
    """
    with contextlib.suppress(OSError):
        return (data / LINK).readlink()
    return Path(wanted).absolute() if wanted else data.absolute() / "run"


def _directories(path: Path) -> tuple[Path, Path]:
    return path / BUS_DIRECTORY, path / CTL_DIRECTORY


def _elsewhere(link: Path) -> Path:
    """Return the directory of the last run, or a new one with an unpredictable name.

    The link may have been copied with the data of a running relay.
    """
    with contextlib.suppress(OSError):
        last = link.readlink()
        status = last.lstat()
        ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        if ours and not status.st_mode & 0o077 and not _too_long(last) and not _in_use(last):
            return last
    path = Path(tempfile.mkdtemp(prefix="relay-", dir=_parent()))
    if _too_long(path):
        path.rmdir()
        raise OSError(
            f"{path} has {_length(path)} bytes; the paths of $XDG_RUNTIME_DIR and of the "
            "temporary directory are too long for sockets"
        )
    # now: otherwise the next run would create another one, and leave this one behind
    _note(link, path)
    return path


def _not_locked(path: Path, error: OSError) -> StartError:
    if isinstance(error, BlockingIOError):
        return StartError(
            f"server.runtime {path} is in use by another relay; each needs one of its own"
        )
    return StartError(
        f"server.runtime {path}: cannot be locked: {error.strerror}; "
        "its file system must have locks (flock)"
    )


def _in_use(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _note(link: Path, path: Path, *, beside: bool = False) -> None:
    """Set the link to it; remove the link if the directory is in the default place."""
    with contextlib.suppress(OSError):
        if not beside and link.is_symlink() and link.readlink() == path:
            return
        link.unlink(missing_ok=True)
        if not beside:
            link.symlink_to(path)


def _parent() -> Path:
    """Return $XDG_RUNTIME_DIR if it is suitable, else the temporary directory."""
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    with contextlib.suppress(OSError):
        status = Path(named).lstat()
        private = not status.st_mode & 0o077 and status.st_uid == os.geteuid()
        if named.startswith("/") and private and not _too_long(Path(named) / "relay-12345678"):
            return Path(named)
    return Path(tempfile.gettempdir())


def _check_sockets(directory: Path) -> None:
    """Create a socket there: better no start than processes that cannot reach each other."""
    path = directory / _PROBE
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(os.fspath(path))
    path.unlink()


def _remove_sockets(path: Path) -> None:
    """Remove sockets with the names that a relay uses: ``path`` may contain other files, too."""
    for directory in (path, *_directories(path)):
        for entry in list(directory.iterdir()):
            if _OURS.fullmatch(entry.name) and entry.is_socket():
                entry.unlink()


def _length(path: Path) -> int:
    return len(os.fsencode(path))


def _too_long(path: Path) -> bool:
    return _length(path) > PATH_BYTES_MAX
