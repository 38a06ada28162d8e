"""Repairs the standard streams, in whatever state the parent left them.

They may be closed, or non-blocking. That flag belongs to the open file description, which the
parent and other processes share, so it is neither assumed nor changed: waiting is done here.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

from relay.terminal.readiness import name_of, wait_until_readable, wait_until_writable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


def prepare_streams() -> None:
    """Make stdin, stdout and stderr usable; call once, before anything is printed."""
    _open_missing()
    if sys.platform != "win32":
        sys.stdin = _patient_input(sys.stdin)
        sys.stdout = _patient(sys.stdout)
        sys.stderr = _patient(sys.stderr, lossy=True)


_MISSING: Final = (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))
"""How each stream closed by the parent is opened. Writing to stdout then fails, as for a closed
one: use /dev/null to suppress output."""


def _open_missing() -> None:
    """Replace streams that the parent closed: otherwise a socket could get their numbers."""
    for number, (name, flags) in enumerate(_MISSING):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            mode = "r" if name == "stdin" else "w"
            stream = os.fdopen(number, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)


def _patient(stream: TextIO, *, lossy: bool = False) -> TextIO:
    """Return a text stream like this one that waits when a non-blocking pipe is full.

    ``lossy``: what cannot be written, because of a full disk for example, is lost silently.

    Encoding as in ``terminal.output``: UTF-8, except for a terminal with another encoding; what
    that cannot express is written as visible escapes.
    """
    assert isinstance(stream, io.TextIOWrapper)
    stream.flush()
    file = _PatientFile(stream.fileno(), lossy=lossy)
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=stream.encoding if file.isatty() else "utf-8",
        errors="backslashreplace",
        # PYTHONUNBUFFERED only sets write_through, which ends at the buffer that is new here.
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _patient_input(stream: TextIO) -> TextIO:
    """Return a text stream like this one that waits when a non-blocking pipe is empty.

    Invalid text in it is read as visible escapes; whatever parses it reports the error.
    """
    file = _PatientInput(stream.fileno(), closefd=False)
    return io.TextIOWrapper(
        io.BufferedReader(file),
        encoding=stream.encoding if file.isatty() else "utf-8",
        errors="backslashreplace",
    )


class _PatientInput(io.FileIO):
    """A file that is read with waiting, if it is non-blocking."""

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        while True:
            try:
                count: int | None = super().readinto(buffer)
            except OSError as error:
                error.filename = name_of(self.fileno())  # for the error message
                raise
            if count is not None:
                return count
            wait_until_readable(self.fileno())

    def read(self, size: int | None = -1, /) -> bytes:
        return io.RawIOBase.read(self, -1 if size is None else size)  # implemented by readinto

    def readall(self) -> bytes:
        return io.RawIOBase.readall(self)


class _PatientFile(io.RawIOBase):
    """A file that is written with waiting, if it is non-blocking."""

    def __init__(self, fd: int, *, lossy: bool) -> None:
        self._fd = fd
        self._lossy = lossy

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
            except OSError as error:
                # A notice that cannot be written is no reason to stop. If the reader has gone, end
                # as programs usually do.
                if self._lossy and not isinstance(error, BrokenPipeError):
                    return len(memoryview(data))
                error.filename = name_of(self._fd)  # for the error message
                raise
