"""The passphrase of the server's key: from a file, or from an inherited descriptor.

A descriptor may be a pipe, which can be read only once, and the key agent may be restarted. So its
content is kept in an unnamed file in memory that only the agent inherits.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from relay.errors import StartError, UsageError
from relay.server.keys.key_files import read_key_file
from relay.server.system.anonymous_file import anonymous_file

BYTES_MAX: Final = 4096
SETTING: Final = "server.key_passphrase"
_DESCRIPTOR: Final = "fd:"


class PassphraseSource:
    """The source of the passphrase. Created before the first fork, closed in all but the agent."""

    def __init__(self, setting: str, copy_fd: int = -1) -> None:
        """Take the setting: empty, the path of a file, or ``fd:NUMBER``.

        ``copy_fd``: the copy that another server with this setting has handed over.

        Raises:
            UsageError: no such descriptor.
            StartError: it cannot be read.
        """
        self.path: Path | None = None
        self._fd = -1
        if setting.startswith(_DESCRIPTOR):
            self._fd = copy_fd if copy_fd >= 0 else _kept(setting.removeprefix(_DESCRIPTOR))
        elif setting:
            self.path = Path(setting).expanduser().absolute()

    @property
    def copy_fd(self) -> int:
        """The descriptor of the copy; -1: the setting is not a descriptor."""
        return self._fd

    def read(self) -> bytes:
        """Return the passphrase without its line end; empty: there is none.

        Raises:
            StartError: the file must not be used, or is empty.
        """
        if self._fd >= 0:
            return _first_line(os.pread(self._fd, BYTES_MAX + 1, 0), f"{SETTING}: the descriptor")
        if self.path is None:
            return b""
        data = read_key_file(self.path, "passphrase file")
        if data is None:
            raise StartError(f"{SETTING}: there is no file {self.path}")
        return _first_line(data, f"passphrase file {self.path}")

    def close(self) -> None:
        """Close it, in a process that does not need the key."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _kept(number: str) -> int:
    """Copy the content of a descriptor into memory, and close it; return the copy's descriptor."""
    try:
        given = int(number)
        if given < 3:
            raise ValueError
    except ValueError:
        raise UsageError(f"{SETTING}: fd: and a number of 3 or more, not {number!r}") from None
    data = b""
    try:
        while len(data) <= BYTES_MAX and (piece := os.read(given, BYTES_MAX + 1 - len(data))):
            data += piece
        os.close(given)
    except OSError as error:
        raise StartError(f"{SETTING}: descriptor {given}: {error.strerror}") from None
    except OverflowError:
        raise StartError(f"{SETTING}: descriptor {number}: there is none") from None
    try:
        fd = anonymous_file("relay-passphrase", secret=True)
    except OSError as error:
        raise StartError(f"{SETTING}: it cannot be kept in memory: {error.strerror}") from None
    os.write(fd, data)
    return fd


def _first_line(data: bytes, where: str) -> bytes:
    line = data.split(b"\n", 1)[0].rstrip(b"\r")
    if not line or len(line) > BYTES_MAX:
        raise StartError(f"{where} has no passphrase in its first line")
    return line
