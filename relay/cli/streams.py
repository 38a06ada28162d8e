"""Repairs the standard streams, whatever state the parent left them in.

They may be closed, or non-blocking: that flag belongs to the open file, which the parent and other
processes share, so it is neither expected nor changed. Waiting is done here instead.
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
"""How each is opened that our parent closed. Writing to stdout fails then, as it does to what is
closed: whoever wants nothing printed gives /dev/null."""


def _open_missing() -> None:
    """Replace streams that our parent closed: otherwise a socket could take their numbers."""
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
    """Return a text stream like this one that waits where a non-blocking pipe is full.

    ``lossy``: what it does not take, such as a full disk, is lost without an error.

    As in ``terminal.output``: UTF-8, except for a terminal of another encoding, and what that
    cannot express is written as visible escapes.
    """
    assert isinstance(stream, io.TextIOWrapper)
    stream.flush()
    file = _PatientFile(stream.fileno(), lossy=lossy)
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=stream.encoding if file.isatty() else "utf-8",
        errors="backslashreplace",
        # PYTHONUNBUFFERED sets write_through alone, which ends at the buffer that is new here.
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _patient_input(stream: TextIO) -> TextIO:
    """Return a text stream like this one that waits where a non-blocking pipe is empty.

    What is no text in it is read as visible escapes: whoever expects something says what is wrong.
    """
    file = _PatientInput(stream.fileno(), closefd=False)
    return io.TextIOWrapper(
        io.BufferedReader(file),
        encoding=stream.encoding if file.isatty() else "utf-8",
        errors="backslashreplace",
    )


class _PatientInput(io.FileIO):
    """An open file that is read from however long it takes."""

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        while True:
            try:
                count: int | None = super().readinto(buffer)
            except OSError as error:
                error.filename = name_of(self.fileno())  # for the line that tells of it
                raise
            if count is not None:
                return count
            wait_until_readable(self.fileno())

    def read(self, size: int | None = -1, /) -> bytes:
        return io.RawIOBase.read(self, -1 if size is None else size)  # by readinto

    def readall(self) -> bytes:
        return io.RawIOBase.readall(self)


class _PatientFile(io.RawIOBase):
    """An open file that is written to however long it takes."""

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
                # A notice that nobody gets is no reason to stop what it is about. Where its reader
                # has gone away, it ends as programs do.
                if self._lossy and not isinstance(error, BrokenPipeError):
                    return len(memoryview(data))
                error.filename = name_of(self._fd)  # for the line that tells of it
                raise
