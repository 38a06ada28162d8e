"""The home of logs: numbers, commits, acknowledges, publishes. In that order, in every turn.

Everything that arrived for a partition in one loop turn is one group commit. A message is accepted
once it is committed, and only then acknowledged or shown to anybody (invariant "Accepted means
committed"). Before each commit the home looks whether the partition is still its own (invariant
"One writer per partition").
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.bus.messages import ITEMS_PER_MESSAGE, Acks, NotHome, Refused, Subscribed
from relay.chat.entries import UNDECIDED, Extra, Head, Kind, Submission, is_copy
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import PARTITIONS, partition_of
from relay.server.metrics import Budget
from relay.server.worker.home.permissions import refused
from relay.server.worker.home.submissions import (
    GROUP_MAX,
    GROUP_MIN,
    SLOW_PER_GROUP,
    Submissions,
    Waiting,
)
from relay.server.worker.room_codes import CODES
from relay.store.errors import NotTheWriter, StoreError, StoreFull
from relay.store.log import (
    Began,
    Denied,
    Expected,
    Forbidden,
    IdConflict,
    LogRefused,
    Outcome,
    Repeated,
    Stored,
    UnknownOutcome,
)
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.bus.messages import Subscribe
    from relay.server.worker.home.commits import Commit, Commits
    from relay.server.worker.home.direct import Direct
    from relay.server.worker.home.interest import Interest
    from relay.server.worker.refusals import Refusals
    from relay.store.log import Partition, Reader

QUEUED_BYTES_MAX: Final = 16 * 1024 * 1024
"""Submissions of a partition held for their commit; beyond it: BUSY. Credits of the workers that
forward (``forward.CREDIT_BYTES``) keep it from being reached."""
REVOKED_MAX: Final = 65_536
"""Devices remembered as revoked. Each was one until a moment ago: their sessions have ended, and a
later login is refused by the account's home. What is still on its way is what this is for."""
SYSTEM: Final = int(Kind.SYSTEM)
_new: Final = tuple.__new__
REDACTION: Final = int(Kind.REDACTION)
COMMITS_S: Final = 0.010
"""Of the processor's time for the commits of one turn: no other partition's is begun after so long.
Not of the clock's: else, on a machine with more to do than it can, a turn would do next to nothing,
and partitions would wait for many turns."""
log = logging.getLogger("relay.worker")


class Home:
    """The writer of the partitions that this worker owns."""

    def __init__(
        self,
        *,
        owns: Callable[[int], bool],
        open_partition: Callable[[int], Partition],
        reader_of: Callable[[str], Reader],
        wall_clock_ns: Callable[[], int],
        interest: Interest,
        commits: Commits,
        cpu_clock: Callable[[], float],
        refusals: Refusals,
    ) -> None:
        """Begin with no partition open.

        Args:
            owns: tells whether a partition is this worker's.
            open_partition: opens one for writing; raises StoreError.
            reader_of: reads a log whose partition cannot be opened for writing.
            wall_clock_ns: nanoseconds since 1970.
            interest: where batches go.
            commits: where commits run.
            cpu_clock: seconds for which this thread has had the processor.
            refusals: of this worker.
        """
        self._owns = owns
        self._attached: set[tuple[Port, int]] = set()
        """Who may send what concerns which partition: see ``bus.messages.Attach``."""
        self._open_partition = open_partition
        self._reader_of = reader_of
        self._wall_clock_ns = wall_clock_ns
        self._interest = interest
        self._commits = commits
        self._cpu_clock = cpu_clock
        self._refusals = refusals
        self.queued_bytes_max = QUEUED_BYTES_MAX
        self.short_of_disk: frozenset[int] = frozenset()
        """Partitions whose disk has no more than the reserve left: nothing is stored in them."""
        self._troubles: dict[int, str] = {}
        """Partitions that cannot be written, and why: logged once, not with every attempt."""
        self._partitions: dict[int, Partition] = {}
        self._submissions = [Submissions() for _ in range(PARTITIONS)]
        self._waiting: dict[int, None] = {}
        """Partitions that have submissions; the first is the next to commit."""
        self.held: set[int] = set()
        """Of those, the ones whose commit waits for a checkpoint, or until this worker is not
        ``paused`` any more: look again soon."""
        self.paused = False
        """True while a backup fixes its moment: no commit is begun (``process/commit_pause``)."""
        self.more = False
        """True when ``commit`` has left something for the next turn."""
        self._slow_next = 0
        """The partition whose slow submissions are the next in turn."""
        self._committing: set[int] = set()
        """Partitions whose commit has begun and is not finished."""
        self._revoked: dict[tuple[str, bytes], None] = {}
        """(handle, key id) of devices whose messages are not stored any more."""
        self._subscribing: dict[int, list[tuple[Port, str]]] = {}
        self.accepted = 0
        """Messages; what accounts log is counted elsewhere."""
        self.repeated = 0
        self.close_partition: Callable[[Partition], None] = _close
        """Closes one that another worker has now; it may be closed later, elsewhere."""
        self.before_attach: Callable[[], None] = _nothing
        """Called before a worker attaches a partition: looks whose it is."""
        self.wake: Callable[[], None] = _nothing
        """Asks for a turn."""
        self.direct: Direct | None = None
        """What direct messages need besides; set before anything is submitted."""
        self._confirmed: dict[int, list[tuple[str, int]]] = {}
        """By partition: direct messages that are pending no more, for the next commit."""
        self._seen: dict[int, dict[str, int]] = {}
        """Likewise when (ms) the owners of inboxes were last here."""
        self._folds: dict[int, dict[str, tuple[int, bytes]]] = {}
        """Likewise (seq, packed) what the control entries of inboxes make."""

    # --- who may ask --------------------------------------------------------------------------
    def attached(self, port: Port, log: str) -> bool:
        """Tell whether a worker may send what concerns a log.

        Otherwise it was sent before the peer processed NOT_HOME; it is sent again after ATTACH.
        """
        return (port, partition_of(log)) in self._attached

    def attach(self, port: Port, partition: int) -> None:
        """A worker is about to send anew what it has in a partition, uncommitted sends too."""
        self.before_attach()
        self._forget(port, partition)
        if self._owns(partition):
            self._attached.add((port, partition))
        else:
            port.send(NotHome(partition))

    def refuse(self, port: Port, partition: int) -> None:
        """Answer that this is not the home of a partition, or cannot be it now."""
        self._attached.discard((port, partition))
        port.send(NotHome(partition))

    def refuse_others(self) -> None:
        """The table has changed: this is not the home any more of what others own."""
        for port, partition in list(self._attached):
            if not self._owns(partition):
                self.refuse(port, partition)

    def drop(self, port: Port) -> None:
        """A worker is gone. What it has submitted is still committed."""
        self._attached = {attached for attached in self._attached if attached[0] is not port}
        for waiting in self._subscribing.values():
            waiting[:] = [each for each in waiting if each[0] is not port]
        self._interest.drop(port)

    def _forget(self, port: Port, partition: int) -> None:
        if self.direct is not None:
            self.direct.permissions.forget(
                lambda one: one.port is port and partition_of(one.submission.log) == partition
            )
        waiting = self._subscribing.get(partition, [])
        waiting[:] = [each for each in waiting if each[0] is not port]
        self._interest.forget(port, partition)
        submissions = self._submissions[partition]
        if submissions.lanes:
            submissions.remove(lambda waiting: waiting.port is port)
            if not submissions.lanes:
                self._waiting.pop(partition, None)

    # --- what they ask ------------------------------------------------------------------------
    def submit(self, waiting: Waiting) -> None:
        """Take a submission for the commit of this turn."""
        submission = waiting.submission
        index = partition_of(submission.log)
        if (waiting.port, index) not in self._attached:
            return
        extra = submission.extra
        if extra is not None and extra.origin_seq:
            pass  # it was accepted before; who sent it may be gone since
        elif self._revoked and (submission.sender, submission.key_id) in self._revoked:
            waiting.port.send(Refused(waiting.tag, int(ErrorCode.KEY_REFUSED), 0, ""))
            return
        elif extra is not None and extra.to and extra.verdict == UNDECIDED:
            assert self.direct is not None
            self.direct.permissions.take(waiting)
            return
        submissions = self._submissions[index]
        if submissions.bytes + len(submission.body) > self.queued_bytes_max:
            text = "the log's home cannot keep up"
            waiting.port.send(Refused(waiting.tag, int(ErrorCode.BUSY), limits.RETRY_MS, text))
            return
        submissions.put(waiting)
        self._waiting[index] = None

    def submit_own(self, port: Port, tag: int, submission: Submission) -> None:
        """Take an entry that this worker itself has decided on, about a log of its own."""
        index = partition_of(submission.log)
        self._submissions[index].put(Waiting(port, tag, submission))
        self._waiting[index] = None
        self.wake()

    def revoke(self, handle: str, key_ids: list[bytes], *, lifted: bool) -> None:
        """Store nothing more of these devices, what waits included; ``lifted``: store it again."""
        for key_id in key_ids:
            self._revoked.pop((handle, key_id), None)
            if not lifted:
                self._revoked[handle, key_id] = None
        while len(self._revoked) > REVOKED_MAX:
            del self._revoked[next(iter(self._revoked))]
        if lifted:
            return
        gone = {(handle, key_id) for key_id in key_ids}
        if self.direct is not None:
            self.direct.permissions.forget(
                lambda one: (one.submission.sender, one.submission.key_id) in gone
            )
        for index, submissions in enumerate(self._submissions):
            if submissions.lanes:
                submissions.remove(
                    lambda one: (
                        one.submission.kind != SYSTEM
                        and not is_copy(one.submission)
                        and (one.submission.sender, one.submission.key_id) in gone
                    )
                )
                if not submissions.lanes:
                    self._waiting.pop(index, None)

    def subscribe(self, port: Port, message: Subscribe) -> None:
        """Answer the head and start the stream, in this one turn (invariant "One seam")."""
        index = partition_of(message.log)
        if (port, index) not in self._attached:
            return
        if index in self._committing:
            # A thread is moving the head: answered as soon as it is committed.
            self._subscribing.setdefault(index, []).append((port, message.log))
            return
        self._subscribe(index, port, message.log)

    def unsubscribe(self, port: Port, name: str) -> None:
        """A worker follows a log no more."""
        waiting = self._subscribing.get(partition_of(name), [])
        waiting[:] = [each for each in waiting if each != (port, name)]
        self._interest.remove(name, port)

    def _subscribe(self, index: int, port: Port, name: str) -> None:
        try:
            head = self._head(index, name)
            state = self._state(index, name)
        except StoreError as error:
            self._trouble(index, error)
            self.refuse(port, index)
            return
        self._interest.add(name, port)
        port.send(Subscribed(name, head.epoch, head.seq, state))

    def heads(self, names: list[str]) -> list[list[str | bytes | int]]:
        """Return [log, epoch, seq] of each log of an own partition.

        While a commit runs in a thread this is the head before or after it. Either is right: what
        the commit adds is still to be published, and a batch that comes late is known by its seq.
        """
        found: list[list[str | bytes | int]] = []
        for name in names:
            index = partition_of(name)
            if not self._owns(index):
                continue
            try:
                head = self._head(index, name)
            except StoreError:
                continue
            found.append([name, head.epoch, head.seq])
        return found

    def _head(self, index: int, name: str) -> Head:
        try:
            return self.partition(index).head(name)
        except StoreFull:
            return self._reader_of(name).head(name)  # invariant "Disk errors": readers go on

    def _state(self, index: int, name: str) -> bytes:
        try:
            return self.partition(index).state(name)
        except StoreFull:
            return self._reader_of(name).state(name)

    def state(self, name: str) -> tuple[bytes, int]:
        """Return the packed state of a log of an own partition, and the seq of its last entry.

        Raises:
            StoreError: it cannot be read.
        """
        index = partition_of(name)
        return self._state(index, name), self._head(index, name).seq

    def epoch_at(self, name: str, seq: int) -> bytes:
        """Return the epoch in which a seq of a log lies. Raises StoreError."""
        return self._reader_of(name).epoch_at(name, seq)

    def due(self, index: int, now_ms: int) -> list[str]:
        """Return the logs of a partition in whose state something has an end that is over."""
        partition = self._partitions.get(index)
        if partition is None or not self._owns(index) or index in self._committing:
            return []
        try:
            return partition.due(now_ms)
        except StoreError as error:
            self._trouble(index, error)
            return []

    # --- partitions ---------------------------------------------------------------------------
    def partition(self, index: int) -> Partition:
        """Return an own partition, opened.

        Raises:
            StoreError: it cannot be opened now; NotTheWriter while its last home still dies.
        """
        partition = self._partitions.get(index)
        if partition is None:
            partition = self._open_partition(index)
            if self.direct is not None:
                try:
                    self.direct.copies.resume(partition.pending())
                except StoreError:
                    partition.close()
                    raise
            self._partitions[index] = partition
        return partition

    def open_own(self) -> None:
        """Open all partitions that this worker owns; for one, a full disk is no obstacle.

        Raises:
            StoreError: one cannot be opened.
        """
        for index in range(PARTITIONS):
            if self._owns(index):
                try:
                    self.partition(index)
                except StoreFull as error:
                    self._trouble(index, error)

    def give_up_others(self) -> None:
        """Close the partitions that the table has given to another worker."""
        for index, partition in list(self._partitions.items()):
            if (
                not self._owns(index)
                and index not in self._committing
                and not partition.checkpointing
            ):
                self._confirmed.pop(index, None)
                self._seen.pop(index, None)
                self._folds.pop(index, None)
                del self._partitions[index]
                self.close_partition(partition)
        if self.direct is not None:
            self.direct.copies.forget_others(self._owns)
            for index in range(PARTITIONS):
                if not self._owns(index):
                    for port in self.direct.permissions.refuse(index):
                        self.refuse(port, index)

    def owned(self, index: int) -> bool:
        """Tell whether a partition is this worker's, and open."""
        return self._owns(index) and index in self._partitions

    def begin_removal(self, index: int) -> Partition | None:
        """Return an own partition for one short commit; None: it is in use now.

        Until ``end_removal`` nothing else is committed in it.
        """
        partition = self._partitions.get(index)
        busy = index in self._committing or self.paused
        if partition is None or busy or partition.held or not self._owns(index):
            return None
        self._committing.add(index)
        return partition

    def end_removal(self, index: int) -> None:
        """What waited for it can be committed."""
        self._committing.discard(index)
        self.wake()

    def forget_partition(self, partition: int) -> None:
        """Another worker is the home of a partition now: whoever follows it asks there."""
        self._subscribing.pop(partition, None)
        self._interest.forget_partition(partition)

    def confirm(self, log: str, seq: int) -> None:
        """A direct message is in its recipient's log: it is pending no more."""
        self._confirmed.setdefault(partition_of(log), []).append((log, seq))

    def note_seen(self, name: str) -> None:
        """Somebody has come or gone: it is stored with the next commit, or by ``settle``."""
        log = INBOX_PREFIX + name
        seen = self._seen.setdefault(partition_of(log), {})
        seen[log] = self._wall_clock_ns() // 1_000_000

    def note_fold(self, log: str, seq: int, packed: bytes) -> None:
        """Note what the control entries of a log up to seq make of it: stored likewise."""
        self._folds.setdefault(partition_of(log), {})[log] = seq, packed

    def settle(self) -> None:
        """Store what was noted where no commit has come since. Called about once a second."""
        for index in {*self._confirmed, *self._seen, *self._folds}:
            if index not in self._waiting and index not in self._committing and self._owns(index):
                self._waiting[index] = None
                self.wake()

    def close(self) -> None:
        """Close all partitions cleanly. What waits for a commit is not committed by this."""
        for partition in self._partitions.values():
            partition.close()
        self._partitions.clear()

    # --- committing ---------------------------------------------------------------------------
    def commit(self) -> None:
        """Commit what waits, one group per partition; acknowledge; publish.

        For a slice of time: ``more`` tells that the next turn has to go on.
        """
        self.more = False
        if self._committing:
            for commit in self._commits.finished():
                self._finish(commit)
        if self.paused:
            self.held.update(self._waiting)
        elif self._waiting:
            self._begin_commits(self._cpu_clock() + COMMITS_S)
            self.more = any(
                index not in self._committing and index not in self.held for index in self._waiting
            )

    def _begin_commits(self, deadline: float) -> None:
        """Commit what waits: of each partition what is quick, and what is slow of one in turn."""
        waiting = self._waiting
        group_max = max(GROUP_MIN, GROUP_MAX // len(waiting))
        slow_index = min(waiting, key=lambda index: (index - self._slow_next) % PARTITIONS)
        for index in list(waiting):
            slow = index == slow_index
            if self._begin(index, group_max, SLOW_PER_GROUP if slow else 0) and slow:
                self._slow_next = index + 1
            if len(waiting) > 1 and self._cpu_clock() >= deadline:
                break

    @property
    def unavailable(self) -> int:
        """How many of its partitions cannot be written."""
        return len(self._troubles)

    @property
    def committing(self) -> bool:
        """True while a commit that has begun is not finished."""
        return bool(self._committing)

    @property
    def busy(self) -> bool:
        """True while anything that was submitted is not committed and answered."""
        return bool(self._waiting or self._committing)

    def _begin(self, index: int, group_max: int, slow_max: int) -> bool:
        """Begin a commit, and finish it if it is over at once; return True if it was begun.

        See ``Submissions.take`` for what goes into it.
        """
        if index in self._committing:
            return False
        if not self._owns(index):
            self._not_home(index)
            return False
        if index in self.short_of_disk:
            self._refuse_for_disk(index)
            return False
        try:
            partition = self.partition(index)
        except NotTheWriter:
            self._not_home(index)
            return False
        except StoreError as error:
            self._failed(index, self._take_all(index), error)
            return False
        if partition.held:
            self.held.add(index)
            return False
        self.held.discard(index)
        submissions = self._submissions[index]
        group = submissions.take(partition.in_use, group_max, slow_max)
        confirmed = self._confirmed.pop(index, None) if self._confirmed else None
        seen = self._seen.pop(index, None) if self._seen else None
        if confirmed is not None:
            partition.confirm(confirmed)
        if seen is not None:
            partition.note_seen(list(seen.items()))
        folds = self._folds.pop(index, None) if self._folds else None
        if folds is not None:
            partition.note_folds([(log, *fold) for log, fold in folds.items()])
        if not group and confirmed is None and seen is None and folds is None:
            return False
        self._committing.add(index)
        del self._waiting[index]
        if submissions.lanes:
            self._waiting[index] = None  # the last in turn now
        commit = self._commits.begin(index, partition, group, self._wall_clock_ns() // 1_000_000)
        if commit is not None:
            self._finish(commit)
        return True

    def _finish(self, commit: Commit) -> None:
        index, group, outcomes = commit.partition, commit.group, commit.outcomes
        self._committing.discard(index)
        if isinstance(outcomes, StoreError):
            self._failed(index, group, outcomes)
        else:
            submissions = self._submissions[index]
            if len(outcomes) < len(group):
                submissions.give_back(group[len(outcomes) :])
                del group[len(outcomes) :]
                self._waiting[index] = None
            submissions.charge(group, commit.reads)
            if index in self._troubles:
                del self._troubles[index]
                log.warning("partition_available", extra={"partition": index})
            # Acknowledge before anything is published: a slow fan-out must not delay it.
            _answer(group, outcomes)
            self._publish(group, outcomes)
        for port, name in self._subscribing.pop(index, ()):
            self._subscribe(index, port, name)

    def _take_all(self, index: int) -> list[Waiting]:
        del self._waiting[index]
        self.held.discard(index)
        return self._submissions[index].take_all()

    def _not_home(self, index: int) -> None:
        ports = dict.fromkeys([waiting.port for waiting in self._take_all(index)])
        for port in ports:
            self.refuse(port, index)

    def _failed(self, index: int, group: list[Waiting], error: StoreError) -> None:
        self._trouble(index, error)
        full = isinstance(error, StoreFull)
        text = "the disk is full" if full else "the store is unavailable"
        _refuse(group, text)

    def _refuse_for_disk(self, index: int) -> None:
        """Keep the reserve of free disk; readers go on. What is short of it is logged elsewhere."""
        group = self._take_all(index)
        self._refusals.add(Budget.DISK_RESERVE, len(group))
        _refuse(group, "the disk is nearly full")

    def _trouble(self, index: int, error: StoreError) -> None:
        reason = str(error)
        if not isinstance(error, NotTheWriter) and self._troubles.get(index) != reason:
            self._troubles[index] = reason
            log.error("partition_unavailable", extra={"partition": index, "reason": reason})

    def _publish(self, group: list[Waiting], outcomes: list[Outcome]) -> None:
        by_log: dict[str, list[Stored]] = {}
        interested = self._interest.logs
        for waiting, outcome in zip(group, outcomes, strict=True):
            if type(outcome) is Stored:
                submission = waiting.submission
                log = submission.log
                if submission.kind != SYSTEM:
                    if submission.extra is None:
                        self.accepted += 1
                    else:
                        self._stored_more(submission, submission.extra, outcome.seq)
                    if log in interested:
                        by_log.setdefault(log, []).append(outcome)
                elif log in interested:
                    self._publish_control(log, by_log.pop(log, None), outcome)
            elif type(outcome) is Repeated:
                self.repeated += 1
            elif type(outcome) is Began:
                self.accepted += 1
                log = waiting.submission.log
                if log in interested:
                    self._publish_control(log, by_log.pop(log, None), outcome.first)
                    by_log[log] = [_new(Stored, outcome[:4])]
        for name, rows in by_log.items():
            self._interest.publish_rows(name, rows)

    def _publish_control(self, log: str, before: list[Stored] | None, row: Stored) -> None:
        """End the batch: who may read what follows may be others than those before it."""
        if before:
            self._interest.publish_rows(log, before)
        self._interest.publish_control(log, row)

    def _stored_more(self, submission: Submission, extra: Extra, seq: int) -> None:
        """A direct message, or an entry about another one, was stored."""
        if submission.kind == REDACTION:
            self._interest.erased(submission.log)
        if extra.origin_seq:
            return  # it was counted when it was accepted
        self.accepted += 1
        if extra.to and extra.to != submission.sender:
            assert self.direct is not None
            self.direct.copies.accepted(submission.log, extra.to, seq)


def _answer(group: list[Waiting], outcomes: list[Outcome]) -> None:
    acks: dict[Port, list[list[int | bytes]]] = {}
    for waiting, outcome in zip(group, outcomes, strict=True):
        port, tag = waiting.port, waiting.tag
        if type(outcome) is Stored or type(outcome) is Began:  # nearly all
            acks.setdefault(port, []).append([tag, outcome.epoch, outcome.seq])
            continue
        match outcome:
            case Repeated(epoch=epoch, seq=seq):
                acks.setdefault(port, []).append([tag, epoch, seq])
            case IdConflict(seq=seq):
                port.send(Refused(tag, int(ErrorCode.ID_CONFLICT), seq, ""))
            case Expected(counter=counter):
                port.send(Refused(tag, int(ErrorCode.EXPECTED), counter, ""))
            case UnknownOutcome():
                port.send(Refused(tag, int(ErrorCode.UNKNOWN_OUTCOME), 0, ""))
            case Denied(refused=denied):
                port.send(Refused(tag, int(CODES[denied.reason]), 0, denied.text))
            case Forbidden(code=code):
                port.send(refused(tag, code, limits.RETRY_MS))
            case LogRefused(reason=reason):
                port.send(Refused(tag, int(ErrorCode.LIMIT), 0, reason))
    for port, listed in acks.items():
        for start in range(0, len(listed), ITEMS_PER_MESSAGE):
            port.send(Acks(listed[start : start + ITEMS_PER_MESSAGE]))


def _close(partition: Partition) -> None:
    partition.close()


def _nothing() -> None:
    """Before there is a turn."""


def _refuse(group: list[Waiting], text: str) -> None:
    refusal = (int(ErrorCode.UNAVAILABLE), limits.RETRY_MS, text)
    for waiting in group:
        waiting.port.send(Refused(waiting.tag, *refusal))


assert limits.SENDS_UNACKNOWLEDGED_BYTES_MAX <= QUEUED_BYTES_MAX
