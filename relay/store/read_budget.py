"""Limits how much one commit may read to decide about its submissions."""

from __future__ import annotations

from math import inf


class ReadBudget:
    """Limit for the reads of one ``append``, and the reads it has done.

    New messages of cached producers and logs need no read, nor do repeats of submissions in the
    same batch. Other repeats, and whatever is not cached, need some; each read takes about 3 µs
    while the file is in the kernel's cache. The last counter of a producer needs 1, a resend in
    order 2 each, and an arbitrary counter among the last ``limits.REPEATS_BACK_MAX`` 60 on average
    and 120 at most. Creating a log counts as 24, for what it writes. Changing a log's state counts
    by its size, as does decoding it. The caller charges the reads in ``spent`` to the senders of
    the submissions.
    """

    __slots__ = ("reads_max", "spent", "until_s")

    def __init__(self, reads_max: int, until_s: float = inf) -> None:
        """Create with nothing spent.

        Args:
            reads_max: after this many reads no further submission is begun; the current one is
                finished.
            until_s: the same at this value of ``time.monotonic()``; only reads are limited by it.
        """
        self.reads_max = reads_max
        self.until_s = until_s
        self.spent: list[int] = []
        """Number of reads for each submission that has an outcome."""
