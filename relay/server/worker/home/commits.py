"""Group commits: in the loop, or in threads if they wait for the disk; and how each is answered.

Either way a commit is begun, and its outcome is collected by the turn: nothing runs in the middle
of whoever submitted, and nothing before the store has returned.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Final, final

from relay import limits
from relay.bus.messages import ITEMS_PER_MESSAGE, TAG_STEP, Acks, Refused
from relay.chat.entries import Kind
from relay.chat.partition import PARTITIONS
from relay.server.worker.error_codes import ROOM_CODES
from relay.server.worker.exhausted import end_if_exhausted
from relay.server.worker.home.permissions import refused
from relay.store.errors import StoreError, StoreUnavailable
from relay.store.log import (
    Began,
    Denied,
    Expected,
    Forbidden,
    IdConflict,
    LogRefused,
    Repeated,
    Stored,
    UnknownOutcome,
)
from relay.store.read_budget import ReadBudget
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.home.submissions import Waiting
    from relay.server.worker.wakeup import Wakeup
    from relay.store.log import Outcome, Partition

READS_MAX: Final = 256
"""Reads of one commit, about 1 ms: the rest of the group waits for the next."""
READING_S_MAX: Final = 0.005
SYSTEM: Final = int(Kind.SYSTEM)
REST: Final = 19
"""For each commit that waited for the disk, a partition rests so many times as long from such ones.
So whoever changes rooms, or begins them, without end, holds up others in a twentieth of the time at
most, however many they are."""
REST_AHEAD_NS: Final = 1_000_000_000
"""It begins to rest when it owes more than this: whoever does something a few times does not wait.
"""
REST_FOR_NS_MAX: Final = 100_000_000
"""Of one commit no more counts: a disk that stood still, or threads that had other work, must not
keep bans and removed devices waiting for nineteen times as long again."""
_new: Final = tuple.__new__
"""Makes a NamedTuple without the call of Python that its own ``__new__`` is."""
log = logging.getLogger("relay.worker")


@final
class Commit:
    """A group commit that is over."""

    __slots__ = ("group", "outcomes", "partition", "reads", "took_ns")

    def __init__(
        self,
        partition: int,
        group: list[Waiting],
        outcomes: list[Outcome] | StoreError,
        reads: list[int],
        took_ns: int,
    ) -> None:
        """Keep what became of a group.

        Args:
            partition: where.
            group: what was to be committed.
            outcomes: of the first submissions of the group, of one at least; the others were not
                looked at.
            reads: what each of those has cost.
            took_ns: how long the store took.
        """
        self.partition = partition
        self.group = group
        self.outcomes = outcomes
        self.reads = reads
        self.took_ns = took_ns

    def answer(self, outcomes: list[Outcome]) -> None:
        """Tell those who submitted what became of it."""
        if len(outcomes) == 1:  # the lone message
            only = outcomes[0]
            if type(only) is Stored or type(only) is Began:
                waiting = self.group[0]
                waiting.port.send(_new(Acks, ([[waiting.tag, only.epoch, only.seq, 1]],)))
                return
        acks: dict[Port, list[list[int | bytes]]] = {}
        # The last item, while more may be added to it: whose it is, and what it has.
        last: Port | None = None
        first_tag = first_seq = count = 0
        epoch = b""
        item: list[int | bytes] = []
        for waiting, outcome in zip(self.group, outcomes, strict=True):
            port, tag = waiting.port, waiting.tag
            if type(outcome) is Stored or type(outcome) is Began:  # nearly all
                seq = outcome.seq
                if (
                    port is last
                    and tag == first_tag + count * TAG_STEP
                    and seq == first_seq + count
                    and outcome.epoch == epoch
                    and count < ITEMS_PER_MESSAGE
                ):
                    count += 1
                    item[3] = count
                    continue
                last, first_tag, epoch, first_seq, count = port, tag, outcome.epoch, seq, 1
                item = [tag, epoch, seq, count]
                acks.setdefault(port, []).append(item)
                continue
            match outcome:
                case Repeated():
                    last = None  # what comes is told behind it
                    acks.setdefault(port, []).append([tag, outcome.epoch, outcome.seq, 1])
                case IdConflict(seq=seq):
                    port.send(Refused(tag, int(ErrorCode.ID_CONFLICT), seq, ""))
                case Expected(counter=counter):
                    port.send(Refused(tag, int(ErrorCode.EXPECTED), counter, ""))
                case UnknownOutcome():
                    port.send(Refused(tag, int(ErrorCode.UNKNOWN_OUTCOME), 0, ""))
                case Denied(refused=denied):
                    port.send(Refused(tag, int(ROOM_CODES[denied.reason]), 0, denied.text))
                case Forbidden(code=code):
                    port.send(refused(tag, code, limits.RETRY_MS))
                case LogRefused(reason=reason, limit=limit):
                    port.send(Refused(tag, int(ErrorCode.LIMIT), limit, reason))
        for port, listed in acks.items():
            for start in range(0, len(listed), ITEMS_PER_MESSAGE):
                port.send(Acks(listed[start : start + ITEMS_PER_MESSAGE]))


@final
class Commits:
    """Runs group commits, at most one of a partition at a time.

    In the loop, 13 µs for one message, far below a thread's hand-over; or, where a commit waits for
    the disk, in a thread. The loop does not wait then, and what arrives meanwhile is the next
    group: batches grow by themselves.
    """

    def __init__(
        self,
        run_in_thread: Callable[[Callable[[], Commit]], asyncio.Future[Commit]],
        wakeup: Wakeup,
        observe_ns: Callable[[int], None],
        *,
        clock_ns: Callable[[], int],
        power: bool,
        rooms_begin: bool = True,
    ) -> None:
        """Begin.

        Args:
            run_in_thread: runs a commit there.
            wakeup: asks for the turn that collects it.
            observe_ns: is told how long each took.
            clock_ns: monotonic, that of ``time.monotonic``.
            power: all commits wait for the disk; else only those with control entries, of accounts
                and rooms (``store.sqlite``).
            rooms_begin: the first message of a room brings one.
        """
        self._run_in_thread = run_in_thread
        self._wakeup = wakeup
        self._observe_ns = observe_ns
        self._clock_ns = clock_ns
        self.power = power
        self._rooms_begin = rooms_begin
        self._finished: list[Commit] = []
        self._rested_at_ns: dict[int, int] = {}
        """By partition: when it will owe no rest."""

    def rests(self, index: int) -> bool:
        """Tell whether a partition is not to begin a commit now that waits for the disk."""
        rested_at_ns = self._rested_at_ns.get(index)
        return rested_at_ns is not None and (rested_at_ns - self._clock_ns() > REST_AHEAD_NS)

    def next_slow(self, waiting: Iterable[int], committing: Collection[int], first: int) -> int:
        """Return which may begin a commit that waits for the disk, the next one in turn; -1: none.

        Args:
            waiting: partitions that have something to commit.
            committing: those in which a commit runs.
            first: where the turn is.
        """
        found, nearest = -1, PARTITIONS
        for index in waiting:
            distance = (index - first) % PARTITIONS
            if distance < nearest and index not in committing and not self.rests(index):
                found, nearest = index, distance
        return found

    def begin(
        self, index: int, partition: Partition, group: list[Waiting], now_ms: int
    ) -> Commit | None:
        """Begin a commit; return it if it is over, else None: ``finished`` has it later.

        Raises nothing: whatever happens, its senders must be answered.
        """
        if not (self.power or self._waits_for_disk(partition, group)):
            commit = self._append(index, partition, group, now_ms)
            self._observe_ns(commit.took_ns)
            return commit
        began_ns = self._clock_ns()

        def ended(future: asyncio.Future[Commit]) -> None:
            now_ns = self._clock_ns()
            self._observe_ns(now_ns - began_ns)
            commit = future.result()
            if not self.power:
                owed_ns = max(self._rested_at_ns.get(index, 0), now_ns)
                # Of what others have waited, that is the part that the store took, and what it took
                # until a thread ran, and the loop again.
                self._rested_at_ns[index] = owed_ns + REST * min(now_ns - began_ns, REST_FOR_NS_MAX)
            self._finished.append(commit)
            self._wakeup.request()

        future = self._run_in_thread(lambda: self._append(index, partition, group, now_ms))
        future.add_done_callback(ended)
        return None

    def _waits_for_disk(self, partition: Partition, group: list[Waiting]) -> bool:
        """Tell whether a control entry is among them, or may come with one of them."""
        for waiting in group:
            submission = waiting.submission
            if submission.kind == SYSTEM:
                return True
            first = submission.counter == 1 and self._rooms_begin
            if first and not partition.in_use(submission.log):
                return True
        return False

    def _append(
        self, index: int, partition: Partition, group: list[Waiting], now_ms: int
    ) -> Commit:
        began_ns = self._clock_ns()
        budget = ReadBudget(READS_MAX, began_ns / 1e9 + READING_S_MAX)
        submissions = [waiting.submission for waiting in group]
        outcomes: list[Outcome] | StoreError
        try:
            outcomes = partition.append(submissions, now_ms, budget)
        except StoreError as error:
            outcomes = error
        except Exception as bug:
            end_if_exhausted(bug)
            log.exception("commit_failed")
            outcomes = StoreUnavailable("an internal error")
        return Commit(index, group, outcomes, budget.spent, self._clock_ns() - began_ns)

    def finished(self) -> list[Commit]:
        """Return the commits that are over and were not returned before."""
        finished, self._finished = self._finished, []
        return finished


@final
class RunningCommits:
    """Commits that run in threads, at most one per partition. Their submissions are in no queue.

    So whoever empties the queues must also deal with these: with what they store until they end,
    and with what they put back into a queue then.
    """

    __slots__ = ("_running", "awaited")

    def __init__(self) -> None:
        self._running: dict[int, list[Port]] = {}
        """By partition: the workers that resend the submissions that it has of theirs."""
        self.awaited: list[tuple[set[int], Callable[[], None]]] = []
        """Who waits, and for the commits of which partitions."""

    def began(self, index: int) -> None:
        """A commit goes on in a thread."""
        self._running[index] = []

    def forget(self, index: int, port: Port) -> None:
        """A worker is about to resend what it has submitted to a partition."""
        resending = self._running.get(index)
        if resending is not None:
            resending.append(port)

    def after(self, done: Callable[[], None]) -> None:
        """Call ``done`` when all that run now are over and answered; at once if none runs."""
        if self._running:
            self.awaited.append((set(self._running), done))
        else:
            done()

    def ended(self, index: int) -> list[Port]:
        """A commit is over; return the workers that have resent their part, if it was running."""
        return self._running.pop(index, [])

    def answered(self, index: int) -> None:
        """Its submissions are answered, or queued again. Called if any is ``awaited``."""
        for partitions, _ in self.awaited:
            partitions.discard(index)
        over = [done for partitions, done in self.awaited if not partitions]
        self.awaited = [one for one in self.awaited if one[0]]
        for done in over:
            done()
