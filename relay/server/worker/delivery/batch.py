"""Batches: entries of one log that are sent together, as bytes shared by all members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from relay import limits
from relay.chunking import chunks

EVENT: Final = 0
"""``last`` of a batch without entries (a roster change): it moves no cursor."""


class Batch:
    """Immutable. Members' outboxes hold references to it, never copies."""

    __slots__ = ("content", "control", "count", "last", "log", "prev", "prev_epoch", "size")

    def __init__(
        self,
        log: str,
        prev_epoch: bytes,
        prev: int,
        last: int,
        count: int,
        content: bytes,
        control: bool = False,
    ) -> None:
        self.log = log
        self.prev_epoch = prev_epoch
        self.prev = prev
        self.last = last
        self.count = count
        self.content = content
        self.size = len(content)
        self.control = control
        """True if it is one control entry: different readers may see what follows."""


Piece: TypeAlias = tuple[int, bytes, int, int, bytes, bool]
"""The arguments of ``RunningBatch.add``."""


class RunningBatch:
    """The entries that a log has received from its home and not distributed yet, in order."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(
        self, prev: int, epoch: bytes, last: int, count: int, content: bytes, control: bool
    ) -> None:
        """Append whole entries: ``count`` of them after ``prev``, up to (``epoch``, ``last``).

        ``control``: this is one control entry.
        """
        self._pieces.append((prev, epoch, last, count, content, control))
        self.size += len(content)

    def close(self, log: str, epoch: bytes) -> list[Batch]:
        """Return the entries as batches of at most one record each, and clear the list.

        A control entry becomes a batch of its own.

        Args:
            log: the log's name.
            epoch: the epoch of the entry before the first one (as in a reader's cursor).
        """
        pieces, self._pieces, self.size = self._pieces, [], 0
        if len(pieces) == 1:  # the common case: one message
            prev, _, last, count, content, control = pieces[0]
            return [Batch(log, epoch, prev, last, count, content, control)]
        batches: list[Batch] = []
        start = 0
        for end in range(1, len(pieces) + 1):
            if end < len(pieces) and not pieces[end][5] and not pieces[end - 1][5]:
                continue
            run = pieces[start:end]
            start = end
            sizes = [len(piece[4]) for piece in run]
            for chunk in chunks(run, sizes=sizes, bytes_max=limits.RECORD_CONTENT_BYTES_MAX):
                batches.append(_join(log, epoch, chunk))
                epoch = chunk[-1][1]
        return batches


def _join(log: str, epoch: bytes, pieces: Sequence[Piece]) -> Batch:
    content = pieces[0][4] if len(pieces) == 1 else b"".join([piece[4] for piece in pieces])
    count = sum([piece[3] for piece in pieces])
    return Batch(log, epoch, pieces[0][0], pieces[-1][2], count, content, pieces[0][5])
