"""The submissions of one partition that wait for a commit, and which of them go into the next.

A new message costs the store no read. A repeat costs some, and one of long ago many
(``store.log.ReadBudget``). So there are two lanes: whoever made a commit read more than
``READS_FREE`` waits in the slow one until all that it sent is answered, and only few of that lane
go into a commit. Old counters then delay their sender, and nobody else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.chat.entries import Submission

GROUP_MAX: Final = 512
"""Submissions in one commit: about 5 ms."""
SLOW_PER_GROUP: Final = 8
"""Of those, from the slow lane: one of each of so many producers, in turn."""
READS_FREE: Final = 64
"""Reads by which a producer does not become slow: half a repeat of the dearest kind, or the resend
of thirty messages in order."""
Key: TypeAlias = tuple[str, bytes]
"""(log, producer): whose order must be kept."""


class Waiting(NamedTuple):
    """A submission that waits for its commit, and where its answer goes."""

    port: Port
    tag: int
    submission: Submission


class Submissions:
    """See the module's docstring. In each lane the order of a producer is kept."""

    __slots__ = ("bytes", "fast", "slow")

    def __init__(self) -> None:
        self.fast: deque[Waiting] = deque()
        self.slow: dict[Key, deque[Waiting]] = {}
        """By producer; the first in the dict is the next in turn."""
        self.bytes = 0
        """Of all bodies that wait."""

    def __len__(self) -> int:
        return len(self.fast) + sum(map(len, self.slow.values()))

    def __bool__(self) -> bool:
        return bool(self.fast or self.slow)

    def put(self, waiting: Waiting) -> None:
        """Queue a submission."""
        self.bytes += len(waiting.submission.body)
        if self.slow:
            lane = self.slow.get(_key(waiting))
            if lane is not None:
                lane.append(waiting)
                return
        self.fast.append(waiting)

    def take(self) -> list[Waiting]:
        """Remove the submissions of the next commit. Those of the slow lane are the last."""
        fast = self.fast
        if len(fast) <= GROUP_MAX:
            group = list(fast)
            fast.clear()
        else:
            group = [fast.popleft() for _ in range(GROUP_MAX)]
        if self.slow:
            group += self._take_slow()
        elif not fast:
            self.bytes = 0
            return group
        self.bytes -= sum([len(waiting.submission.body) for waiting in group])
        return group

    def take_all(self) -> list[Waiting]:
        """Remove everything."""
        found = [*self.fast, *(waiting for lane in self.slow.values() for waiting in lane)]
        self.fast.clear()
        self.slow.clear()
        self.bytes = 0
        return found

    def give_back(self, rest: list[Waiting]) -> None:
        """Put back, before all others, what a commit did not get to."""
        self.bytes += sum([len(waiting.submission.body) for waiting in rest])
        for waiting in reversed(rest):
            lane = self.slow.get(_key(waiting)) if self.slow else None
            (self.fast if lane is None else lane).appendleft(waiting)

    def charge(self, group: list[Waiting], reads: list[int]) -> None:
        """Learn what each submission of a commit has cost; dear producers become slow ones.

        To be called before ``give_back``. A producer with nothing in the slow lane is a fast one
        again.
        """
        if not any(reads):
            if self.slow:
                self._end_lanes()
            return
        spent: dict[Key, int] = {}
        for waiting, count in zip(group, reads, strict=False):
            if count:
                key = _key(waiting)
                spent[key] = spent.get(key, 0) + count
        dear = {key for key, count in spent.items() if count > READS_FREE}
        for key in dear:
            self.slow.setdefault(key, deque())
        if dear and self.fast:
            kept: deque[Waiting] = deque()
            for waiting in self.fast:
                key = _key(waiting)
                (self.slow[key] if key in dear else kept).append(waiting)
            self.fast = kept
        for waiting in islice(group, len(reads), None):  # about to be given back: keep the lane
            spent.setdefault(_key(waiting), 0)
        self._end_lanes(keep=spent)

    def remove(self, unwanted: Callable[[Waiting], bool]) -> None:
        """Forget some."""
        self.fast = deque(waiting for waiting in self.fast if not unwanted(waiting))
        for key, lane in list(self.slow.items()):
            self.slow[key] = deque(waiting for waiting in lane if not unwanted(waiting))
        self._end_lanes()
        self.bytes = sum(
            len(waiting.submission.body)
            for lane in (self.fast, *self.slow.values())
            for waiting in lane
        )

    def _take_slow(self) -> list[Waiting]:
        found: list[Waiting] = []
        for key in list(islice(self.slow, SLOW_PER_GROUP)):
            lane = self.slow.pop(key)
            if lane:
                found.append(lane.popleft())
            self.slow[key] = lane  # the last in turn now; ``charge`` ends it when it is empty
        return found

    def _end_lanes(self, keep: dict[Key, int] | None = None) -> None:
        if self.slow:
            for key, lane in list(self.slow.items()):
                if not lane and (keep is None or key not in keep):
                    del self.slow[key]


def _key(waiting: Waiting) -> Key:
    submission = waiting.submission
    return submission.log, submission.producer
