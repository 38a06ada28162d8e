"""Standard output of a program that also maintains a connection.

A pipe with a slow reader would block the event loop, and with it the answers to the server's pings.
Here writing waits for the pipe while the loop runs. Each write is complete when it returns: nothing
is buffered, so a reader sees every line at once.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
from typing import Final

from relay.quotation import escaped
from relay.terminal.readiness import name_of

PIPE_BYTES: Final = 4096
"""PIPE_BUF of Linux: a pipe that is ready accepts this much at once (POSIX guarantees 512)."""


class Output:
    """An open file descriptor for text output."""

    def __init__(self, fd: int, encoding: str = "utf-8") -> None:
        """Write to ``fd``. What ``encoding`` cannot express is written as visible escapes."""
        self.fd = fd
        self.encoding = encoding
        mode = os.fstat(fd).st_mode
        self._is_pipe = stat.S_ISFIFO(mode)
        # epoll accepts no regular files; Windows has neither poll nor loop.add_writer for pipes.
        self._waits = sys.platform != "win32" and not stat.S_ISREG(mode)

    @classmethod
    def stdout(cls) -> Output:
        """Return standard output: UTF-8, except for a terminal with another encoding."""
        sys.stdout.flush()
        fd = sys.stdout.fileno()
        return cls(fd, sys.stdout.encoding if os.isatty(fd) else "utf-8")

    async def write(self, text: str) -> None:
        """Write text, waiting for a slow reader.

        Raises:
            BrokenPipeError: the reader has gone.
            OSError: it cannot be written; ``filename`` names it for messages.
        """
        if sys.platform == "win32" and os.isatty(self.fd):
            # A console accepts no bytes of an encoding; Python's own stream can write to it.
            sys.stdout.write(_encoded(text, self.encoding).decode(self.encoding))
            sys.stdout.flush()
            return
        data = memoryview(_encoded(text, self.encoding))
        while data:
            if self._waits:
                await self._ready()
            try:
                data = data[os.write(self.fd, data[:PIPE_BYTES]) :]
            except BlockingIOError:  # another process wrote in between
                await asyncio.sleep(0)
            except OSError as error:
                error.filename = name_of(self.fd)
                raise

    async def closed_by_reader(self) -> None:
        """Return when the reader of this pipe has gone; never for anything that is not a pipe."""
        gone = asyncio.Event()
        if not self._is_pipe or sys.platform == "win32":
            await gone.wait()
        # The writing end of a pipe never becomes readable: what is reported is its end.
        loop = asyncio.get_running_loop()
        loop.add_reader(self.fd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(self.fd)

    async def _ready(self) -> None:
        if sys.platform == "win32":
            return  # __init__ has excluded it; for the type checker
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        if poll.poll(0):
            return
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_writer(self.fd, ready.set)
        except OSError:  # a file that epoll does not accept does not block for long either
            return
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self.fd)


def _encoded(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(char if _can_say(char, encoding) else escaped(char) for char in text).encode(
            encoding
        )


def _can_say(char: str, encoding: str) -> bool:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
