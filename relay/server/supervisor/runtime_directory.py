"""The directory of the processes' own sockets: private, with short paths, clean at the start."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Final

from relay.errors import StartError
from relay.server.context import AGENT_SOCKET, BUS_DIRECTORY

SOCKET_PATH_BYTES_MAX: Final = 100
"""The kernel's limit is 107, and some systems' 103."""
_LONGEST_NAME: Final = "/bus/255.99999999999.sock"
_BUS_NAME: Final = re.compile(r"[0-9]+\.[0-9]+\.sock")


def prepare(wanted: str, data: Path) -> Path:
    """Create the directory (0700), remove a dead run's sockets, and return it.

    ``wanted`` may be empty: run/ in the data directory is taken, or, where its paths would be too
    long for a socket, one in the temporary directory that belongs to this data directory. Call
    it only with the data directory locked: then no other run can be using it.

    Raises:
        StartError: it cannot be created, is not ours, or its path is too long.
    """
    path = Path(wanted).absolute() if wanted else data / "run"
    if _too_long(path):
        if wanted:
            raise StartError(
                f"server.runtime {path}: the path is too long for a socket; choose a shorter one"
            )
        status = data.stat()
        # Named after the data directory, so that every run finds the same one and none is left.
        name = f"relay-{os.geteuid()}-{status.st_dev:x}-{status.st_ino:x}"
        path = Path(tempfile.gettempdir()) / name
        if _too_long(path):
            raise StartError(f"{path}: the path is too long for a socket; set server.runtime")
    for directory in (path, path / BUS_DIRECTORY):
        _make_private(directory)
    _remove_sockets(path)
    return path


def clean_up(path: Path) -> None:
    """Remove what a run has left, at its clean end. What is not ours stays."""
    with contextlib.suppress(OSError):
        _remove_sockets(path)
    for directory in (path / BUS_DIRECTORY, path):
        with contextlib.suppress(OSError):
            directory.rmdir()


def _remove_sockets(path: Path) -> None:
    """Remove sockets by the names that a relay gives them: others' may live in ``path``, too."""
    for entry in (path / AGENT_SOCKET, *(path / BUS_DIRECTORY).iterdir()):
        ours = entry.name == AGENT_SOCKET or _BUS_NAME.fullmatch(entry.name)
        if ours and entry.is_socket():
            entry.unlink()


def _too_long(path: Path) -> bool:
    return len(os.fsencode(path)) + len(_LONGEST_NAME) > SOCKET_PATH_BYTES_MAX


def _make_private(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise StartError(f"{path} exists and is not our directory; remove it")
        if stat.S_IMODE(status.st_mode) != 0o700:
            path.chmod(0o700)
    except OSError as error:
        raise StartError(f"{path}: cannot be used for sockets: {error.strerror}") from None
