"""A batch: entries of one log that leave together, as one piece of bytes shared by all members."""

from __future__ import annotations

from typing import Final

from relay import limits

EVENT: Final = 0
"""``last`` of a batch that holds no entries (a roster change): no cursor moves with it."""


class Batch:
    """Immutable once made. Members' outboxes hold references, never copies."""

    __slots__ = ("content", "last", "log", "prev", "prev_epoch", "size")

    def __init__(self, log: str, prev_epoch: bytes, prev: int, last: int, content: bytes) -> None:
        self.log = log
        self.prev_epoch = prev_epoch
        self.prev = prev
        self.last = last
        self.content = content
        self.size = len(content)


class RunningBatch:
    """What a log has committed and not distributed yet, in order."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: list[tuple[bytes, int, int, bytes]] = []

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, epoch: bytes, prev: int, seq: int, packed: bytes) -> None:
        """Append one committed entry."""
        self._rows.append((epoch, prev, seq, packed))

    def last(self) -> tuple[bytes, int]:
        """Return (epoch, seq) of the newest entry."""
        epoch, _, seq, _ = self._rows[-1]
        return epoch, seq

    def close(self, log: str, epoch: bytes) -> list[Batch]:
        """Return the entries as batches of at most one record each, and begin anew.

        Args:
            log: the log's name.
            epoch: the epoch of the entry before the first one (what a reader's cursor holds).
        """
        rows, self._rows = self._rows, []
        batches: list[Batch] = []
        start = size = 0
        for index, row in enumerate(rows):
            length = len(row[3])
            if size + length > limits.RECORD_CONTENT_BYTES_MAX:
                batches.append(_join(log, epoch, rows[start:index]))
                epoch = rows[index - 1][0]
                start, size = index, 0
            size += length
        batches.append(_join(log, epoch, rows[start:]))
        return batches


def _join(log: str, epoch: bytes, rows: list[tuple[bytes, int, int, bytes]]) -> Batch:
    return Batch(log, epoch, rows[0][1], rows[-1][2], b"".join([row[3] for row in rows]))
