"""Reads lines of standard input for an event loop, with bounded memory.

A thread reads: nothing else works for files, pipes and consoles on every system. It is never more
than one read ahead of its consumer.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from relay.terminal.readiness import name_of, wait_until_readable

READ_BYTES: Final = 65_536


class InputLine(NamedTuple):
    """One line, without its newline."""

    number: int
    """From 1."""
    data: bytes
    """The whole line; only its beginning if it is too long."""
    length: int
    """Length of the whole line in bytes."""

    @property
    def is_whole(self) -> bool:
        """False for a line over the limit."""
        return len(self.data) == self.length


class LineSplitter:
    """Splits bytes into lines. A line is kept up to a limit; the rest of it is only counted."""

    def __init__(self, line_bytes_max: int) -> None:
        self._max = line_bytes_max
        self._begun = bytearray()
        self._length = 0
        self._number = 0

    def feed(self, data: bytes) -> list[InputLine]:
        """Return the lines completed by these bytes."""
        pieces = data.split(b"\n")
        lines = []
        for piece in pieces[:-1]:
            self._extend(piece)
            lines.append(self._take())
        self._extend(pieces[-1])
        return lines

    def end(self) -> list[InputLine]:
        """Return the last line, if the input does not end with a newline."""
        return [self._take()] if self._length else []

    def _extend(self, piece: bytes) -> None:
        self._length += len(piece)
        room = self._max - len(self._begun)
        self._begun += piece[: max(room, 0)]

    def _take(self) -> InputLine:
        data, length = bytes(self._begun), self._length
        if os.name == "nt" and data.endswith(b"\r") and len(data) == length:
            data, length = data[:-1], length - 1
        self._begun.clear()
        self._length = 0
        self._number += 1
        return InputLine(self._number, data, length)


async def read_lines(fd: int, line_bytes_max: int) -> AsyncIterator[InputLine]:
    """Yield the lines of a file descriptor until its end.

    Raises:
        OSError: it cannot be read.
    """
    loop = asyncio.get_running_loop()
    batches: asyncio.Queue[list[InputLine] | OSError | None] = asyncio.Queue()
    taken = threading.Semaphore(1)

    def hand_over(batch: list[InputLine] | OSError | None) -> None:
        taken.acquire()
        loop.call_soon_threadsafe(batches.put_nowait, batch)

    def read() -> None:
        splitter = LineSplitter(line_bytes_max)
        try:
            # Not sys.stdin: its lock, held by this thread, would stop the interpreter's exit.
            while data := _read(fd):
                hand_over(splitter.feed(data))
            hand_over(splitter.end())
            hand_over(None)
        except OSError as error:
            hand_over(error)

    def run() -> None:
        try:
            read()
        except RuntimeError:
            return  # the loop is closed: nobody wants lines any more

    threading.Thread(target=run, name="input", daemon=True).start()
    while True:
        batch = await batches.get()
        if batch is None:
            return
        if isinstance(batch, OSError):
            raise batch
        for line in batch:
            yield line
        taken.release()


def _read(fd: int) -> bytes:
    """Return what there is, waiting for it also where the file is non-blocking."""
    while True:
        try:
            return os.read(fd, READ_BYTES)
        except BlockingIOError:
            wait_until_readable(fd)
        except OSError as error:
            error.filename = name_of(fd)
            raise
