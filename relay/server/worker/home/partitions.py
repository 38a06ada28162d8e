"""The partitions that this worker owns: opening, reading and closing them.

Only ``committing.writer.Writer`` writes a partition, and ``retention.passes.Retention`` between two
commits; ``OwnPartitions.committing`` contains the partitions that are being written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from relay.chat.partition import PARTITIONS, partition_of
from relay.store.errors import (
    NotTheWriter,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreOfAnotherVersion,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from relay.chat.entries import Head
    from relay.store.log import Partition, Reader

LOCKED_S_MAX: Final = 10
"""How many seconds the previous home of a partition may take to close it. Requests wait this long
for an answer and are then told that there is none now."""
log = logging.getLogger("relay.worker")


@final
class OwnPartitions:
    """The partitions that this worker owns."""

    def __init__(
        self,
        *,
        owns: Callable[[int], bool],
        open_partition: Callable[[int], Partition],
        reader_of: Callable[[str], Reader],
        wake: Callable[[], None],
    ) -> None:
        """Create without open partitions.

        Args:
            owns: returns whether a partition belongs to this worker.
            open_partition: opens one for writing; raises StoreError.
            reader_of: reads a log whose partition cannot be opened for writing.
            wake: requests a turn.
        """
        self.owns = owns
        self._open_partition = open_partition
        self._reader_of = reader_of
        self._wake = wake
        self.opened: dict[int, Partition] = {}
        self.closing = False
        """True while a partition that must be closed is in use: call ``close_others`` again soon.
        """
        self.committing: set[int] = set()
        """Partitions in which a commit or a removal is under way."""
        self.paused = False
        """True while a backup takes its snapshots: no commit is begun (``admin/commit_pause``).
        """
        self.troubles: dict[int, str] = {}
        """Partitions that cannot be opened or written, with the reasons. Each is logged once, not
        with every attempt. The dict object never changes."""
        self._unopened: dict[int, StoreError] = {}
        """The error of the last attempt to open each; the next attempt is a second later."""
        self._locked_s: dict[int, int] = {}
        """Partitions locked by another process, and for how many seconds."""
        self.refused: dict[int, str] = {}
        """Damaged partitions, with the reasons: not opened before the next start. The dict object
        never changes."""
        self.on_refused: Callable[[int], None] = _ignored
        """Called with each refused partition."""
        self.refuse_partition: Callable[[Partition, str], None] = _refuse
        """Closes a damaged partition without changing it; it may do so later, elsewhere."""
        self.on_available: Callable[[int], None] = _ignored
        """Called when a partition can be opened and written again."""
        self.on_removed: Callable[[int], None] = _ignored
        """Called when a step of a removal has finished."""
        self.prove: Callable[[int], None] = _ignored
        """Has a partition in trouble tested by a commit."""
        self.on_opened: Callable[[Partition], None] = _nothing
        """Called with each partition that was opened; may raise StoreError."""
        self.close_partition: Callable[[Partition], None] = _close
        """Closes a partition that another worker owns now; it may do so later, elsewhere."""

    # --- opening and closing
    # ------------------------------------------------------------------------
    def partition(self, index: int) -> Partition:
        """Return one of this worker's partitions, opened.

        Raises:
            StoreCorrupt: it is refused.
            StoreError: it cannot be opened now; NotTheWriter while its previous home still holds
                it.
        """
        if index in self.refused:
            raise StoreCorrupt(self.refused[index])
        partition = self.opened.get(index)
        if partition is None:
            if index in self._unopened:
                raise self._unopened[index]
            try:
                partition = self._open(index)
            except NotTheWriter as error:
                if self._locked_s.setdefault(index, 0) < LOCKED_S_MAX:
                    raise
                raise StoreUnavailable(str(error)) from error
            except (StoreFull, StoreUnavailable) as error:
                self._unopened[index] = error
                raise
            self.opened[index] = partition
            self._locked_s.pop(index, None)
        return partition

    def _open(self, index: int) -> Partition:
        partition = self._open_partition(index)
        try:
            self.on_opened(partition)
        except BaseException:  # otherwise its lock would remain with an unreachable object
            self.close_partition(partition)  # closed like any other: nothing uses it then
            raise
        return partition

    def open_own(self, *, at_start: bool = True) -> None:
        """Open all partitions that this worker owns; damaged ones are refused.

        Partitions that cannot be opened now, because of a full disk for example, are tried again
        when they are used.

        Args:
            at_start: True at the start of the server: report an error at once if none is usable.

        Raises:
            NotTheWriter: the previous home of one still holds it.
            StoreOfAnotherVersion: one has a format that this Relay does not read.
            StoreUnavailable: at the start, none of several can be opened, so the cause is not their
                content.
        """
        own = [index for index in range(PARTITIONS) if self.owns(index)]
        unavailable: dict[int, StoreUnavailable] = {}
        for index in own:
            try:
                self.partition(index)
            except (NotTheWriter, StoreOfAnotherVersion):
                raise
            except StoreUnavailable as error:
                unavailable[index] = error
            except StoreError as error:
                self.failed(index, error)
        if at_start and len(own) == len(unavailable) > 1:
            raise next(iter(unavailable.values()))
        for index, reason in unavailable.items():
            self.failed(index, reason)

    def close_others(self) -> list[int]:
        """Close the partitions that the table has given to another worker, and return them.

        Refused ones are closed as well, as soon as nothing uses them.
        """
        closed = []
        self.closing = False
        for index, partition in list(self.opened.items()):
            refused = self.refused.get(index)
            if self.owns(index) and refused is None:
                continue
            if index in self.committing or partition.checkpointing:
                self.closing = True
                continue
            del self.opened[index]
            if refused is None:
                self.close_partition(partition)
                closed.append(index)
            else:
                self.refuse_partition(partition, refused)
        of_others: dict[int, str] | dict[int, int]
        for of_others in (self.refused, self.troubles, self._locked_s):
            for index in [index for index in of_others if not self.owns(index)]:
                if index not in self.opened:
                    del of_others[index]
        return closed

    def settle(self) -> None:
        """Retry partitions that could not be opened or written. Called about once a second."""
        self._unopened.clear()
        for index in self._locked_s:
            self._locked_s[index] += 1
        for index in self.troubles:
            self.prove(index)

    def close(self) -> None:
        """Close all cleanly. Submissions that wait are not committed."""
        for partition in self.opened.values():
            partition.close()
        self.opened.clear()

    # --- partitions that cannot be written
    # ---------------------------------------------------------
    def refuse(self, index: int, reason: str) -> None:
        """Refuse a damaged partition: it is not read or written any more. The others continue."""
        if index in self.refused or not self.owns(index):
            return
        self.refused[index] = reason
        self.troubles.pop(index, None)
        log.error("partition_refused", extra={"partition": index, "reason": reason})
        self.close_others()
        self.on_refused(index)

    def failed(self, index: int, error: StoreError) -> None:
        """Note that a partition cannot be opened, read or written."""
        if isinstance(error, StoreCorrupt):
            self.refuse(index, str(error))
            return
        reason = str(error)
        if not isinstance(error, NotTheWriter) and self.troubles.get(index) != reason:
            self.troubles[index] = reason
            log.error("partition_unavailable", extra={"partition": index, "reason": reason})

    def written(self, index: int) -> None:
        """Note that a commit has succeeded."""
        if index in self.troubles:
            del self.troubles[index]
            log.warning("partition_available", extra={"partition": index})
            self.on_available(index)

    # --- removing old entries -------------------------------------------------------------------
    def owned(self, index: int) -> bool:
        """Return True if a partition belongs to this worker and is open."""
        return self.owns(index) and index in self.opened and index not in self.refused

    def begin_removal(self, index: int) -> Partition | None:
        """Return a partition for one short commit; None: it is in use now.

        Until ``end_removal`` nothing else is committed in it.
        """
        partition = self.opened.get(index)
        busy = index in self.committing or self.paused or index in self.refused
        if partition is None or busy or partition.commits_blocked or not self.owns(index):
            return None
        self.committing.add(index)
        return partition

    def end_removal(self, index: int) -> None:
        """Allow commits and subscriptions that waited for the removal."""
        self.committing.discard(index)
        self.on_removed(index)
        self._wake()

    # --- content
    # ------------------------------------------------------------------------------------
    def head(self, name: str) -> Head:
        """Return the head of a log in a partition of this worker. Raises StoreError."""
        try:
            return self._quick(name).head(name)
        except (StoreFull, StoreUnavailable) as error:
            return self._reader_beside(name, error).head(name)

    def heads(self, names: list[str]) -> list[list[str | bytes | int]]:
        """Return [log, epoch, seq] for each log in a partition of this worker.

        While a commit runs in a thread this is the head before or after it. Both are correct: what
        the commit adds is still to be published, and a late batch is recognised by its seq.
        """
        found: list[list[str | bytes | int]] = []
        for name in names:
            if not self.owns(partition_of(name)):
                continue
            try:
                head = self.head(name)
            except StoreError:
                continue
            found.append([name, head.epoch, head.seq])
        return found

    def state(self, name: str) -> bytes:
        """Return the packed state of a log in a partition of this worker. Raises StoreError."""
        try:
            return self._quick(name).state(name)
        except (StoreFull, StoreUnavailable) as error:
            return self._reader_beside(name, error).state(name)

    def _quick(self, name: str) -> Partition | Reader:
        """Return an object that reads a log without waiting for the disk. Raises StoreError.

        While a thread commits, the partition object only knows the logs in use. Its file is equally
        good: it has the log as it was before or after that commit.
        """
        index = partition_of(name)
        partition = self.partition(index)
        busy = index in self.committing or partition.commits_blocked
        return self._reader_of(name) if busy and not partition.in_use(name) else partition

    def _reader_beside(self, name: str, error: StoreFull | StoreUnavailable) -> Reader:
        """Return the reader of a log whose partition cannot be written now, or raise the error.

        Reading continues (invariant "Disk errors"), but only in a file that this worker has opened
        before: a file that it could not open for writing may be any file.
        """
        index = partition_of(name)
        self.failed(index, error)
        if isinstance(error, StoreUnavailable) and index not in self.opened:
            raise error
        return self._reader_of(name)

    def epoch_at(self, name: str, seq: int) -> bytes:
        """Return the epoch that a seq of a log belongs to. Raises StoreError."""
        return self.reader(name).epoch_at(name, seq)

    def reader(self, name: str) -> Reader:
        """Return the reader of a log.

        Raises:
            StoreCorrupt: its partition is refused.
        """
        reason = self.refused.get(partition_of(name))
        if reason is not None:
            raise StoreCorrupt(reason)
        return self._reader_of(name)

    def due(self, index: int, now_ms: int) -> list[str]:
        """Return the logs of a partition whose state contains something that has expired."""
        partition = self.opened.get(index)
        busy = index in self.committing or index in self.refused
        if partition is None or not self.owns(index) or busy or partition.commits_blocked:
            return []  # next time: a thread may take long
        try:
            return partition.due(now_ms)
        except StoreError as error:
            self.failed(index, error)
            return []


def _close(partition: Partition) -> None:
    partition.close()


def _refuse(partition: Partition, reason: str) -> None:
    partition.refuse(reason)


def _ignored(_: int) -> None:
    """Do nothing."""


def _nothing(_: Partition) -> None:
    """Do nothing."""
