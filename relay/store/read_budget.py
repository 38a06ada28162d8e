"""How much one commit may read to decide about its submissions."""

from __future__ import annotations

from math import inf


class ReadBudget:
    """How much one ``append`` may read to find out about its submissions, and what it has read.

    New messages of producers and logs in use need no read, nor do repeats of what is in the same
    batch. Other repeats, and whatever is not remembered, need some: each takes about 3 µs while the
    file is in the kernel's cache. The last counter of a producer needs 1, a resend in order 2 each,
    a counter picked anywhere in the last ``limits.REPEATS_BACK_MAX`` 60 on average and 120 at most.
    Beginning a log counts as 24, for what it writes.
    The caller charges what was ``spent`` to those who sent the submissions.
    """

    __slots__ = ("reads_max", "spent", "until_s")

    def __init__(self, reads_max: int, until_s: float = inf) -> None:
        """Allow some reads.

        Args:
            reads_max: no other submission is begun when so many reads are done; the one that passes
                this bound is finished.
            until_s: likewise when ``time.monotonic()`` is there; only reads are held against it.
        """
        self.reads_max = reads_max
        self.until_s = until_s
        self.spent: list[int] = []
        """Reads done for each submission that has an outcome."""
