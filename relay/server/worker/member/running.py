"""What a log has received from its home and not distributed yet."""

from __future__ import annotations

from relay import limits
from relay.server.worker.delivery.batch import Batch


class RunningBatch:
    """What a log has received from its home and not distributed yet, in order."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[tuple[int, bytes, int, int, bytes]] = []
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, prev: int, epoch: bytes, last: int, count: int, content: bytes) -> None:
        """Append whole entries: ``count`` of them after ``prev``, up to (``epoch``, ``last``)."""
        self._pieces.append((prev, epoch, last, count, content))
        self.size += len(content)

    def clear(self) -> None:
        """Forget everything."""
        self._pieces.clear()
        self.size = 0

    def close(self, log: str, epoch: bytes) -> list[Batch]:
        """Return the entries as batches of at most one record each, and begin anew.

        Args:
            log: the log's name.
            epoch: the epoch of the entry before the first one (what a reader's cursor holds).
        """
        pieces, self._pieces, self.size = self._pieces, [], 0
        batches: list[Batch] = []
        start = size = 0
        for index, piece in enumerate(pieces):
            length = len(piece[4])
            if index > start and size + length > limits.RECORD_CONTENT_BYTES_MAX:
                batches.append(_join(log, epoch, pieces[start:index]))
                epoch = pieces[index - 1][1]
                start, size = index, 0
            size += length
        batches.append(_join(log, epoch, pieces[start:]))
        return batches


def _join(log: str, epoch: bytes, pieces: list[tuple[int, bytes, int, int, bytes]]) -> Batch:
    content = pieces[0][4] if len(pieces) == 1 else b"".join([piece[4] for piece in pieces])
    count = sum([piece[3] for piece in pieces])
    return Batch(log, epoch, pieces[0][0], pieces[-1][2], count, content)
