"""The submissions of one partition that wait for a commit, and which of them go into the next.

Each producer has a lane, and a commit takes a few of each in turn: whoever sends without end waits
for itself. A lane that was empty comes before those that never are, with half of the commit at most
(as the new flows of FQ-CoDel, RFC 8290, section 4.2): whoever sends now and then does not wait for
all who send without end.

A new message in a log that is in use costs the store no read. A repeat costs some, one of long ago
and a room that is new many (``store.log.ReadBudget``). Three kinds of lanes are *slow*, and few of
those are taken at a time, for a commit of their own:

- one whose next message is for a log that is not in use: it is new, or must be looked up;
- one whose next entry is a control entry, which is committed so that it survives a loss of power;
- one whose producer made a commit read more than ``READS_FREE``, until all it sent is answered.

Of slow lanes those with an entry about an account come first, with half as well: a device that is
removed and a user who is disabled do not stay until everybody has begun rooms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from relay.chat.accounts.events import CONTENT_TYPE as ACCOUNT
from relay.chat.entries import Kind

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.chat.entries import Submission

GROUP_MAX: Final = 512
"""Submissions in the commits of one turn: about 5 ms."""
GROUP_MIN: Final = 64
"""Of one partition, however many have something to commit: each has its commit in each turn."""
QUANTUM_MIN: Final = 4
"""Of one producer in one commit, however many others wait."""
SLOW_PER_GROUP: Final = 8
"""Slow lanes in one commit, with one submission each: about 1 ms. Of one partition in a turn."""
READS_FREE: Final = 64
"""Reads by which a producer does not become slow: half a repeat of the dearest kind, or the resend
of thirty messages in order."""


SYSTEM: Final = int(Kind.SYSTEM)


@final
class Waiting:
    """A submission that waits for its commit, and where its answer goes."""

    __slots__ = ("port", "submission", "tag")

    def __init__(self, port: Port, tag: int, submission: Submission) -> None:
        self.port = port
        self.tag = tag
        self.submission = submission


class Submissions:
    """See the module's docstring. The order of each producer is kept."""

    __slots__ = ("_fresh", "_heads_slow", "_slow", "bytes", "lanes")

    def __init__(self) -> None:
        self.lanes: dict[bytes, deque[Waiting]] = {}
        """By producer, none of them empty; the first in the dict is the next in turn."""
        self._fresh: set[bytes] = set()
        """Lanes of which no commit has taken anything since they were empty."""
        self._slow: set[bytes] = set()
        self._heads_slow: set[bytes] = set()
        """Lanes that were found to be slow for their next submission, until that is taken."""
        self.bytes = 0
        """Of all bodies that wait."""

    def put(self, waiting: Waiting) -> None:
        """Queue a submission."""
        submission = waiting.submission
        self.bytes += len(submission.body)
        lane = self.lanes.get(submission.producer)
        if lane is None:
            self.lanes[submission.producer] = deque((waiting,))
            self._fresh.add(submission.producer)
        else:
            lane.append(waiting)

    def take(
        self, in_use: Callable[[str], bool], group_max: int, slow_max: int
    ) -> tuple[list[Waiting], list[Waiting]]:
        """Remove the submissions of the next two commits: the second has those of slow lanes.

        If one lane is all that there is, the first may have anything.

        Args:
            in_use: tells whether the store has a log at hand.
            group_max: how many, about.
            slow_max: how many of slow lanes.
        """
        lanes = self.lanes
        group: list[Waiting] = []
        if len(lanes) == 1 and not self._slow:
            lane = next(iter(lanes.values()))
            if len(lane) <= group_max and (
                slow_max or all(_is_quick(w, in_use) for w in lane)
            ):  # the usual case: one that sends
                group.extend(lane)
                lanes.clear()
                self._fresh.clear()
                self._heads_slow.clear()
                self.bytes = 0
                return group, []
        quick: list[bytes] = []
        heads_slow: list[bytes] = []
        known = self._heads_slow
        for producer, lane in lanes.items():
            if producer in self._slow or producer in known:
                heads_slow.append(producer)
            elif _is_quick(lane[0], in_use):
                quick.append(producer)
            else:
                known.add(producer)
                heads_slow.append(producer)
        slow = self._serve_slow(heads_slow, slow_max) if heads_slow and slow_max else []
        quantum = max(QUANTUM_MIN, group_max // (len(quick) or 1))
        fresh = [producer for producer in quick if producer in self._fresh]
        often = [producer for producer in quick if producer not in self._fresh]
        left = self._serve(fresh, quantum, group_max // 2 if often else group_max, in_use, group)
        self._serve(often + left, quantum, group_max, in_use, group)
        self.bytes -= sum([len(waiting.submission.body) for waiting in group + slow])
        assert self.bytes >= 0, "what is taken was put"
        return group, slow

    def _serve_slow(self, producers: list[bytes], slow_max: int) -> list[Waiting]:
        """Remove one of each lane, of so many; of accounts first, half if there are others."""
        lanes = self.lanes
        accounts = [producer for producer in producers if _is_of_account(lanes[producer][0])]
        if accounts:
            others = [producer for producer in producers if not _is_of_account(lanes[producer][0])]
            first = accounts[: max(slow_max // 2, slow_max - len(others))]
            producers = first + others
        slow: list[Waiting] = []
        for producer in producers[:slow_max]:
            lane = lanes[producer]
            slow.append(lane.popleft())
            self._to_the_end(producer, lane)
        return slow

    def _serve(
        self,
        producers: list[bytes],
        quantum: int,
        group_max: int,
        in_use: Callable[[str], bool],
        group: list[Waiting],
    ) -> list[bytes]:
        """Move some of each lane to a group until it is so large; return those not looked at."""
        for number, producer in enumerate(producers):
            if len(group) >= group_max:
                return producers[number:]
            lane = self.lanes[producer]
            count = 0
            while count < quantum and lane and _is_quick(lane[0], in_use):
                group.append(lane.popleft())
                count += 1
            self._to_the_end(producer, lane)
        return []

    def _to_the_end(self, producer: bytes, lane: deque[Waiting]) -> None:
        """Something of a lane was taken: it is the last in turn now, or gone."""
        del self.lanes[producer]
        self._fresh.discard(producer)
        self._heads_slow.discard(producer)
        if lane:
            self.lanes[producer] = lane

    def take_all(self) -> list[Waiting]:
        """Remove everything."""
        found = [waiting for lane in self.lanes.values() for waiting in lane]
        self.lanes.clear()
        self._fresh.clear()
        self._heads_slow.clear()
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
                self._heads_slow.discard(producer)

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
        self._heads_slow.clear()
        for producer, lane in list(self.lanes.items()):
            kept = deque([waiting for waiting in lane if not unwanted(waiting)])
            if kept:
                self.lanes[producer] = kept
            else:
                del self.lanes[producer]
                self._fresh.discard(producer)
        self.bytes = sum(
            len(waiting.submission.body) for lane in self.lanes.values() for waiting in lane
        )


def _is_quick(waiting: Waiting, in_use: Callable[[str], bool]) -> bool:
    """Tell whether the store commits this at once, as far as can be told before."""
    submission = waiting.submission
    return submission.kind != SYSTEM and in_use(submission.log)


def _is_of_account(waiting: Waiting) -> bool:
    submission = waiting.submission
    return submission.kind == SYSTEM and submission.content_type == ACCOUNT
