"""A fair, bounded queue of handshakes for RSA. Pure.

Fair by source: each source (an IPv4 address, an IPv6 /64) has its own queue, and they are served in
turn. Beyond the limit the newest request of the longest queue is dropped, so a storm from one
address costs the others nothing (McKenney's stochastic fairness queueing, with exact sources).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, Generic, TypeVar

Job = TypeVar("Job")

LIMIT_MIN: Final = 32
"""Minimum limit, however slow RSA is: a burst from a few clients is no storm."""
LIMIT_MAX: Final = 4096


class FairQueue(Generic[Job]):
    """Queues by source, served round robin. Every operation is O(1)."""

    def __init__(self) -> None:
        self.limit = LIMIT_MAX
        """Maximum jobs in all queues; may be changed at any time, applied at the next push."""
        self._queues: OrderedDict[str, deque[Job]] = OrderedDict()
        self._by_length: list[dict[str, None]] = [{}]
        """At index n: the sources with n waiting jobs."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, source: str, job: Job) -> list[Job]:
        """Add a job. Returns the jobs dropped for it: possibly this one, possibly none."""
        queue = self._queues.setdefault(source, deque())
        queue.append(job)
        self._resize(source, len(queue) - 1, len(queue))
        shed = []
        while self._count > self.limit:
            while not self._by_length[-1]:
                self._by_length.pop()
            longest = next(reversed(self._by_length[-1]))
            victim = self._queues[longest]
            shed.append(victim.pop())
            self._shrunk(longest, victim)
        return shed

    def pop(self) -> Job | None:
        """Remove and return the oldest job of the next source; None if there is none."""
        if not self._count:
            return None
        source, queue = next(iter(self._queues.items()))
        job = queue.popleft()
        self._queues.move_to_end(source)
        self._shrunk(source, queue)
        return job

    def _shrunk(self, source: str, queue: deque[Job]) -> None:
        self._resize(source, len(queue) + 1, len(queue))
        if not queue:
            del self._queues[source]

    def _resize(self, source: str, before: int, after: int) -> None:
        self._count += after - before
        if before:
            del self._by_length[before][source]
        if after:
            while len(self._by_length) <= after:
                self._by_length.append({})
            self._by_length[after][source] = None
