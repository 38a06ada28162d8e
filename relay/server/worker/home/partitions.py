"""The partitions that this worker owns: opening them, reading them, giving them up.

A partition is written by ``home.Home`` alone, and by ``retention.Retention`` between two commits;
``committing`` tells of each whether somebody is at it.
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
"""For how many seconds the last home of a partition may still be closing it. Who asks for something
waits that long for an answer, and then is told that there is none now."""
log = logging.getLogger("relay.worker")


@final
class OwnPartitions:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        owns: Callable[[int], bool],
        open_partition: Callable[[int], Partition],
        reader_of: Callable[[str], Reader],
        wake: Callable[[], None],
    ) -> None:
        """Begin with none open.

        Args:
            owns: tells whether a partition is this worker's.
            open_partition: opens one for writing; raises StoreError.
            reader_of: reads a log whose partition cannot be opened for writing.
            wake: asks for a turn.
        """
        self.owns = owns
        self._open_partition = open_partition
        self._reader_of = reader_of
        self._wake = wake
        self.opened: dict[int, Partition] = {}
        self.closing = False
        """True while one that is to be closed is at work: ``close_others`` again, soon."""
        self.committing: set[int] = set()
        """Those in which a commit, or a removal, has begun and is not finished."""
        self.paused = False
        """True while a backup fixes its moment: no commit is begun (``process/commit_pause``)."""
        self.troubles: dict[int, str] = {}
        """Those that cannot be opened or written, and why: logged once, not with every attempt. The
        object stays the same."""
        self._unopened: dict[int, StoreError] = {}
        """What the last attempt to open each has met: the next one is made a second later."""
        self._locked_s: dict[int, int] = {}
        """Those whose lock another process holds, and how many seconds it has."""
        self.refused: dict[int, str] = {}
        """Those whose file is damaged, and why: nobody opens them before the next start. The object
        stays the same."""
        self.on_refused: Callable[[int], None] = _ignored
        """Told of each of them."""
        self.refuse_partition: Callable[[Partition, str], None] = _refuse
        """Closes a damaged one as it is; it may do so later, elsewhere."""
        self.on_available: Callable[[int], None] = _ignored
        """Told when one can be opened and written again."""
        self.on_removed: Callable[[int], None] = _ignored
        """Told when a step of a removal is over."""
        self.prove: Callable[[int], None] = _ignored
        """Has one tried again that is in trouble, by a commit."""
        self.on_opened: Callable[[Partition], None] = _nothing
        """Told of each that was opened; may raise StoreError."""
        self.close_partition: Callable[[Partition], None] = _close
        """Closes one that another worker has now; it may be closed later, elsewhere."""

    # --- opened, and given up -----------------------------------------------------------------
    def partition(self, index: int) -> Partition:
        """Return an own partition, opened.

        Raises:
            StoreCorrupt: it is refused.
            StoreError: it cannot be opened now; NotTheWriter while its last home still dies.
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
        except BaseException:  # else its lock stays with an object that nobody has
            self.close_partition(partition)  # as any other: nobody is at work in it then
            raise
        return partition

    def open_own(self, *, at_start: bool = True) -> None:
        """Open all partitions that this worker owns; damaged ones are refused.

        What cannot be opened now, for a full disk or otherwise, is tried again when it is used.

        Args:
            at_start: of the server: somebody is told at once if nothing of it can be used.

        Raises:
            NotTheWriter: the last home of one still dies.
            StoreOfAnotherVersion: one has a format that this Relay does not read.
            StoreUnavailable: at the start, none of several can be opened: it is not for what is in
                them.
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
        """Close the partitions that the table has given to another worker; return which.

        And those that are refused, as soon as nothing is at work in them.
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
        """Try again what could not be opened or written. Called about once a second."""
        self._unopened.clear()
        for index in self._locked_s:
            self._locked_s[index] += 1
        for index in self.troubles:
            self.prove(index)

    def close(self) -> None:
        """Close all cleanly. What waits for a commit is not committed by this."""
        for partition in self.opened.values():
            partition.close()
        self.opened.clear()

    # --- those that cannot be written -----------------------------------------------------------
    def refuse(self, index: int, reason: str) -> None:
        """One is damaged: nothing of it is read or written any more; the others go on."""
        if index in self.refused or not self.owns(index):
            return
        self.refused[index] = reason
        self.troubles.pop(index, None)
        log.error("partition_refused", extra={"partition": index, "reason": reason})
        self.close_others()
        self.on_refused(index)

    def failed(self, index: int, error: StoreError) -> None:
        """One cannot be opened, read or written."""
        if isinstance(error, StoreCorrupt):
            self.refuse(index, str(error))
            return
        reason = str(error)
        if not isinstance(error, NotTheWriter) and self.troubles.get(index) != reason:
            self.troubles[index] = reason
            log.error("partition_unavailable", extra={"partition": index, "reason": reason})

    def written(self, index: int) -> None:
        """A commit has succeeded."""
        if index in self.troubles:
            del self.troubles[index]
            log.warning("partition_available", extra={"partition": index})
            self.on_available(index)

    # --- removing old entries -------------------------------------------------------------------
    def owned(self, index: int) -> bool:
        """Tell whether a partition is this worker's, and open."""
        return self.owns(index) and index in self.opened and index not in self.refused

    def begin_removal(self, index: int) -> Partition | None:
        """Return an own partition for one short commit; None: it is in use now.

        Until ``end_removal`` nothing else is committed in it.
        """
        partition = self.opened.get(index)
        busy = index in self.committing or self.paused or index in self.refused
        if partition is None or busy or partition.held or not self.owns(index):
            return None
        self.committing.add(index)
        return partition

    def end_removal(self, index: int) -> None:
        """What waited for it can be committed, and followed."""
        self.committing.discard(index)
        self.on_removed(index)
        self._wake()

    # --- what is in them ------------------------------------------------------------------------
    def head(self, name: str) -> Head:
        """Return the head of a log of an own partition. Raises StoreError."""
        try:
            return self._quick(name).head(name)
        except (StoreFull, StoreUnavailable) as error:
            return self._reader_beside(name, error).head(name)

    def heads(self, names: list[str]) -> list[list[str | bytes | int]]:
        """Return [log, epoch, seq] of each log of an own partition.

        While a commit runs in a thread this is the head before or after it. Either is right: what
        the commit adds is still to be published, and a batch that comes late is known by its seq.
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
        """Return the packed state of a log of an own partition. Raises StoreError."""
        try:
            return self._quick(name).state(name)
        except (StoreFull, StoreUnavailable) as error:
            return self._reader_beside(name, error).state(name)

    def _quick(self, name: str) -> Partition | Reader:
        """Return what tells of a log without a wait for the disk. Raises StoreError.

        While a thread commits, the partition knows of nothing but the logs in use. What its file
        has is as good: the log as it was before that commit, or after it.
        """
        index = partition_of(name)
        partition = self.partition(index)
        busy = index in self.committing or partition.held
        return self._reader_of(name) if busy and not partition.in_use(name) else partition

    def _reader_beside(self, name: str, error: StoreFull | StoreUnavailable) -> Reader:
        """Return what reads a log whose partition cannot be written now, or raise the error.

        Readers go on (invariant "Disk errors"), in a file that this worker knows: one that it could
        not open as its writer may be any.
        """
        index = partition_of(name)
        self.failed(index, error)
        if isinstance(error, StoreUnavailable) and index not in self.opened:
            raise error
        return self._reader_of(name)

    def epoch_at(self, name: str, seq: int) -> bytes:
        """Return the epoch in which a seq of a log lies. Raises StoreError."""
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
        """Return the logs of a partition in whose state something has an end that is over."""
        partition = self.opened.get(index)
        busy = index in self.committing or index in self.refused
        if partition is None or not self.owns(index) or busy or partition.held:
            return []  # the next time: a thread may be at it for long
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
    """Nobody has to know."""


def _nothing(_: Partition) -> None:
    """Nobody has to know."""
