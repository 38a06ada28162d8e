"""Small changes that need no commit of their own and are stored with the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of

if TYPE_CHECKING:
    from relay.store.log import Partition


@final
class CommitNotes:
    """The pending small changes of each partition."""

    def __init__(self, wall_clock_ns: Callable[[], int]) -> None:
        """Create without notes.

        Args:
            wall_clock_ns: nanoseconds since 1970.
        """
        self._wall_clock_ns = wall_clock_ns
        self.noted: set[int] = set()
        """Partitions with notes."""
        self._confirmed: dict[int, dict[tuple[str, int], None]] = {}
        """By partition: direct messages that are no longer pending."""
        self._seen: dict[int, dict[str, int]] = {}
        """By partition and inbox: when (ms) its owner was last connected."""
        self._proofs: set[int] = set()
        """Partitions that must be tested for whether they can be written."""
        self._folds: dict[int, dict[str, tuple[int, bytes]]] = {}
        """By partition and inbox: (seq, packed state after the control entries up to it)."""

    def confirm(self, log: str, seq: int) -> None:
        """Note that a direct message is in its recipient's log and no longer pending."""
        self._confirmed.setdefault(self._note(log), {})[log, seq] = None

    def note_seen(self, name: str) -> None:
        """Note that a user has connected or disconnected."""
        log = INBOX_PREFIX + name
        seen = self._seen.setdefault(self._note(log), {})
        seen[log] = self._wall_clock_ns() // 1_000_000

    def note_fold(self, log: str, seq: int, packed: bytes) -> None:
        """Note the state of a log after its control entries up to seq."""
        self._folds.setdefault(self._note(log), {})[log] = seq, packed

    def prove(self, index: int) -> None:
        """Have a partition that could not be opened or written tested again."""
        self._proofs.add(index)
        self.noted.add(index)

    def hand_over(self, index: int, partition: Partition) -> None:
        """Give a partition the notes for its next commit."""
        self.noted.discard(index)
        if (confirmed := self._confirmed.pop(index, None)) is not None:
            partition.confirm(list(confirmed))
        if (seen := self._seen.pop(index, None)) is not None:
            partition.note_seen(list(seen.items()))
        if (folds := self._folds.pop(index, None)) is not None:
            partition.note_folds([(log, *fold) for log, fold in folds.items()])
        if index in self._proofs:
            self._proofs.discard(index)
            partition.prove()

    def not_stored(self, index: int) -> None:
        """The commit failed: the partition keeps its notes and needs another commit."""
        self.noted.add(index)

    def forget(self, index: int) -> None:
        """Drop the notes of a partition that belongs to another worker, which collects its own."""
        self.noted.discard(index)
        self._confirmed.pop(index, None)
        self._seen.pop(index, None)
        self._folds.pop(index, None)
        self._proofs.discard(index)

    def _note(self, log: str) -> int:
        index = partition_of(log)
        self.noted.add(index)
        return index
