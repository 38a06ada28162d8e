"""The submissions of one partition that wait for a commit, and which of them go into the next.

Each producer has a lane, and a commit takes a few of each in turn: whoever sends without end waits
for itself. A new message costs the store no read. A repeat costs some, one of long ago and a room
that is new many (``store.log.ReadBudget``): a producer that made a commit read more than
``READS_FREE`` is a *slow* one until all that it sent is answered, and a commit takes few of those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.chat.entries import Submission

GROUP_MAX: Final = 512
"""Submissions in one commit: about 5 ms."""
QUANTUM_MIN: Final = 4
"""Of one producer in one commit, however many others wait."""
SLOW_PER_GROUP: Final = 8
"""Slow producers in one commit, with one submission each; theirs are the last of the group."""
READS_FREE: Final = 64
"""Reads by which a producer does not become slow: half a repeat of the dearest kind, or the resend
of thirty messages in order."""


class Waiting(NamedTuple):
    """A submission that waits for its commit, and where its answer goes."""

    port: Port
    tag: int
    submission: Submission


class Submissions:
    """See the module's docstring. The order of each producer is kept."""

    __slots__ = ("_slow", "bytes", "lanes")

    def __init__(self) -> None:
        self.lanes: dict[bytes, deque[Waiting]] = {}
        """By producer, none of them empty; the first in the dict is the next in turn."""
        self._slow: set[bytes] = set()
        self.bytes = 0
        """Of all bodies that wait."""

    def put(self, waiting: Waiting) -> None:
        """Queue a submission."""
        submission = waiting.submission
        self.bytes += len(submission.body)
        lane = self.lanes.get(submission.producer)
        if lane is None:
            self.lanes[submission.producer] = deque((waiting,))
        else:
            lane.append(waiting)

    def take(self) -> list[Waiting]:
        """Remove the submissions of the next commit. Those of slow producers are the last."""
        lanes = self.lanes
        group: list[Waiting] = []
        if len(lanes) == 1 and not self._slow:
            lane = next(iter(lanes.values()))
            if len(lane) <= GROUP_MAX:  # the usual case: one that sends
                group.extend(lane)
                lanes.clear()
                self.bytes = 0
                return group
        quantum = max(QUANTUM_MIN, GROUP_MAX // len(lanes))
        slow: list[Waiting] = []
        for producer in list(lanes):
            if producer in self._slow:
                if len(slow) >= SLOW_PER_GROUP:
                    continue
                taken, count = slow, 1
            else:
                taken, count = group, quantum
            lane = lanes.pop(producer)
            if len(lane) <= count:
                taken.extend(lane)
            else:
                taken.extend([lane.popleft() for _ in range(count)])
                lanes[producer] = lane  # the last in turn now
            if len(group) >= GROUP_MAX:
                break
        group += slow
        self.bytes -= sum([len(waiting.submission.body) for waiting in group])
        return group

    def take_all(self) -> list[Waiting]:
        """Remove everything."""
        found = [waiting for lane in self.lanes.values() for waiting in lane]
        self.lanes.clear()
        self._slow.clear()
        self.bytes = 0
        return found

    def give_back(self, rest: list[Waiting]) -> None:
        """Put back, before what its producers have sent since, what a commit did not get to."""
        self.bytes += sum([len(waiting.submission.body) for waiting in rest])
        for waiting in reversed(rest):
            producer = waiting.submission.producer
            lane = self.lanes.get(producer)
            if lane is None:
                self.lanes[producer] = deque((waiting,))
            else:
                lane.appendleft(waiting)

    def charge(self, group: list[Waiting], reads: list[int]) -> None:
        """Learn what each submission of a commit has cost, after ``give_back``."""
        if any(reads):
            spent: dict[bytes, int] = {}
            for waiting, count in zip(group, reads, strict=False):
                if count:
                    producer = waiting.submission.producer
                    spent[producer] = spent.get(producer, 0) + count
            self._slow.update([one for one, count in spent.items() if count > READS_FREE])
        if self._slow:
            self._slow.intersection_update(self.lanes)

    def remove(self, unwanted: Callable[[Waiting], bool]) -> None:
        """Forget some."""
        for producer, lane in list(self.lanes.items()):
            kept = deque(waiting for waiting in lane if not unwanted(waiting))
            if kept:
                self.lanes[producer] = kept
            else:
                del self.lanes[producer]
        self.bytes = sum(
            len(waiting.submission.body) for lane in self.lanes.values() for waiting in lane
        )
