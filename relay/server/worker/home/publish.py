"""From committed entries to the batches that workers with members receive."""

from __future__ import annotations

from relay import limits
from relay.bus.messages import Batch
from relay.store.log import Stored


def batches(name: str, rows: list[Stored]) -> list[Batch]:
    """Return committed rows of one log as bus batches of at most one record each."""
    found: list[Batch] = []
    start = size = 0
    for index, row in enumerate(rows):
        length = len(row.packed)
        if index > start and size + length > limits.RECORD_CONTENT_BYTES_MAX:
            found.append(_batch(name, rows[start:index]))
            start, size = index, 0
        size += length
    found.append(_batch(name, rows[start:]))
    return found


def _batch(name: str, rows: list[Stored]) -> Batch:
    last = rows[-1]
    content = last.packed if len(rows) == 1 else b"".join([row.packed for row in rows])
    return Batch(name, rows[0].prev, last.epoch, last.seq, len(rows), content)
