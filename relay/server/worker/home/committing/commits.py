"""Group commits, in the loop or in threads if they wait for the disk, and their answers.

In both cases a commit is started here and its outcome is collected by the turn. Nothing runs inside
the caller that submitted, and nothing before the store has returned.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Final, final

from relay import limits
from relay.bus.messages import ITEMS_PER_MESSAGE, TAG_STEP, Acks, Refused
from relay.chat.entries import Kind
from relay.chat.names import is_inbox
from relay.chat.partition import PARTITIONS
from relay.chat.rooms.refusal import OF_RIGHTS, Reason
from relay.server.worker.error_codes import NOT_CONFIRMED, ROOM_CODES
from relay.server.worker.home.submissions import Waiting, refuse
from relay.server.worker.out_of_memory import exit_if_out_of_memory
from relay.store.errors import LogDamaged, StoreError, StoreUnavailable
from relay.store.log import (
    Began,
    Denied,
    Expected,
    Forbidden,
    IdConflict,
    LogRefused,
    LogUnreadable,
    Repeated,
    Stored,
    UnknownOutcome,
)
from relay.store.read_budget import ReadBudget
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.chat.rooms.refusal import Refused as RoomRefused
    from relay.server.worker.damaged_logs import DamagedLogs
    from relay.server.worker.wakeup import Wakeup
    from relay.store.log import Outcome, Partition

READS_MAX: Final = 256
"""Reads per commit, about 1 ms: the rest of the group waits for the next."""
READING_S_MAX: Final = 0.005
COMMITS_S: Final = 0.002
"""CPU time for the commits of one turn: after that, no other partition's commit is begun. With wall
time, a turn on an overloaded machine would do almost nothing, and partitions would wait long."""
THROTTLE_FACTOR: Final = 19
"""After a commit that waited for the disk, a partition does not begin another such commit for this
many times its duration. So clients that change or create rooms without end delay others for at most
a twentieth of the time, however many they are."""
THROTTLE_AHEAD_NS: Final = 1_000_000_000
"""It is throttled when it owes more than this, so that occasional changes do not wait."""
THROTTLE_FOR_NS_MAX: Final = 100_000_000
"""Maximum duration that counts for one commit. Otherwise a stalled disk, or busy threads, would
delay bans and removals of devices for nineteen times as long again."""
_REDACTION: Final = int(Kind.REDACTION)
_new: Final = tuple.__new__
"""Creates a NamedTuple without the Python call of its own ``__new__``."""
log = logging.getLogger("relay.worker")


@final
class Commit:
    """A finished group commit."""

    __slots__ = ("group", "outcomes", "partition", "reads")

    def __init__(
        self,
        partition: int,
        group: list[Waiting],
        outcomes: list[Outcome] | StoreError,
        reads: list[int],
    ) -> None:
        """Create from the outcome of a group.

        Args:
            partition: where it was committed.
            group: the submissions that were to be committed.
            outcomes: of the first submissions of the group, at least one; the others were not
                processed.
            reads: number of reads for each of those.
        """
        self.partition = partition
        self.group = group
        self.outcomes = outcomes
        self.reads = reads

    def answer(self, outcomes: list[Outcome], damaged: DamagedLogs) -> None:
        """Send the outcomes to the submitters, and report what cannot be read."""
        if len(outcomes) == 1:  # the common case: one message
            only = outcomes[0]
            if type(only) is Stored or type(only) is Began:
                _acknowledge(self.group[0], only)
                return
        acks: dict[Port, list[list[int | bytes]]] = {}
        # The last message while more may be added to it, and its port and content.
        last: Port | None = None
        first_tag = first_seq = count = 0
        epoch = b""
        item: list[int | bytes] = []
        for waiting, outcome in zip(self.group, outcomes, strict=True):
            port, tag = waiting.port, waiting.tag
            if type(outcome) is Stored or type(outcome) is Began:  # the common case
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
                    last = None  # later answers must come after it
                    acks.setdefault(port, []).append([tag, outcome.epoch, outcome.seq, 1])
                case IdConflict(seq=seq):
                    port.send(Refused(tag, int(ErrorCode.ID_CONFLICT), seq, ""))
                case Expected(counter=counter):
                    port.send(Refused(tag, int(ErrorCode.EXPECTED), counter, ""))
                case UnknownOutcome():
                    port.send(Refused(tag, int(ErrorCode.UNKNOWN_OUTCOME), 0, ""))
                case Denied(refused=denied):
                    port.send(_denied(waiting, denied))
                case Forbidden(code=code):
                    refuse([waiting], code)
                case LogRefused(reason=reason, limit=limit):
                    port.send(Refused(tag, int(ErrorCode.LIMIT), limit, reason))
                case LogUnreadable(reason=reason):
                    refuse([waiting], ErrorCode.DAMAGED)
                    name, direct = waiting.submission.log, waiting.submission.kind != Kind.SYSTEM
                    error = LogDamaged(name, reason)
                    damaged.report(name, error, inbox=direct and is_inbox(name))
        for port, listed in acks.items():
            for start in range(0, len(listed), ITEMS_PER_MESSAGE):
                port.send(Acks(listed[start : start + ITEMS_PER_MESSAGE]))


def _denied(waiting: Waiting, refusal: RoomRefused) -> Refused:
    """Return the answer to a submission that the rules of its room refuse.

    Operators may erase messages and begin rooms. What they write has no other rights.
    """
    if waiting.unconfirmed and refusal.reason in OF_RIGHTS:
        erases = waiting.submission.kind == _REDACTION
        if erases or refusal.reason is Reason.NOT_ALLOWED:
            code = int(ErrorCode.UNAVAILABLE)
            return Refused(waiting.tag, code, limits.RETRY_MS, NOT_CONFIRMED)
    return Refused(waiting.tag, int(ROOM_CODES[refusal.reason]), 0, refusal.text)


@final
class Commits:
    """Runs group commits, at most one per partition at a time.

    A commit is too short to be handed to a thread (docs/architecture.md, "One commit per partition
    and turn"). If a commit waits for the disk, its last step runs in a thread; the loop does not
    wait, and submissions that arrive meanwhile form the next group, so groups grow with the load.
    Only that step: in a thread, each statement waits for the interpreter while the loop is busy,
    and a thread that has the interpreter and no CPU keeps the loop waiting.
    """

    def __init__(
        self,
        run_in_thread: Callable[[Callable[[], Commit]], asyncio.Future[Commit]],
        wakeup: Wakeup,
        observe_ns: Callable[[int], None],
        *,
        clock_ns: Callable[[], int],
        wall_clock_ns: Callable[[], int],
        power: bool,
    ) -> None:
        """Create without commits.

        Args:
            run_in_thread: runs a commit in a thread.
            wakeup: requests the turn that collects it.
            observe_ns: called with the duration of each commit.
            clock_ns: monotonic, as ``time.monotonic``.
            wall_clock_ns: nanoseconds since 1970.
            power: True if all commits wait for the disk; otherwise only those with control entries
                of accounts and rooms (``store.sqlite``).
        """
        self._run_in_thread = run_in_thread
        self._wakeup = wakeup
        self._observe_ns = observe_ns
        self._clock_ns = clock_ns
        self._wall_clock_ns = wall_clock_ns
        self.power = power
        self._finished: list[Commit] = []
        self.slow_first = 0
        """The partition whose slow submissions are next in turn: see ``next_slow``."""
        self._throttled_until_ns: dict[int, int] = {}
        """By partition: until when it is throttled, if no time is added."""

    def throttled(self, index: int) -> bool:
        """Return True if a partition must not begin a commit now that waits for the disk."""
        until_ns = self._throttled_until_ns.get(index)
        return until_ns is not None and (until_ns - self._clock_ns() > THROTTLE_AHEAD_NS)

    def next_slow(self, waiting: Iterable[int], committing: Collection[int]) -> int:
        """Return the next partition, in turn, that may begin a commit that waits for the disk; -1:
        none.

        Args:
            waiting: partitions with something to commit.
            committing: partitions in which a commit runs.
        """
        found, nearest = -1, PARTITIONS
        for index in waiting:
            distance = (index - self.slow_first) % PARTITIONS
            if distance < nearest and index not in committing and not self.throttled(index):
                found, nearest = index, distance
        return found

    def append_lone(self, partition: Partition, waiting: Waiting) -> Stored | StoreError | None:
        """Commit a message that waits alone, at once, and acknowledge it. Raises nothing.

        Returns:
            None if it needs ``begin``: then nothing was done.
        """
        if self.power:
            return None  # it waits for the disk
        began_ns = self._clock_ns()
        stored: Stored | StoreError | None
        try:
            now_ms = self._wall_clock_ns() // 1_000_000
            stored = partition.append_lone(waiting.submission, now_ms)
        except Exception as error:  # noqa: BLE001 - the senders are answered whatever happens
            stored = _failure(error)
        if stored is None:
            return None
        self._observe_ns(self._clock_ns() - began_ns)
        if not isinstance(stored, StoreError):
            _acknowledge(waiting, stored)
        return stored

    def begin(
        self, index: int, partition: Partition, group: list[Waiting], *, quick: bool
    ) -> Commit | None:
        """Begin a commit. Return it if it is finished; otherwise None, and ``finished`` returns it
        later.

        Raises nothing: the senders must be answered whatever happens.

        Args:
            index: of the partition.
            partition: the partition itself.
            group: what to commit.
            quick: nothing of it is slow (``submissions``): unless all commits wait for the disk, it
                does not.
        """
        began_ns = self._clock_ns()
        budget = ReadBudget(READS_MAX, began_ns / 1e9 + READING_S_MAX)
        append = partition.append if quick and not self.power else partition.begin
        submissions = [waiting.submission for waiting in group]
        outcomes: list[Outcome] | StoreError | Callable[[], list[Outcome]]
        try:
            outcomes = append(submissions, self._wall_clock_ns() // 1_000_000, budget)
        except Exception as error:  # noqa: BLE001 - the senders are answered whatever happens
            outcomes = _failure(error)
        if not callable(outcomes):
            self._observe_ns(self._clock_ns() - began_ns)
            return Commit(index, group, outcomes, budget.spent)
        commit = outcomes

        def in_thread() -> Commit:
            committed: list[Outcome] | StoreError
            try:
                committed = commit()
            except Exception as error:  # noqa: BLE001 - as above
                committed = _failure(error)
            return Commit(index, group, committed, budget.spent)

        def ended(future: asyncio.Future[Commit]) -> None:
            now_ns = self._clock_ns()
            self._observe_ns(now_ns - began_ns)
            if not self.power:
                owed_ns = max(self._throttled_until_ns.get(index, 0), now_ns)
                # The part of the others' waiting time that the store took, plus the time until a
                # thread ran and until the loop ran again.
                self._throttled_until_ns[index] = owed_ns + THROTTLE_FACTOR * min(
                    now_ns - began_ns, THROTTLE_FOR_NS_MAX
                )
            self._finished.append(future.result())
            self._wakeup.request()

        self._run_in_thread(in_thread).add_done_callback(ended)
        return None

    def finished(self) -> list[Commit]:
        """Return the commits that finished since the last call."""
        finished, self._finished = self._finished, []
        return finished


@final
class RunningCommits:
    """Commits that run in threads, at most one per partition. Their submissions are in no queue.

    So code that empties the queues must also handle these: what they store until they end, and what
    they then put back into a queue.
    """

    __slots__ = ("_running", "awaited")

    def __init__(self) -> None:
        self._running: dict[int, list[Port]] = {}
        """By partition: the workers that send their submissions in it again."""
        self.awaited: list[tuple[set[int], Callable[[], None]]] = []
        """Callbacks, and the partitions whose commits each waits for."""

    def began(self, index: int) -> None:
        """Note that a commit continues in a thread."""
        self._running[index] = []

    def forget(self, index: int, port: Port) -> None:
        """Note that a worker is about to resend its submissions for a partition."""
        resending = self._running.get(index)
        if resending is not None:
            resending.append(port)

    def after(self, done: Callable[[], None]) -> None:
        """Call ``done`` when all commits now running are finished and answered, or at once."""
        if self._running:
            self.awaited.append((set(self._running), done))
        else:
            done()

    def ended(self, index: int) -> list[Port]:
        """Note that a commit has finished.

        Return the workers that have resent their part meanwhile.
        """
        return self._running.pop(index, [])

    def answered(self, index: int) -> None:
        """Note that its submissions are answered or queued again. Called if any is ``awaited``."""
        for partitions, _ in self.awaited:
            partitions.discard(index)
        over = [done for partitions, done in self.awaited if not partitions]
        self.awaited = [one for one in self.awaited if one[0]]
        for done in over:
            done()


def _acknowledge(waiting: Waiting, stored: Stored | Began) -> None:
    """Answer that one submission is stored."""
    waiting.port.send(_new(Acks, ([[waiting.tag, stored.epoch, stored.seq, 1]],)))


def _failure(error: Exception) -> StoreError:
    """Return why a commit failed."""
    if isinstance(error, StoreError):
        return error
    exit_if_out_of_memory(error)
    log.error("commit_failed", exc_info=error)
    return StoreUnavailable("an internal error")
