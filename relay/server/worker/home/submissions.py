"""The submissions of one partition that wait for a commit, and which of them go into the next.

Each producer has a flow, and a commit takes a few of each in turn, by the same rules as connections
are served (``fair_queue``): whoever sends without end waits for itself, and whoever sends now and
then does not wait for all of those. While much waits, what those send has a small commit of its
own, before the others (``take_little``).

A new message in a log that is in use costs the store no read. A repeat costs some, one of long ago
and a room that is new many (``store.log.ReadBudget``). Three kinds of flows are *slow*, and few of
those are taken at a time, for a commit of their own:

- one whose next message is for a log that is not in use: it is new, or must be looked up;
- one whose next entry is a control entry, which is committed so that it survives a loss of power;
- one whose producer made a commit read more than ``READS_FREE``, until all it sent is answered.

Of slow flows those with an entry about an account come first, with half as well: a device that is
removed and a user who is disabled do not stay until everybody has begun rooms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, final

from relay import limits
from relay.bus.messages import Refused
from relay.chat.accounts.events import CONTENT_TYPE as ACCOUNT
from relay.chat.entries import Kind
from relay.server.worker.fair_queue import FairQueue
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.chat.entries import Submission

QUEUED_BYTES_MAX: Final = 16 * 1024 * 1024
"""Submissions of a partition held for their commit; beyond it: BUSY. Credits of the workers that
forward (``forward.CREDIT_BYTES``) keep it from being reached."""
assert limits.SENDS_UNACKNOWLEDGED_BYTES_MAX <= QUEUED_BYTES_MAX
GROUP_MAX: Final = 512
"""Submissions in the commits of one turn: about 5 ms."""
GROUP_MIN: Final = 256
"""Of one partition, however many have something to commit: a commit that is smaller costs each of
its messages more, and the file more pages. Those that the turn has no time for are next."""
CROWD: Final = 64
"""So many of one producer are committed at a time while others wait; and when more of all wait,
those who send little have a commit of their own."""
QUANTUM_MIN: Final = 4
"""Of one producer in one commit, however many others wait."""
LITTLE: Final = 24
"""Who has so many at most goes first: half a second of fifty messages a second. With eight, whoever
wrote that much and had to wait for 160 ms, for whatever reason, waited with the crowd from then on,
through its rests. Less than what comes in one piece of who sends without end (``window.QUANTUM``).
"""
LITTLE_PER_GROUP: Final = 32
"""Submissions in the commit of those, and by how much they may be ahead of the others: half of the
least group."""
SLOW_PER_GROUP: Final = 8
"""Slow flows in one commit, with one submission each: about 1 ms. Of one partition in a turn."""
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


@final
class Flow:
    """What one producer has submitted. Not empty while it is in ``Submissions.flows``."""

    __slots__ = ("finish", "producer", "waiting")

    def __init__(self, producer: bytes) -> None:
        self.producer = producer
        self.waiting: deque[Waiting] = deque()
        self.finish = 0.0
        """See ``FairQueue``."""


@final
class Submissions:
    """See the module's docstring. The order of each producer is kept."""

    __slots__ = ("_new", "_quick", "_slow", "_slow_flows", "bytes", "count", "flows")

    def __init__(self) -> None:
        self.flows: dict[bytes, Flow] = {}
        """By producer. Each is in one of the next three."""
        self._new: list[Flow] = []
        """Of which it is not known yet how much they have, nor whether they are slow."""
        self._quick: FairQueue[Flow] = FairQueue(
            quantum=CROWD, little=LITTLE, lead_max=LITTLE_PER_GROUP
        )
        self._slow_flows: dict[bytes, Flow] = {}
        """Flows that are slow, for their next submission or altogether; the first is the next."""
        self._slow: set[bytes] = set()
        """Producers that have made a commit read much."""
        self.count = 0
        """How many wait."""
        self.bytes = 0
        """Of all bodies that wait."""

    def put(self, run: list[Waiting], size: int) -> None:
        """Queue submissions of one producer, whose bodies have so many bytes together."""
        self.bytes += size
        self.count += len(run)
        producer = run[0].submission.producer
        flow = self.flows.get(producer)
        if flow is None:
            flow = self.flows[producer] = Flow(producer)
            self._new.append(flow)
        flow.waiting.extend(run)

    def take(
        self, in_use: Callable[[str], bool], group_max: int, slow_max: int
    ) -> tuple[list[Waiting], list[Waiting]]:
        """Remove the submissions of the next two commits: the second has those of slow flows.

        If one flow is all that there is, the first may have anything.

        Args:
            in_use: tells whether the store has a log at hand.
            group_max: how many, about.
            slow_max: how many of slow flows.
        """
        flows = self.flows
        group: list[Waiting] = []
        if len(flows) == 1 and not self._slow:
            flow = next(iter(flows.values()))
            if len(flow.waiting) <= group_max and (
                slow_max or _are_quick(flow.waiting, in_use)
            ):  # the usual case: one that sends
                group.extend(flow.waiting)
                self._forget_all()
                return group, []
        self._sort(in_use)
        slow = self._serve_slow(slow_max) if self._slow_flows and slow_max else []
        quick = self._quick
        quantum = max(QUANTUM_MIN, group_max // (quick.waiting or 1))
        while quick.waiting and len(group) < group_max:
            self._serve(quick.pop(), quantum, in_use, group)
        self._taken(group)
        self._taken(slow)
        return group, slow

    def take_little(self, in_use: Callable[[str], bool], *, resting: bool = False) -> list[Waiting]:
        """Remove the submissions of a commit of those who have little, if they are next in turn.

        While the others rest, for lack of a processor, they have no part that could be kept for
        them: what those who have little are ahead of them does not matter then.
        """
        self._sort(in_use)
        group: list[Waiting] = []
        quick = self._quick
        while (quick.has_little if resting else quick.little_first) and (
            len(group) < LITTLE_PER_GROUP
        ):
            self._serve(quick.pop_little(), LITTLE, in_use, group)
        self._taken(group)
        return group

    def _sort(self, in_use: Callable[[str], bool]) -> None:
        """Queue the flows that have come, now that it is known what they have."""
        for flow in self._new:
            if flow.waiting:
                self._queue(flow, in_use)
        self._new.clear()

    def _queue(self, flow: Flow, in_use: Callable[[str], bool]) -> None:
        if flow.producer not in self._slow and _is_quick(flow.waiting[0], in_use):
            self._quick.add(flow, flow.finish, len(flow.waiting))
        else:
            self._slow_flows[flow.producer] = flow

    def _serve(
        self,
        flow: Flow,
        quantum: int,
        in_use: Callable[[str], bool],
        group: list[Waiting],
    ) -> None:
        """Move some of a flow to a group, and queue it again if there is more."""
        waiting = flow.waiting
        if not waiting:  # all of it was removed
            return
        count = 0
        if flow.producer not in self._slow:
            known = ""  # a log that is in use: what one sends is for the same log, mostly
            while count < quantum and waiting:
                submission = waiting[0].submission
                if submission.kind == SYSTEM:
                    break
                log = submission.log
                if log != known:
                    if not in_use(log):
                        break
                    known = log
                group.append(waiting.popleft())
                count += 1
        flow.finish = self._quick.charge(flow.finish, count, drained=not waiting)
        if waiting:
            self._queue(flow, in_use)
        else:
            del self.flows[flow.producer]

    def _taken(self, group: list[Waiting]) -> None:
        self.count -= len(group)
        self.bytes -= sum([len(waiting.submission.body) for waiting in group])
        assert self.bytes >= 0, "what is taken was put"

    def _serve_slow(self, slow_max: int) -> list[Waiting]:
        """Remove one of each slow flow, of so many; of accounts first, half if there are others."""
        flows = list(self._slow_flows.values())
        accounts = [flow for flow in flows if _is_of_account(flow.waiting[0])]
        if accounts:
            others = [flow for flow in flows if not _is_of_account(flow.waiting[0])]
            flows = accounts[: max(slow_max // 2, slow_max - len(others))] + others
        slow: list[Waiting] = []
        for flow in flows[:slow_max]:
            slow.append(flow.waiting.popleft())
            del self._slow_flows[flow.producer]
            if flow.waiting:
                self._new.append(flow)  # the last in turn now, and slow again or not
            else:
                del self.flows[flow.producer]
        return slow

    def take_all(self) -> list[Waiting]:
        """Remove everything."""
        found = [waiting for flow in self.flows.values() for waiting in flow.waiting]
        self._forget_all()
        self._slow.clear()
        return found

    def _forget_all(self) -> None:
        self.flows.clear()
        self._new.clear()
        if self._quick.waiting:
            self._quick.clear()
        self._slow_flows.clear()
        self.count = self.bytes = 0

    def give_back(self, rest: list[Waiting]) -> None:
        """Put back, before what its producers have sent since, what a commit did not get to."""
        self.count += len(rest)
        self.bytes += sum([len(waiting.submission.body) for waiting in rest])
        for waiting in reversed(rest):
            producer = waiting.submission.producer
            flow = self.flows.get(producer)
            if flow is None:
                flow = self.flows[producer] = Flow(producer)
                self._new.append(flow)
            elif self._slow_flows.pop(producer, None) is not None:
                self._new.append(flow)  # slow for what is not its next any more, perhaps
            flow.waiting.appendleft(waiting)

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
            self._slow.intersection_update(self.flows)

    def remove(self, unwanted: Callable[[Waiting], bool]) -> list[Waiting]:
        """Forget some, and return them: the caller answers whoever waits."""
        removed: list[Waiting] = []
        self._new.extend(self._slow_flows.values())  # what made them slow may be gone
        self._slow_flows.clear()
        self.count = self.bytes = 0
        for producer, flow in list(self.flows.items()):
            kept: list[Waiting] = []
            for waiting in flow.waiting:
                (removed if unwanted(waiting) else kept).append(waiting)
            flow.waiting.clear()
            flow.waiting.extend(kept)
            if kept:
                self.count += len(kept)
                self.bytes += sum([len(waiting.submission.body) for waiting in kept])
            else:
                del self.flows[producer]
        return removed


def _is_quick(waiting: Waiting, in_use: Callable[[str], bool]) -> bool:
    """Tell whether the store commits this at once, as far as can be told before."""
    submission = waiting.submission
    return submission.kind != SYSTEM and in_use(submission.log)


def _are_quick(some: Iterable[Waiting], in_use: Callable[[str], bool]) -> bool:
    """Tell whether all of them are: one look for those of one log that follow one another."""
    known = ""
    for waiting in some:
        submission = waiting.submission
        if submission.kind == SYSTEM:
            return False
        if submission.log != known:
            if not in_use(submission.log):
                return False
            known = submission.log
    return True


def _is_of_account(waiting: Waiting) -> bool:
    submission = waiting.submission
    return submission.kind == SYSTEM and submission.content_type == ACCOUNT


def refuse(group: list[Waiting], code: ErrorCode, text: str) -> None:
    """Answer that some are not stored: for good, or for now."""
    final = code in (ErrorCode.DAMAGED, ErrorCode.KEY_REFUSED)
    refusal = (int(code), 0, "") if final else (int(code), limits.RETRY_MS, text)
    for waiting in group:
        waiting.port.send(Refused(waiting.tag, *refusal))
