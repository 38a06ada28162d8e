"""The home of logs: numbers, commits, acknowledges, publishes. In that order, once per loop turn.

Everything that arrived for a partition in one loop turn is one group commit. A message is accepted
once it is committed, and only then acknowledged or shown to anybody (rule 2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from relay import limits
from relay.chat.entries import Head, Submission
from relay.chat.partition import partition_of
from relay.store.errors import StoreError, StoreFull
from relay.store.log import (
    Expected,
    IdConflict,
    Outcome,
    Partition,
    Repeated,
    Stored,
    UnknownOutcome,
)
from relay.wire.codes import ErrorCode

RETRY_MS: Final = 500
"""When a sender tries again after a store that cannot be written."""
QUEUED_BYTES_MAX: Final = 16 * 1024 * 1024
"""Submissions held while commits wait for a checkpoint; beyond it: BUSY."""


class Sender(Protocol):
    """Who submitted: a session of this worker, or a link to another one."""

    def acknowledged(self, submission: Submission, epoch: bytes, seq: int) -> None:
        """Committed as (epoch, seq)."""

    def refused(self, submission: Submission, code: ErrorCode, arg: int, text: str) -> None:
        """Not stored. ``arg`` as ErrorCode says."""


class Submitted(NamedTuple):
    """A submission that waits for the commit of this turn."""

    submission: Submission
    sender: Sender


Publish = Callable[[Submission, Stored], None]


class Home:
    """The writer of the partitions that this worker owns."""

    def __init__(
        self,
        open_partition: Callable[[int], Partition],
        publish: Publish,
        wall_clock_ms: Callable[[], int],
    ) -> None:
        self._open_partition = open_partition
        self._publish = publish
        self._wall_clock_ms = wall_clock_ms
        self._partitions: dict[int, Partition] = {}
        self._waiting: dict[int, list[Submitted]] = {}
        self._waiting_bytes = 0
        self.accepted = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def submit(self, submission: Submission, sender: Sender) -> None:
        """Take a submission for the commit at the end of this turn."""
        self._waiting_bytes += len(submission.body)
        if self._waiting_bytes > QUEUED_BYTES_MAX:
            self._waiting_bytes -= len(submission.body)
            sender.refused(submission, ErrorCode.BUSY, RETRY_MS, "the log's home cannot keep up")
            return
        index = partition_of(submission.log)
        self._waiting.setdefault(index, []).append(Submitted(submission, sender))

    def head(self, log: str) -> Head:
        """Return the last committed entry of a log.

        Raises:
            StoreError: the partition cannot be opened or read.
        """
        return self._partition(partition_of(log)).head(log)

    def commit(self) -> bool:
        """Commit what waits, one group per partition; acknowledge; publish.

        Returns:
            True while something still waits (a checkpoint holds a partition).
        """
        for index in list(self._waiting):
            self._commit_partition(index)
        return bool(self._waiting)

    def close(self) -> None:
        """Commit what waits and close all partitions cleanly."""
        self.commit()
        for partition in self._partitions.values():
            partition.close()
        self._partitions.clear()

    def _partition(self, index: int) -> Partition:
        partition = self._partitions.get(index)
        if partition is None:
            partition = self._partitions[index] = self._open_partition(index)
        return partition

    def _commit_partition(self, index: int) -> None:
        group = self._waiting[index]
        try:
            partition = self._partition(index)
            if partition.held:
                return
            outcomes = partition.append([s.submission for s in group], self._wall_clock_ms())
        except StoreError as error:
            self._forget(index)
            _fail(group, error)
            return
        self._forget(index)
        # Acknowledge before anything is published: a slow fan-out must not delay it.
        for (submission, sender), outcome in zip(group, outcomes, strict=True):
            _answer(submission, sender, outcome)
        for (submission, _), outcome in zip(group, outcomes, strict=True):
            if type(outcome) is Stored:
                self.accepted += 1
                self._publish(submission, outcome)

    def _forget(self, index: int) -> None:
        for submission, _ in self._waiting.pop(index):
            self._waiting_bytes -= len(submission.body)


def _fail(group: list[Submitted], error: StoreError) -> None:
    text = "the disk is full" if isinstance(error, StoreFull) else "the store is unavailable"
    for submission, sender in group:
        sender.refused(submission, ErrorCode.UNAVAILABLE, RETRY_MS, text)


def _answer(submission: Submission, sender: Sender, outcome: Outcome) -> None:
    match outcome:
        case Stored(epoch=epoch, seq=seq) | Repeated(epoch=epoch, seq=seq):
            sender.acknowledged(submission, epoch, seq)
        case IdConflict(seq=seq):
            sender.refused(submission, ErrorCode.ID_CONFLICT, seq, "")
        case Expected(counter=counter):
            sender.refused(submission, ErrorCode.EXPECTED, counter, "")
        case UnknownOutcome():
            sender.refused(submission, ErrorCode.UNKNOWN_OUTCOME, 0, "")


assert limits.SENDS_UNACKNOWLEDGED_BYTES_MAX <= QUEUED_BYTES_MAX
