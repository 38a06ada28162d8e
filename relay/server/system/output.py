"""Writes to an inherited descriptor without ever blocking on its reader.

stderr and stdout are shared with the process that started the server, often with a terminal.
O_NONBLOCK would also affect the descriptors of others, because it belongs to the open file
description. So each kind of file is treated differently:

- A pipe or terminal is opened again through /proc, which creates an open file description of our
  own.
- Where that is refused (a pipe of another user), each write to a pipe has the flag RWF_NOWAIT.
  Where that is refused, too, poll(2) is called before each write, which is at most PIPE_BUF for a
  pipe and one byte for a terminal, because a terminal with less room would block.
- Each write to a socket has the flag RWF_NOWAIT.
- A regular file only blocks on its disk, which also holds the messages. Opened again, it would have
  its own offset and overwrite what others wrote. What a full disk accepts of a line is removed.

A writer process or thread would need none of this. But a thread cannot exist in a process that
forks, and another process would have to be watched, restarted and drained itself.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from typing import Final

_RWF_NOWAIT: Final = 8
"""From linux/fs.h; ``os`` has the name only in some builds."""
_UNSUPPORTED: Final = (
    errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ESPIPE,
    errno.EPERM,  # what a container's filter returns for an unknown system call
)  # fmt: skip


class Output:
    """A descriptor to which lines are written completely or not at all."""

    def __init__(self, fd: int, *, reopen: bool = True) -> None:
        """Determine how ``fd`` can be written without blocking.

        Args:
            fd: stays open, and belongs to the caller.
            reopen: False: do not open it again.
        """
        self._fd = fd
        self._own = False
        """True if the descriptor was opened here."""
        self._rest = b""
        """The rest of a line that the kernel accepted in part: it is written before anything else.
        """
        self._nowait = False
        self._polled_bytes = 0
        """How much may be written after poll(2); 0: it is not used."""
        mode = os.fstat(fd).st_mode
        self._regular = stat.S_ISREG(mode)
        if stat.S_ISSOCK(mode):
            self._nowait = True
        elif stat.S_ISFIFO(mode) or os.isatty(fd):
            own = _reopen(fd) if reopen else -1
            if own >= 0:
                self._fd, self._own = own, True
            else:
                self._nowait = True

    def write(self, line: bytes) -> bool:
        """Write a line. False: it could not be written now, not even in part, and is lost.

        Up to PIPE_BUF bytes (4096) are written to a pipe atomically, whatever other processes write
        to it.
        """
        if not self._flush():
            return False
        self._rest = line
        if self._flush():
            return True
        begun = len(line) - len(self._rest)
        if begun and not self._taken_back(begun):
            return True
        self._rest = b""
        return False

    def reset_in_child(self) -> None:
        """After a fork: the parent writes the rest of a line."""
        self._rest = b""

    def close(self) -> None:
        """Close what was opened here."""
        if self._own:
            os.close(self._fd)
            self._own = False

    def _taken_back(self, count: int) -> bool:
        """Remove the beginning of a line from a file whose disk is full; return False if it stays.

        Until there is space for the rest others may write their lines there, and this process may
        end.
        """
        if not self._regular:
            return False
        try:
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if os.fstat(self._fd).st_size != end:
                return False  # others have written since then
            os.ftruncate(self._fd, end - count)
            os.lseek(self._fd, end - count, os.SEEK_SET)
        except OSError:
            return False
        return True

    def _flush(self) -> bool:
        while self._rest:
            try:
                self._rest = self._rest[self._write_some(self._rest) :]
            except OSError:
                return False
        return True

    def _write_some(self, data: bytes) -> int:
        if self._nowait:
            try:
                return os.pwritev(self._fd, [data], -1, _RWF_NOWAIT)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._nowait = False
                self._polled_bytes = 1 if os.isatty(self._fd) else select.PIPE_BUF
        if self._polled_bytes:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            if not any(events & select.POLLOUT for _, events in poll.poll(0)):
                raise BlockingIOError
            return os.write(self._fd, data[: self._polled_bytes])
        return os.write(self._fd, data)


def _reopen(fd: int) -> int:
    """Return a descriptor of our own open file description for a pipe or terminal; -1: refused."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        return -1
