"""The home of logs. In every turn it numbers, commits, acknowledges and publishes, in that order.

What is committed waits in ``submission_queues``.

Everything that arrived for a partition in one loop iteration forms one group commit. A message is
accepted once it is committed, and only then acknowledged or shown to anybody (invariant "Accepted
means committed"). Before each commit the home checks that it still owns the partition (invariant
"One writer per partition").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.server.metrics import Budget
from relay.server.worker.error_codes import code_of, unavailable_text
from relay.server.worker.home.committing.commits import COMMITS_S, Commit, Commits
from relay.server.worker.home.submissions import (
    GROUP_MAX,
    GROUP_MIN,
    SHARE,
    SLOW_PER_GROUP,
    Waiting,
    refuse,
)
from relay.store.errors import NotTheWriter, StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.server.worker.damaged_logs import DamagedLogs
    from relay.server.worker.home.committing.notes import CommitNotes
    from relay.server.worker.home.committing.submission_queues import SubmissionQueues
    from relay.server.worker.home.followers.attached_workers import Followers
    from relay.server.worker.home.followers.publishing import Publishing
    from relay.server.worker.home.partitions import OwnPartitions
    from relay.server.worker.refusals import Refusals
    from relay.store.log import Partition


class Writer:
    """The writer of the partitions that this worker owns."""

    def __init__(
        self,
        partitions: OwnPartitions,
        followers: Followers,
        notes: CommitNotes,
        queues: SubmissionQueues,
        *,
        wake: Callable[[], None],
        cpu_clock: Callable[[], float],
        publishing: Publishing,
        commits: Commits,
        refusals: Refusals,
        damaged: DamagedLogs,
    ) -> None:
        """Create without submissions.

        Args:
            partitions: of this worker.
            followers: the workers that may submit.
            notes: what commits store in addition.
            queues: what waits to be committed.
            wake: requests a turn.
            cpu_clock: CPU time of this thread in seconds.
            publishing: publishes what was committed.
            commits: runs the commits.
            refusals: of this worker.
            damaged: reports logs that cannot be read.
        """
        self._partitions = partitions
        self._owns = partitions.owns
        self._opened = partitions.opened
        self._refused = partitions.refused
        self._committing = partitions.committing
        self._followers = followers
        self._attached = followers.attached
        self._notes = notes
        self._wake = wake
        self.publishing = publishing
        self._commits = commits
        self._cpu_clock = cpu_clock
        self._refusals = refusals
        self._damaged = damaged
        self.short_of_disk: frozenset[int] = frozenset()
        """Partitions whose disk has only the reserve left: they store nothing."""
        self._queues = queues
        self._running = queues.running
        self._submissions = queues.by_partition
        self._waiting = queues.waiting
        self.blocked: set[int] = set()
        """Those whose commit waits for a checkpoint or the end of ``paused``: check again soon."""
        self.more = False
        """True when ``commit_remaining`` has left something for the next turn."""
        self.remaining = False
        """True when ``commit`` has left something for ``commit_remaining``."""

    # --- ownership ----------------------------------------------------------------------------
    def give_up_others(self) -> None:
        """Close the partitions that the table has given to others, and drop their submissions."""
        for index in self._partitions.close_others():
            self._notes.forget(index)
        direct = self._queues.direct
        if direct is not None:
            for port, index in direct.give_up_others(self._owns, self._opened):
                self._followers.refuse(port, index)

    def settle(self) -> None:
        """Store notes where no commit has followed. Called about once a second."""
        for index in list(self._notes.noted):
            if index in self._refused:
                self._notes.forget(index)
            elif index not in self._waiting and index not in self._committing and self._owns(index):
                self._waiting[index] = None
                self._wake()

    # --- committing ---------------------------------------------------------------------------
    def commit(self, *, heavy_paused: bool = False) -> None:
        """Commit what waits, one group per partition; acknowledge; publish.

        If much waits, commit only for light users, and leave the others to ``commit_remaining``:
        fast work for light users does not wait for it.
        """
        self.remaining = self.more = False
        if self._committing:
            for commit in self._commits.finished():
                self._finish(commit)
        waiting = self._waiting
        if self._partitions.paused:
            self.blocked.update(waiting)
        elif waiting:
            self._commit_lone()
            if waiting and self._separates_light():
                self._commit_light(heavy_paused)
                self.remaining = self._has_ready()
            if waiting and not self.remaining:
                self.commit_remaining()

    def _commit_lone(self) -> None:
        """Commit each message that waits alone in its partition and needs no decision.

        Unless there are many at once, nearly all do: nothing is to be chosen, divided or charged.
        """
        for index in list(self._waiting):
            submissions = self._submissions[index]
            lone = submissions.lone
            if lone is None or lone.heavy or index in self.blocked or index in self._notes.noted:
                continue
            partition = self._ready(index)
            stored = None if partition is None else self._commits.append_lone(partition, lone)
            if stored is None:
                continue
            del self._waiting[index]
            submissions.clear()
            if isinstance(stored, StoreError):
                self._failed(index, [lone], stored)
            else:
                if self._partitions.troubles:
                    self._partitions.written(index)
                self.publishing.publish_lone(lone.submission.log, stored)
            if self._followers.waiting:
                self._followers.committed(index)

    def _separates_light(self) -> bool:
        """Return True if light users would wait for others in a common commit."""
        if self._commits.power:
            return False  # each commit waits for the disk: two take twice as long as one
        return sum([self._submissions[index].units() for index in self._waiting]) > SHARE

    def commit_remaining(self, slice_s: float = COMMITS_S) -> None:
        """Commit what ``commit`` has left, for so long; ``more``: not all. Raises nothing."""
        self.remaining = False
        if self._partitions.paused:
            self.blocked.update(self._waiting)
            return
        self._begin_commits(slice_s)
        self.more = self._has_ready()

    def _has_ready(self) -> bool:
        """Return True if some of what waits could be committed now."""
        return bool(self._waiting.keys() - self._committing - self.blocked)

    def _commit_light(self, heavy_paused: bool) -> None:
        deadline = self._cpu_clock() + COMMITS_S / 2
        for index in list(self._waiting):
            blocked = index in self.blocked
            partition = self._ready(index)
            if partition is None:
                continue
            submissions = self._submissions[index]
            group = submissions.take_light(partition.in_use, heavy_paused=heavy_paused)
            if not group:
                if blocked:
                    self.blocked.add(index)  # its other submissions must still wait
                continue
            del self._waiting[index]
            if submissions.count:
                self._waiting[index] = None
            self._commit(index, partition, group, quick=True)
            if self._cpu_clock() >= deadline:
                self.more = True  # the next turn goes on, whether the others are paused or not
                break

    def _begin_commits(self, slice_s: float) -> None:
        """Commit the fast submissions of each partition and, in turn, the slow ones of one."""
        waiting = self._waiting
        group_max = max(GROUP_MIN, GROUP_MAX // len(waiting))
        if slice_s < COMMITS_S:
            # CPU time is short (``pace``), and one commit is not interrupted: in a slice of a
            # quarter of the usual length it has a quarter of the submissions.
            group_max = int(GROUP_MIN * slice_s / COMMITS_S)
        slow_index = self._commits.next_slow(waiting, self._committing)
        # With one partition the CPU clock, which is a system call, need not be read.
        deadline = self._cpu_clock() + slice_s if len(waiting) > 1 else 0.0
        for index in list(waiting):
            slow = index == slow_index
            if self._begin(index, group_max, SLOW_PER_GROUP if slow else 0) and slow:
                self._commits.slow_first = index + 1
            if deadline and len(waiting) > 1 and self._cpu_clock() >= deadline:
                break

    @property
    def senders(self) -> int:
        """Return the number of senders whose submissions wait to be committed."""
        return sum([self._submissions[index].senders for index in self._waiting])

    @property
    def busy(self) -> bool:
        """True while anything submitted is not committed and answered."""
        return bool(self._waiting or self._committing)

    def _begin(self, index: int, group_max: int, slow_max: int) -> bool:
        """Begin a commit, and finish it if it is done at once. Return True if it was begun."""
        partition = self._ready(index)
        if partition is None:
            return False
        submissions = self._submissions[index]
        group, slow = submissions.take(partition.in_use, group_max, slow_max)
        noted = index in self._notes.noted
        if noted:
            self._notes.hand_over(index, partition)
        if not group and not slow and not noted:
            if self._commits.throttled(index):
                self.blocked.add(index)
            return False
        del self._waiting[index]
        if submissions.count:
            self._waiting[index] = None  # now last in turn
        if slow and group and not self._commits.power:
            # It does not wait for the disk with the slow ones.
            self._commit(index, partition, group, quick=True)
            if self._opened.get(index) is not partition or index in self._refused:
                submissions.give_back(slow)  # it was found damaged, and a thread may be closing it
                self._waiting[index] = None
                self._ready(index)  # answers them
                return True
            group = []
        self._commit(index, partition, group + slow if slow else group, quick=not slow)
        return True

    def _ready(self, index: int) -> Partition | None:
        """Return a partition that can begin a commit now. None: it waits, or was answered."""
        if index in self._committing:
            return None
        if not self._owns(index):
            self._not_home(index)
            return None
        if index in self._refused:
            refuse(self._take_all(index), ErrorCode.DAMAGED)
            return None
        if index in self.short_of_disk:
            group = self._take_all(index)  # the shortage of disk space is logged elsewhere
            self._refusals.add(Budget.DISK_RESERVE, len(group))
            refuse(group, ErrorCode.UNAVAILABLE, "the disk is nearly full")
            return None
        try:
            partition = self._opened.get(index) or self._partitions.partition(index)
        except NotTheWriter:
            self._not_home(index)
            return None
        except StoreError as error:
            self._failed(index, self._take_all(index), error)
            return None
        if partition.commits_blocked:
            self.blocked.add(index)
            return None
        self.blocked.discard(index)
        return partition

    def _commit(
        self, index: int, partition: Partition, group: list[Waiting], *, quick: bool
    ) -> None:
        assert index not in self._committing
        self._committing.add(index)
        commit = self._commits.begin(index, partition, group, quick=quick)
        if commit is not None:
            self._finish(commit)
        else:
            self._running.began(index)

    def _finish(self, commit: Commit) -> None:
        index, group, outcomes = commit.partition, commit.group, commit.outcomes
        self._committing.discard(index)
        resending = self._running.ended(index)
        if isinstance(outcomes, StoreError):
            self._notes.not_stored(index)
            self._failed(index, group, outcomes)
        else:
            submissions = self._submissions[index]
            if len(outcomes) < len(group):
                rest = [one for one in group[len(outcomes) :] if one.port not in resending]
                if rest := self._queues.revoked.kept(rest):
                    submissions.give_back(rest)
                    self._waiting[index] = None
                del group[len(outcomes) :]
            submissions.charge(group, commit.reads)
            if self._partitions.troubles:
                self._partitions.written(index)
            # Acknowledge before publishing: a slow fan-out must not delay acknowledgements.
            commit.answer(outcomes, self._damaged)
            self.publishing.publish(group, outcomes)
        if self._followers.waiting:
            self._followers.committed(index)
        if self._running.awaited:
            self._running.answered(index)

    def _take_all(self, index: int) -> list[Waiting]:
        del self._waiting[index]
        self.blocked.discard(index)
        return self._submissions[index].take_all()

    def _not_home(self, index: int) -> None:
        for port in dict.fromkeys([waiting.port for waiting in self._take_all(index)]):
            self._followers.refuse(port, index)

    def _failed(self, index: int, group: list[Waiting], error: StoreError) -> None:
        self._partitions.failed(index, error)
        refuse(group, code_of(error), unavailable_text(error))
