"""The register of issued and used tickets: shared memory of all workers of a server.

One mapping, made before the first fork, of a file without a name that the next version takes over
in an upgrade: for each ticket key in use a bitmap, a bit for each ticket of it. A ticket is used by
setting its bit. Two workers may be offered one ticket in the same moment, so its byte is locked
meanwhile (a POSIX record lock: the kernel frees it when its holder dies). Whoever does not get the
lock at once takes the ticket for used: then the handshake is a full one, and nobody ever waits.

It contains no secret. Whatever clients do, tickets take no more memory than this mapping.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import sys
import weakref
from collections.abc import Iterator
from typing import Final

from relay.limits import TICKET_KEYS_MAX as KEYS_MAX
from relay.server.system.anonymous_file import anonymous_file, set_size

BITMAP_BYTES: Final = 1 << 20
"""For each key: 8.4 million tickets, or 388 logins per second for the six hours of a key. When they
are used up, there are no more tickets until the next key."""
BLOCK: Final = 256
"""Numbers that a worker takes at a time, so that it rarely needs the lock."""
_CELL_BYTES: Final = 8
_GENERATION_MAX: Final = 2**63
_BEGINS: Final = KEYS_MAX
"""Whose byte is locked while a key begins; those before it, while numbers of a part are taken."""
_GENERATIONS, _TAKEN = 0, KEYS_MAX
"""Cells: for each part, its key, and how many numbers were taken."""
_FORMAT, _FORMAT_CELL = 1, 2 * KEYS_MAX
"""The last cell tells how this is laid out: another version takes over what it knows."""
_HEADER_BYTES: Final = mmap.PAGESIZE
_BYTES: Final = _HEADER_BYTES + KEYS_MAX * BITMAP_BYTES
assert (_FORMAT_CELL + 1) * _CELL_BYTES <= _HEADER_BYTES


class TicketRegister:
    """The mapping. Create it before the first fork. Implements ``wire.tickets.Register``."""

    def __init__(self, fd: int = -1) -> None:
        """Make it, or take over that of the server before, if its layout is known.

        Args:
            fd: what ``fd`` was there; -1: there was none.
        """
        memory = None if fd < 0 else _taken_over(fd)
        self._lock_fd = fd if memory is not None else anonymous_file("relay-tickets")
        """Its locks count even where it is empty."""
        self.fd = self._lock_fd
        """For the next version; -1: there is nothing that could be handed over."""
        if memory is None:
            try:
                if set_size(self._lock_fd, _BYTES):
                    memory = mmap.mmap(self._lock_fd, _BYTES)
            except OSError:  # a limit on the size of files is one on this, too
                pass
        if memory is None:
            memory, self.fd = mmap.mmap(-1, _BYTES), -1
        self._memory = memory
        self._cells = memoryview(self._memory)[:_HEADER_BYTES].cast("Q")
        self._cells[_FORMAT_CELL] = _FORMAT
        self._close = weakref.finalize(self, os.close, self._lock_fd)
        self._block: tuple[int, int, int] = (0, 0, 0)
        """This process's numbers: generation, the next one, and the end."""

    def begin(self) -> int | None:
        """Begin the next key; return its generation. The oldest key's tickets are forgotten.

        Only the key agent may call this. None: a stopped worker holds a lock; retry later.
        """
        with self._locked(_BEGINS, 1) as alone:  # in an upgrade there are two agents
            generation = max(self._cells[_GENERATIONS + part] for part in range(KEYS_MAX)) + 1
            if generation > _GENERATION_MAX:  # written by a worker that was taken over
                return None
            part = generation % KEYS_MAX
            start = self._start(part)
            with self._locked(start, BITMAP_BYTES) as mine, self._locked(part, 1) as header:
                if not (alone and mine and header):
                    return None
                if self._cells[_GENERATIONS + part]:  # it was used before: else it is empty, and
                    # writing to it would take up the memory of a key's tickets
                    self._memory[start : start + BITMAP_BYTES] = bytes(BITMAP_BYTES)
                self._cells[_TAKEN + part] = 0
                self._cells[_GENERATIONS + part] = generation
        return generation

    def knows(self, generation: int) -> bool:
        """Tell whether the tickets of a key are recorded here, still."""
        return bool(self._cells[_GENERATIONS + generation % KEYS_MAX] == generation)

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
        if not self._lock(at, 1):
            return False
        try:
            if self._cells[_GENERATIONS + part] != generation or self._memory[at] & bit:
                return False
            self._memory[at] |= bit
            return True
        finally:
            self._unlock(at, 1)

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
        mine = self._lock(start, length)
        try:
            yield mine
        finally:
            if mine:
                self._unlock(start, length)

    def _lock(self, start: int, length: int) -> bool:
        try:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except OSError:
            return False
        return True

    def _unlock(self, start: int, length: int) -> None:
        fcntl.lockf(self._lock_fd, fcntl.LOCK_UN, length, start)


def _taken_over(fd: int) -> mmap.mmap | None:
    """Map the file of the server before; None: it is laid out in another way, and closed."""
    with contextlib.suppress(OSError, ValueError):
        if os.fstat(fd).st_size == _BYTES:
            memory = mmap.mmap(fd, _BYTES)
            at = _FORMAT_CELL * _CELL_BYTES
            if int.from_bytes(memory[at : at + _CELL_BYTES], sys.byteorder) == _FORMAT:
                return memory
            memory.close()
    os.close(fd)
    return None
