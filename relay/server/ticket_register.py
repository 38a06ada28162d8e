"""The register of issued and used tickets: shared memory of all workers of a server.

It is one mapping, created before the first fork, with a bitmap for each ticket key in use: one bit
per ticket. A ticket is used by setting its bit. Two workers may be offered the same ticket at the
same time, so its byte is locked meanwhile (a POSIX record lock: the kernel releases it when its
holder dies). A worker that does not get the lock at once treats the ticket as used: the handshake
is then a full one, and nobody ever waits.

It contains no secret. Whatever clients do, tickets take no more memory than this mapping.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import weakref
from collections.abc import Iterator
from typing import Final

from relay.limits import TICKET_KEYS_MAX as KEYS_MAX
from relay.server.anonymous_file import anonymous_file

BITMAP_BYTES: Final = 1 << 20
"""For each key: 8.4 million tickets, or 388 logins per second for the six hours of a key. When they
are used up, there are no more tickets until the next key."""
BLOCK: Final = 256
"""Numbers that a worker takes at a time, so that it rarely needs the lock."""
_CELL_BYTES: Final = 8
_GENERATIONS, _TAKEN = 0, KEYS_MAX
"""Cells: for each part, its key, and how many numbers were taken."""
_HEADER_BYTES: Final = mmap.PAGESIZE
assert 2 * KEYS_MAX * _CELL_BYTES <= _HEADER_BYTES


class TicketRegister:
    """The mapping. Create it before the first fork. Implements ``wire.tickets.Register``."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _HEADER_BYTES + KEYS_MAX * BITMAP_BYTES)
        self._cells = memoryview(self._memory)[:_HEADER_BYTES].cast("Q")
        self._lock_fd = anonymous_file("relay-tickets")
        """Empty: only used for its locks."""
        self._close = weakref.finalize(self, os.close, self._lock_fd)
        self._block: tuple[int, int, int] = (0, 0, 0)
        """This process's numbers: generation, the next one, and the end."""

    def begin(self) -> int | None:
        """Begin the next key; return its generation. The oldest key's tickets are forgotten.

        Only the key agent may call this. None: a stopped worker holds a lock; retry later.
        """
        generation = max(self._cells[_GENERATIONS + part] for part in range(KEYS_MAX)) + 1
        part = generation % KEYS_MAX
        start = self._start(part)
        with self._locked(start, BITMAP_BYTES) as mine, self._locked(part, 1) as header:
            if not (mine and header):
                return None
            self._memory[start : start + BITMAP_BYTES] = bytes(BITMAP_BYTES)
            self._cells[_TAKEN + part] = 0
            self._cells[_GENERATIONS + part] = generation
        return generation

    def allot(self, generation: int) -> int | None:
        """Return a number for a new ticket; None: there are no more for this key."""
        held, number, end = self._block
        if held != generation or number == end:
            taken = self._take(generation)
            if taken is None:
                return None
            number, end = taken, taken + BLOCK
        self._block = (generation, number + 1, end)
        return number

    def _take(self, generation: int) -> int | None:
        part = generation % KEYS_MAX
        with self._locked(part, 1) as mine:
            first = self._cells[_TAKEN + part]
            ours = self._cells[_GENERATIONS + part] == generation
            if not (mine and ours) or first + BLOCK > 8 * BITMAP_BYTES:
                return None
            self._cells[_TAKEN + part] = first + BLOCK
            return int(first)

    def spend(self, generation: int, serial: int) -> bool:
        """Use a ticket. False: it was used before, or this cannot be determined."""
        part = generation % KEYS_MAX
        if not 0 <= serial < 8 * BITMAP_BYTES:
            return False
        at, bit = self._start(part) + serial // 8, 1 << serial % 8
        with self._locked(at, 1) as mine:
            ours = self._cells[_GENERATIONS + part] == generation
            if not (mine and ours) or self._memory[at] & bit:
                return False
            self._memory[at] |= bit
            return True

    def close(self) -> None:
        """Close it, in a process that does not use tickets."""
        self._close()
        self._cells.release()
        with contextlib.suppress(BufferError):
            self._memory.close()

    @staticmethod
    def _start(part: int) -> int:
        return _HEADER_BYTES + part * BITMAP_BYTES

    @contextlib.contextmanager
    def _locked(self, start: int, length: int) -> Iterator[bool]:
        """Hold a lock; yields False if another process holds it."""
        try:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_UN, length, start)
