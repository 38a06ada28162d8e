"""The standard streams, whatever state the parent left them in.

They may be closed, or non-blocking: that flag belongs to the open file, which the parent and other
processes share, so it is neither expected nor changed. Waiting is done here instead.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from relay.terminal.readiness import wait_until_writable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def prepare_streams() -> None:
    """Make stdin, stdout and stderr usable; call once, before anything is printed."""
    _open_missing()
    if sys.platform != "win32":
        sys.stdout = _patient(sys.stdout)
        sys.stderr = _patient(sys.stderr)


def _open_missing() -> None:
    """Replace streams that our parent closed: otherwise a socket could take their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  # open until the end


def _patient(stream: TextIO) -> TextIO:
    """Return a text stream like this one that waits where a non-blocking pipe is full."""
    assert isinstance(stream, io.TextIOWrapper)
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_PatientFile(stream.fileno())),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _PatientFile(io.RawIOBase):
    """An open file that is written to however long it takes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: ReadableBuffer, /) -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                wait_until_writable(self._fd)
