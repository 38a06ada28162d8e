"""Key files: access is checked before reading, and files are created atomically.

A key may be a symbolic link, as Kubernetes mounts its Secrets: the target counts. It must belong to
this user or to root and be unreadable for everybody else. Group access is allowed if only this
process can be in the group: Kubernetes assigns each file of a volume to the group ``fsGroup``, a
number without a name, and makes it readable and writable for the group at every start.

Bytes in, bytes out: their meaning is left to the key agent.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from relay.errors import StartError
from relay.file_access import open_to_others
from relay.fsync import sync_directory, sync_file
from relay.new_files import unfinished

KEY_FILE: Final = "server.key"
NEXT_KEY_FILE: Final = "server.key.next"
OLD_KEY_FILE: Final = "server.key.old"
LINEAGE_FILE: Final = "server.id"
"""Contains no secret, but is kept like a key: see ``lineage_file``."""
KEY_FILES: Final = (KEY_FILE, NEXT_KEY_FILE, OLD_KEY_FILE, LINEAGE_FILE)
"""In the data directory, only for the key agent."""
KEY_FILE_BYTES_MAX: Final = 65_536
"""A PEM file of 8192 bits has 6.4 KB."""


def read_key_file(path: Path, what: str = "key file") -> bytes | None:
    """Return the content of a key file, or None if there is no such file.

    ``what`` names it in messages: a passphrase is kept like a key.

    Raises:
        StartError: a dangling link, not a regular file, of another owner, accessible to others,
            unreadable, empty or too large. The message names what to do.
    """
    try:
        # NONBLOCK: a pipe in the key's place must not block the start.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if path.is_symlink():
            raise StartError(
                f"{what} {path} is a symbolic link to {path.readlink()}, which is not there; "
                "mount or restore the key, or remove the link"
            ) from None
        return None
    except OSError as error:
        raise StartError(f"{what} {path} cannot be read: {error.strerror}") from None
    try:
        _check_access(path, os.fstat(fd), what)
        data = b""
        while chunk := os.read(fd, KEY_FILE_BYTES_MAX + 1 - len(data)):
            data += chunk
    except OSError as error:
        raise StartError(f"{what} {path} cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)
    if not data:
        raise StartError(f"{what} {path} is empty; restore it from a backup")
    if len(data) > KEY_FILE_BYTES_MAX:
        raise StartError(f"{what} {path} is too large to be a key")
    return data


def _check_access(path: Path, status: os.stat_result, what: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StartError(f"{what} {path} is not a regular file")
    if status.st_uid not in (os.geteuid(), 0):
        raise StartError(
            f"{what} {path} belongs to uid {status.st_uid}, the server runs as "
            f"{os.geteuid()}; chown it"
        )
    mode = stat.S_IMODE(status.st_mode)
    if open_to_others(status) or mode & stat.S_IXGRP:
        raise StartError(
            f"{what} {path} is open to others (mode {mode:04o}); run: chmod 600 {path}"
        )


def create_key_file(
    path: Path, data: bytes, *, owner: os.stat_result | None = None, replace: bool = False
) -> None:
    """Write a new key file: see ``prepared_key_file``.

    Raises:
        StartError: it cannot be written, or exists by now, or must not be replaced.
    """
    with prepared_key_file(path, data, owner=owner, replace=replace) as publish:
        publish()


@contextlib.contextmanager
def prepared_key_file(
    path: Path, data: bytes, *, owner: os.stat_result | None = None, replace: bool = False
) -> Iterator[Callable[[], None]]:
    """Write a new key file of mode 0600, complete and on disk; yield what gives it its name.

    Args:
        path: of the key file.
        data: its content.
        owner: a file whose owner the new file gets; None: this process's user.
        replace: may replace an existing file, which stays intact until then.

    Raises:
        StartError: it cannot be written, or exists by now, or must not be replaced.
    """
    if replace:
        refuse_replacing(path)
    step = "create"

    def publish() -> None:
        nonlocal step
        step = "rename" if replace else "link"
        if replace:
            partial.replace(path)
        else:
            _publish(partial, path)
        step = "fsync of its directory"
        sync_directory(path.parent)

    try:
        with unfinished(path) as (partial, file):
            step = "write"
            file.write(data)
            if owner is not None:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.flush()
            step = "fsync"
            sync_file(file.fileno(), path)
            yield publish
    except OSError as error:
        raise StartError(f"key file {path} cannot be written ({step}): {error.strerror}") from None


def refuse_replacing(path: Path) -> None:
    """Refuse to replace what somebody has put in the place of a key file, such as a link.

    A link is not followed: this may run as root, in a directory that another user may write.

    Raises:
        StartError: there is something else than a regular file.
    """
    if path.is_symlink():
        raise StartError(
            f"key file {path} is a symbolic link to {path.readlink()}: it is not replaced; put a"
            " copy of that file in its place"
        )
    if path.exists() and not path.is_file():
        raise StartError(f"key file {path} is not a regular file: it is not replaced")


def _publish(partial: Path, path: Path) -> None:
    """Give a complete file its name, unless a file has it."""
    try:
        os.link(partial, path)  # unlike a rename, it fails where a file exists
    except FileExistsError:
        raise
    except OSError:
        # vfat, some network file systems and containers have no hard links. There is no race: only
        # this user can write the directory, and it is locked.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        partial.rename(path)
