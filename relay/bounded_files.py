"""Reads small files that a user names or provides, whatever their type.

A device may have no end, and a pipe no writer.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
from pathlib import Path
from typing import Final

DESCRIPTOR_MAX: Final = 2**31 - 1
STDIN: Final = Path("/dev/stdin")
NOT_REGULAR: Final = "it is a device, a pipe or a socket, not a regular file"


def read_bounded(path: Path | int, bytes_max: int) -> bytes:
    """Return what can be read at a path: a file's content, or what comes out of a pipe.

    Args:
        path: or a descriptor, which is closed.
        bytes_max: size limit.

    Raises:
        OSError: it cannot be read, or is larger.
    """
    if isinstance(path, int) and path > DESCRIPTOR_MAX:  # open would report a wrong type
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(path))
    data = bytearray()
    with _opened(path) as file:
        while len(data) <= bytes_max:
            piece = file.read(bytes_max + 1 - len(data))
            if piece is None:  # a pipe that was made non-blocking, and is empty
                _wait_until_readable(file.fileno())
            elif piece:
                data += piece
            else:
                return bytes(data)
    raise OSError(errno.EFBIG, f"it is longer than {bytes_max} bytes", str(path))


def _opened(path: Path | int) -> io.FileIO:
    try:
        return io.FileIO(path, "rb")
    except OSError as error:
        if path != STDIN or error.errno != errno.ENXIO:
            raise
    return io.FileIO(os.dup(0), "rb")  # a socket, as ssh may provide, cannot be opened again


def _wait_until_readable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Create a directory and missing ones above it, all with this mode.

    A server refuses a data directory that is open to others, and the user's own keys are below the
    default one: either may create it.

    Raises:
        OSError: it cannot be created. Never FileExistsError, which would refer to the file to be
            created in it: an obstacle in its place is a NotADirectoryError.
    """
    try:
        try:
            path.mkdir(mode, exist_ok=True)
        except FileNotFoundError:
            if path.parent == path:
                raise
            make_directory(path.parent, mode)
            path.mkdir(mode, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, f"{path} is not a directory", str(path)) from None


def open_regular(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a regular file, and nothing else, to avoid blocking and side effects.

    Args:
        path: of the file; links are followed.
        flags: as for ``os.open``.
        mode: of a new file.

    Returns:
        A descriptor; the caller closes it.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    quick = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    descriptor = os.open(path, flags | quick | getattr(os, "O_BINARY", 0), mode)
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
