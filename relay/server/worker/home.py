"""The home of logs: numbers, commits, acknowledges, publishes. In that order, once per loop turn.

Everything that arrived for a partition in one loop turn is one group commit. A message is accepted
once it is committed, and only then acknowledged or shown to anybody (rule 2). Before each commit
the home looks whether the partition is still its own (rule 8).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from relay import limits
from relay.bus.link import Port
from relay.bus.messages import (
    ITEMS_PER_MESSAGE,
    Acks,
    Batch,
    Refused,
    Subscribe,
    Subscribed,
)
from relay.chat.entries import Head, Submission
from relay.chat.partition import PARTITIONS, partition_of
from relay.server.worker.interest import Interest
from relay.store.errors import NotTheWriter, StoreError, StoreFull, StoreUnavailable
from relay.store.log import (
    Expected,
    IdConflict,
    LogRefused,
    Outcome,
    Partition,
    Reader,
    Repeated,
    Stored,
    UnknownOutcome,
)
from relay.wire.codes import ErrorCode

RETRY_MS: Final = 500
"""When a sender tries again after a store that cannot be written."""
QUEUED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Submissions held while commits wait for a checkpoint; beyond it: BUSY. Credits of the workers
that forward (``forward.CREDIT_BYTES``) keep it from being reached."""
log = logging.getLogger("relay.worker")


class Waiting(NamedTuple):
    """A submission that waits for the commit of this turn, and where its answer goes."""

    port: Port
    tag: int
    submission: Submission


class CommitRunner(Protocol):
    """Runs a group commit: at once (durability "process") or in a thread ("power")."""

    def __call__(
        self,
        partition: Partition,
        batch: list[Submission],
        now_ms: int,
        done: Callable[[list[Outcome] | StoreError], None],
    ) -> None:
        """Append a batch, then call ``done`` in the loop's thread with what came of it."""


def commit_at_once(
    partition: Partition,
    batch: list[Submission],
    now_ms: int,
    done: Callable[[list[Outcome] | StoreError], None],
) -> None:
    """Commit in the loop: 13 µs for one message, far below a thread's hand-over."""
    done(append(partition, batch, now_ms))


def append(
    partition: Partition, batch: list[Submission], now_ms: int
) -> list[Outcome] | StoreError:
    """Append a batch. Raises nothing: whatever happens, its senders must be answered."""
    try:
        return partition.append(batch, now_ms)
    except StoreError as error:
        return error
    except Exception:
        log.exception("commit_failed")
        return StoreUnavailable("an internal error")


class Home:
    """The writer of the partitions that this worker owns."""

    def __init__(
        self,
        *,
        owns: Callable[[int], bool],
        open_partition: Callable[[int], Partition],
        wall_clock_ms: Callable[[], int],
        interest: Interest,
        refuse: Callable[[Port, int], None],
        reader_of: Callable[[str], Reader],
        run_commit: CommitRunner = commit_at_once,
    ) -> None:
        """Begin with no partition open.

        Args:
            owns: tells whether a partition is this worker's.
            open_partition: opens one for writing; raises StoreError.
            wall_clock_ms: milliseconds since 1970.
            interest: where batches go.
            refuse: tells a worker that a partition has no home here now.
            reader_of: reads a log whose partition cannot be opened for writing.
            run_commit: where commits run.
        """
        self._owns = owns
        self._open_partition = open_partition
        self._wall_clock_ms = wall_clock_ms
        self._interest = interest
        self._refuse = refuse
        self._reader_of = reader_of
        self._troubles: dict[int, str] = {}
        """Partitions that cannot be written, and why: said once, not with every attempt."""
        self._run_commit = run_commit
        self._partitions: dict[int, Partition] = {}
        self._waiting: dict[int, list[Waiting]] = {}
        self._waiting_bytes = 0
        self.fresh = False
        """True when something was submitted since the last ``commit`` began."""
        self._committing: set[int] = set()
        """Partitions with a commit in a thread; always empty with durability "process"."""
        self._subscribing: dict[int, list[tuple[Port, str]]] = {}
        self.accepted = 0

    # --- what members ask ---------------------------------------------------------------------
    def submit(self, port: Port, tag: int, submission: Submission) -> None:
        """Take a submission for the commit at the end of this turn."""
        size = len(submission.body)
        if self._waiting_bytes + size > QUEUED_BYTES_MAX:
            text = "the log's home cannot keep up"
            port.send(Refused(tag, int(ErrorCode.BUSY), RETRY_MS, text))
            return
        self._waiting_bytes += size
        self.fresh = True
        index = partition_of(submission.log)
        group = self._waiting.get(index)
        if group is None:
            group = self._waiting[index] = []
        group.append(Waiting(port, tag, submission))

    def subscribe(self, port: Port, message: Subscribe) -> None:
        """Answer the head and start the stream, in this one turn (rule 3)."""
        index = partition_of(message.log)
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

    def drop(self, port: Port) -> None:
        """A worker is gone. What it has submitted is still committed."""
        for waiting in self._subscribing.values():
            waiting[:] = [each for each in waiting if each[0] is not port]
        self._interest.drop(port)

    def forget(self, port: Port, partition: int) -> None:
        """A worker says anew what it has in a partition, what is not committed yet, too."""
        waiting = self._subscribing.get(partition, [])
        waiting[:] = [each for each in waiting if each[0] is not port]
        self._interest.forget(port, partition)
        if partition in self._waiting:
            others = [each for each in self._take(partition) if each.port is not port]
            if others:
                self._waiting[partition] = others
                self._waiting_bytes += sum(len(each.submission.body) for each in others)

    def _subscribe(self, index: int, port: Port, name: str) -> None:
        try:
            head = self._head(index, name)
        except StoreError as error:
            self._trouble(index, error)
            self._refuse(port, index)
            return
        self._interest.add(name, port)
        port.send(Subscribed(name, head.epoch, head.seq))

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
            return self._reader_of(name).head(name)  # rule 15: readers go on

    # --- partitions ---------------------------------------------------------------------------
    def partition(self, index: int) -> Partition:
        """Return an own partition, opened.

        Raises:
            StoreError: it cannot be opened now; NotTheWriter while its last home still dies.
        """
        partition = self._partitions.get(index)
        if partition is None:
            partition = self._partitions[index] = self._open_partition(index)
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
        for index in list(self._partitions):
            if not self._owns(index) and index not in self._committing:
                self._partitions.pop(index).close()

    def close(self) -> None:
        """Commit what waits and close all partitions cleanly."""
        self.commit()
        for partition in self._partitions.values():
            partition.close()
        self._partitions.clear()

    # --- committing ---------------------------------------------------------------------------
    def commit(self) -> bool:
        """Commit what waits, one group per partition; acknowledge; publish.

        Returns:
            True while something still waits for a held partition.
        """
        self.fresh = False
        waiting = self._waiting
        if not waiting:
            return False
        for index in list(waiting):
            self._commit_partition(index)
        return not self._committing.issuperset(waiting)

    def _commit_partition(self, index: int) -> None:
        if index in self._committing:
            return
        if not self._owns(index):
            self._not_home(index)
            return
        try:
            partition = self.partition(index)
        except NotTheWriter:
            self._not_home(index)
            return
        except StoreError as error:
            self._failed(index, self._take(index), error)
            return
        if partition.held:
            return
        group = self._take(index)
        self._committing.add(index)
        self._run_commit(
            partition,
            [waiting.submission for waiting in group],
            self._wall_clock_ms(),
            lambda outcomes: self._committed(index, group, outcomes),
        )

    def _committed(
        self, index: int, group: list[Waiting], outcomes: list[Outcome] | StoreError
    ) -> None:
        self._committing.discard(index)
        if isinstance(outcomes, StoreError):
            self._failed(index, group, outcomes)
        else:
            if index in self._troubles:
                del self._troubles[index]
                log.warning("partition_available", extra={"partition": index})
            # Acknowledge before anything is published: a slow fan-out must not delay it.
            _answer(group, outcomes)
            self._publish(group, outcomes)
        for port, name in self._subscribing.pop(index, ()):
            self._subscribe(index, port, name)

    def _take(self, index: int) -> list[Waiting]:
        group = self._waiting.pop(index)
        for waiting in group:
            self._waiting_bytes -= len(waiting.submission.body)
        return group

    def _not_home(self, index: int) -> None:
        ports = dict.fromkeys(waiting.port for waiting in self._take(index))
        for port in ports:
            self._refuse(port, index)

    def _failed(self, index: int, group: list[Waiting], error: StoreError) -> None:
        self._trouble(index, error)
        full = isinstance(error, StoreFull)
        text = "the disk is full" if full else "the store is unavailable"
        for port, tag, _ in group:
            port.send(Refused(tag, int(ErrorCode.UNAVAILABLE), RETRY_MS, text))

    def _trouble(self, index: int, error: StoreError) -> None:
        reason = str(error)
        if not isinstance(error, NotTheWriter) and self._troubles.get(index) != reason:
            self._troubles[index] = reason
            log.error("partition_unavailable", extra={"partition": index, "reason": reason})

    def _publish(self, group: list[Waiting], outcomes: list[Outcome]) -> None:
        by_log: dict[str, list[Stored]] = {}
        interested = self._interest.logs
        for (_, _, submission), outcome in zip(group, outcomes, strict=True):
            if type(outcome) is Stored:
                self.accepted += 1
                if submission.log in interested:
                    by_log.setdefault(submission.log, []).append(outcome)
        for name, rows in by_log.items():
            for batch in batches(name, rows):
                self._interest.publish(batch)


def batches(name: str, rows: list[Stored]) -> list[Batch]:
    """Return committed rows of one log as bus batches of at most one record each."""
    found: list[Batch] = []
    start = size = 0
    for index, row in enumerate(rows):
        length = len(row.packed)
        if index > start and size + length > limits.RECORD_CONTENT_BYTES_MAX:
            found.append(_batch(name, rows[start:index]))
            start, size = index, 0
        size += length
    found.append(_batch(name, rows[start:]))
    return found


def _batch(name: str, rows: list[Stored]) -> Batch:
    last = rows[-1]
    content = last.packed if len(rows) == 1 else b"".join([row.packed for row in rows])
    return Batch(name, rows[0].prev, last.epoch, last.seq, len(rows), content)


def _answer(group: list[Waiting], outcomes: list[Outcome]) -> None:
    acks: dict[Port, list[list[int | bytes]]] = {}
    for (port, tag, _), outcome in zip(group, outcomes, strict=True):
        match outcome:
            case Stored(epoch=epoch, seq=seq) | Repeated(epoch=epoch, seq=seq):
                acks.setdefault(port, []).append([tag, epoch, seq])
            case IdConflict(seq=seq):
                port.send(Refused(tag, int(ErrorCode.ID_CONFLICT), seq, ""))
            case Expected(counter=counter):
                port.send(Refused(tag, int(ErrorCode.EXPECTED), counter, ""))
            case UnknownOutcome():
                port.send(Refused(tag, int(ErrorCode.UNKNOWN_OUTCOME), 0, ""))
            case LogRefused(reason=reason):
                port.send(Refused(tag, int(ErrorCode.LIMIT), 0, reason))
    for port, listed in acks.items():
        for start in range(0, len(listed), ITEMS_PER_MESSAGE):
            port.send(Acks(listed[start : start + ITEMS_PER_MESSAGE]))


assert limits.SENDS_UNACKNOWLEDGED_BYTES_MAX <= QUEUED_BYTES_MAX
