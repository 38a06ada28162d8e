"""The submissions of one partition that wait for a commit; selects those for the next commit.

Each producer has a flow, and a commit takes a few submissions of each in turn, by the same rules as
for connections (``fair_queue``): a producer that sends without end waits for itself, and an
occasional sender does not wait for all of those. While much waits, submissions of light users have
a small commit of their own, before the others (``take_light``).

A new message in a log that is in use needs no read in the store. A repeat needs some reads; an old
repeat and a new room need many (``store.log.ReadBudget``). Three kinds of flows are *slow*. Few of
those are taken at a time, for a commit of their own:

- flows whose next message is for a log not in use: the log is new, or must be looked up;
- flows whose next entry is a control entry, whose commit must survive a loss of power;
- flows whose producer caused more than ``READS_FREE`` reads in a commit, until all it sent is
  answered.

Among slow flows those with an entry about an account are first, but use at most half of the places
if there are others: removing a device or disabling a user must not wait until all pending rooms are
created.
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

LATER: Final = frozenset({ErrorCode.BUSY, ErrorCode.UNAVAILABLE})
"""Refusals after which a sender tries again."""
QUEUED_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of submissions of a partition that may wait for a commit; beyond it: BUSY. The credits of
the forwarding workers (``forward.CREDIT_BYTES``) keep it from being reached."""
assert limits.SENDS_UNACKNOWLEDGED_BYTES_MAX <= QUEUED_BYTES_MAX
GROUP_MAX: Final = 512
"""Submissions in the commits of one turn: about 5 ms."""
GROUP_MIN: Final = 256
"""Submissions of one partition, however many partitions have something to commit: in smaller
commits each message costs more, and the file gets more pages. Partitions for which a turn has no
time are next."""
SHARE: Final = 64
"""Submissions of one producer per commit while others wait. If more units than this wait in total,
light users have a commit of their own."""
QUANTUM_MIN: Final = 4
"""Minimum for one producer in one commit, however many others wait."""
LIGHT_MAX: Final = 24
"""A producer with at most this many submissions is light: half a second at fifty messages a second.
With a limit of eight, a producer of that rate that was delayed by 160 ms, for whatever reason,
would from then on wait with the heavy ones, and for their pauses. It is below the size of one piece
of a producer that sends without end (``window.QUANTUM``)."""
LIGHT_PER_GROUP: Final = 32
"""Submissions in the commit of light producers, and their maximum lead over the others: half of the
smallest group."""
ALONE_UNITS: Final = 8
"""Units that one with an ``extra`` counts as, and others as one: it is decided separately, what it
is about is read, and several tables change. Light producers are not charged for that."""
SLOW_PER_GROUP: Final = 8
"""Slow flows in one commit, with one submission each: about 1 ms. For one partition per turn."""
READS_FREE: Final = 64
"""Reads that do not make a producer slow: half of the most expensive repeat, or the resend of
thirty messages in order."""


SYSTEM: Final = int(Kind.SYSTEM)


@final
class Waiting:
    """A submission that waits for its commit, and where its answer goes."""

    __slots__ = ("heavy", "port", "submission", "tag", "unconfirmed")

    def __init__(self, port: Port, tag: int, submission: Submission, heavy: bool = False) -> None:
        self.port = port
        self.tag = tag
        self.submission = submission
        self.heavy = heavy
        """Part of much that its producer has sent, even if it comes here in small pieces."""
        self.unconfirmed = False
        """True if its sender may be an operator, which cannot be read now: see
        ``accounts.operators``."""


@final
class Flow:
    """The submissions of one producer. Not empty while it is in ``Submissions.flows``."""

    __slots__ = ("finish", "producer", "waiting")

    def __init__(self, producer: bytes) -> None:
        self.producer = producer
        self.waiting: deque[Waiting] = deque()
        self.finish = 0.0
        """See ``FairQueue``."""


@final
class Submissions:
    """The waiting submissions of one partition. The order of each producer is kept."""

    __slots__ = ("_new", "_quick", "_slow", "_slow_flows", "bytes", "count", "flows", "lone")

    def __init__(self) -> None:
        self.lone: Waiting | None = None
        """The only submission that waits, as long as it is the only one since nothing waited: it is
        in no flow."""
        self.flows: dict[bytes, Flow] = {}
        """By producer. Each flow is also in one of the next three."""
        self._new: list[Flow] = []
        """Flows that are not classified yet by their size and by whether they are slow."""
        self._quick: FairQueue[Flow] = FairQueue(
            quantum=SHARE, light_max=LIGHT_MAX, lead_max=LIGHT_PER_GROUP
        )
        self._slow_flows: dict[bytes, Flow] = {}
        """Flows whose next submission is slow, or whose producer is; the first is next."""
        self._slow: set[bytes] = set()
        """Producers that caused many reads in a commit."""
        self.count = 0
        """Number of waiting submissions."""
        self.bytes = 0
        """Size of all waiting bodies."""

    def put(self, run: list[Waiting], size: int) -> None:
        """Queue submissions of one producer. ``size``: the total size of their bodies."""
        self.bytes += size
        before, self.count = self.count, self.count + len(run)
        if not before and self.count == 1:
            self.lone = run[0]
            return
        self._enter_lone()
        self._flow(run[0].submission.producer).waiting.extend(run)

    def _flow(self, producer: bytes) -> Flow:
        """Return the flow of a producer, perhaps a new one."""
        flow = self.flows.get(producer)
        if flow is None:
            flow = self.flows[producer] = Flow(producer)
            self._new.append(flow)
        return flow

    def _enter_lone(self) -> None:
        """Queue the one that waited alone like all others."""
        lone, self.lone = self.lone, None
        if lone is not None:
            self._flow(lone.submission.producer).waiting.append(lone)

    @property
    def senders(self) -> int:
        """The number of producers with anything that waits."""
        return len(self.flows) if self.lone is None else 1

    def units(self) -> int:
        """Return the cost of what waits (``ALONE_UNITS``), or any number above ``SHARE`` if it is
        more: few are looked at.
        """
        if self.count > SHARE:
            return self.count
        self._enter_lone()
        flows = self.flows.values()
        alone = sum([one.submission.extra is not None for flow in flows for one in flow.waiting])
        return self.count + alone * (ALONE_UNITS - 1)

    def take(
        self, in_use: Callable[[str], bool], group_max: int, slow_max: int
    ) -> tuple[list[Waiting], list[Waiting]]:
        """Remove the submissions for the next two commits; the second contains those of slow flows.

        If there is only one flow, all of it may be in one of them.

        Args:
            in_use: returns whether the store has a log in memory.
            group_max: approximate number of submissions.
            slow_max: number of slow flows.
        """
        self._enter_lone()
        flows = self.flows
        group: list[Waiting] = []
        if len(flows) == 1 and not self._slow:
            flow = next(iter(flows.values()))
            if len(flow.waiting) <= group_max:
                quick_ones = _are_quick(flow.waiting, in_use)
                if quick_ones or slow_max:  # the usual case: a single sender
                    group.extend(flow.waiting)
                    self.clear()
                    return (group, []) if quick_ones else ([], group)
        self._sort(in_use)
        slow = self._serve_slow(slow_max) if self._slow_flows and slow_max else []
        quick = self._quick
        quantum = max(QUANTUM_MIN, group_max // (quick.waiting or 1))
        units = 0
        while quick.waiting and units < group_max:
            units += self._serve(quick.pop(), quantum, in_use, group, ALONE_UNITS)
        self._taken(group)
        self._taken(slow)
        return group, slow

    def take_light(
        self, in_use: Callable[[str], bool], *, heavy_paused: bool = False
    ) -> list[Waiting]:
        """Remove the submissions for a commit of light producers, if those are next in turn.

        ``heavy_paused``: for lack of CPU time. Nothing is then reserved for heavy producers, so the
        lead of light ones does not matter.
        """
        self._enter_lone()
        self._sort(in_use)
        group: list[Waiting] = []
        quick = self._quick
        while (quick.has_light if heavy_paused else quick.light_first) and (
            len(group) < LIGHT_PER_GROUP
        ):
            self._serve(quick.pop_light(), LIGHT_MAX, in_use, group)
        self._taken(group)
        return group

    def _sort(self, in_use: Callable[[str], bool]) -> None:
        """Classify the new flows and queue them."""
        for flow in self._new:
            if flow.waiting:
                self._queue(flow, in_use)
        self._new.clear()

    def _queue(self, flow: Flow, in_use: Callable[[str], bool]) -> None:
        first = flow.waiting[0]
        if flow.producer not in self._slow and _is_quick(first, in_use):
            self._quick.add(flow, flow.finish, 0 if first.heavy else len(flow.waiting))
        else:
            self._slow_flows[flow.producer] = flow

    def _serve(
        self,
        flow: Flow,
        quantum: int,
        in_use: Callable[[str], bool],
        group: list[Waiting],
        alone: int = 1,
    ) -> int:
        """Move some submissions of a flow to a group; queue it again if there are more.

        Returns their units; ``alone`` is what one with an ``extra`` counts.
        """
        waiting = flow.waiting
        if not waiting:  # all of them were removed
            return 0
        count = units = 0
        if flow.producer not in self._slow:
            known = ""  # the last log in use: one producer mostly sends to the same log
            while waiting and (units < quantum or count < QUANTUM_MIN):
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
                units += 1 if submission.extra is None else alone
        flow.finish = self._quick.charge(flow, flow.finish, units, drained=not waiting)
        if waiting:
            self._queue(flow, in_use)
        else:
            del self.flows[flow.producer]
        return units

    def _taken(self, group: list[Waiting]) -> None:
        self.count -= len(group)
        self.bytes -= sum([len(waiting.submission.body) for waiting in group])
        assert self.bytes >= 0, "what is taken was put"

    def _serve_slow(self, slow_max: int) -> list[Waiting]:
        """Remove one submission of each slow flow, those about accounts first."""
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
                self._new.append(flow)  # now last in turn, and classified again
            else:
                del self.flows[flow.producer]
        return slow

    def take_all(self) -> list[Waiting]:
        """Remove everything."""
        self._enter_lone()
        found = [waiting for flow in self.flows.values() for waiting in flow.waiting]
        self.clear()
        return found

    def clear(self) -> None:
        """Forget everything. What waited has its answers."""
        self.count = self.bytes = 0
        if self.lone is not None:
            self.lone = None
            return
        self.flows.clear()
        self._new.clear()
        if self._quick.waiting:
            self._quick.clear()
        self._slow_flows.clear()
        self._slow.clear()

    def give_back(self, rest: list[Waiting]) -> None:
        """Put back what a commit did not process, before later submissions of its producers."""
        self._enter_lone()
        self.count += len(rest)
        self.bytes += sum([len(waiting.submission.body) for waiting in rest])
        for waiting in reversed(rest):
            producer = waiting.submission.producer
            flow = self.flows.get(producer)
            if flow is None:
                flow = self.flows[producer] = Flow(producer)
                self._new.append(flow)
            elif self._slow_flows.pop(producer, None) is not None:
                self._new.append(flow)  # its next submission may not be slow any more
            flow.waiting.appendleft(waiting)

    def charge(self, group: list[Waiting], reads: list[int]) -> None:
        """Record the reads that each submission of a commit needed. Called after ``give_back``."""
        if any(reads):
            spent: dict[bytes, int] = {}
            for waiting, count in zip(group, reads, strict=False):
                if count:
                    producer = waiting.submission.producer
                    spent[producer] = spent.get(producer, 0) + count
            self._slow.update([one for one, count in spent.items() if count > READS_FREE])
        if self._slow:
            self._enter_lone()
            self._slow.intersection_update(self.flows)

    def remove(self, unwanted: Callable[[Waiting], bool]) -> list[Waiting]:
        """Remove some submissions and return them. The caller answers them."""
        removed: list[Waiting] = []
        self._enter_lone()
        self._new.extend(self._slow_flows.values())  # they may no longer be slow
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
    """Return True if the store will probably commit this at once."""
    submission = waiting.submission
    return submission.kind != SYSTEM and in_use(submission.log)


def _are_quick(some: Iterable[Waiting], in_use: Callable[[str], bool]) -> bool:
    """Return True if all are quick: one lookup for consecutive ones of the same log."""
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


def refuse(group: list[Waiting], code: int, text: str = "") -> None:
    """Answer that submissions are not stored: for now, if another attempt may succeed, or ever.

    ``text``: for those who try again.
    """
    refusal = (int(code), limits.RETRY_MS, text) if code in LATER else (int(code), 0, "")
    for waiting in group:
        waiting.port.send(Refused(waiting.tag, *refusal))
