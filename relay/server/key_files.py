"""Key files: access is checked before they are read, and they appear whole or not at all.

Bytes in, bytes out: what the bytes mean is the key agent's business.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from relay.errors import StartError

KEY_FILE_BYTES_MAX: Final = 65_536
"""A PEM file of 8192 bits has 6.4 KB."""


def read_key_file(path: Path) -> bytes | None:
    """Return the content of a key file, or None when there is no such file.

    Raises:
        StartError: a symbolic link, not a regular file, of another owner, open to others,
            unreadable, empty or too large. The message says what to do.
    """
    try:
        # NONBLOCK: a pipe in the key's place must not stop the start.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StartError(f"key file {path} is a symbolic link; put the file there") from None
        raise StartError(f"key file {path} cannot be read: {error.strerror}") from None
    try:
        _check_access(path, os.fstat(fd))
        data = b""
        while chunk := os.read(fd, KEY_FILE_BYTES_MAX + 1 - len(data)):
            data += chunk
    except OSError as error:
        raise StartError(f"key file {path} cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)
    if not data:
        raise StartError(f"key file {path} is empty; restore it, or remove it to get a new key")
    if len(data) > KEY_FILE_BYTES_MAX:
        raise StartError(f"key file {path} is too large to be a key")
    return data


def _check_access(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StartError(f"key file {path} is not a regular file")
    if status.st_uid != os.geteuid():
        raise StartError(
            f"key file {path} belongs to uid {status.st_uid}, the server runs as "
            f"{os.geteuid()}; chown it"
        )
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise StartError(
            f"key file {path} is open to others (mode {mode:04o}); run: chmod 600 {path}"
        )


def create_key_file(path: Path, data: bytes) -> None:
    """Write a new key file of mode 0600: complete, on disk, and never over an existing one.

    Raises:
        StartError: it cannot be written, or exists by now.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        partial.unlink(missing_ok=True)  # of a dead run that had our process id
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        try:
            os.link(partial, path)  # unlike a rename, it fails where a file exists
        finally:
            partial.unlink()
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StartError(f"key file {path} cannot be written: {error.strerror}") from None
