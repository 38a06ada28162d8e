"""Changes that are not worth a commit of their own, and are stored with the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of

if TYPE_CHECKING:
    from relay.store.log import Partition


@final
class CommitNotes:
    """See the module's docstring."""

    def __init__(self, wall_clock_ns: Callable[[], int]) -> None:
        """Begin with none.

        Args:
            wall_clock_ns: nanoseconds since 1970.
        """
        self._wall_clock_ns = wall_clock_ns
        self.noted: set[int] = set()
        """Partitions of which there are any."""
        self._confirmed: dict[int, dict[tuple[str, int], None]] = {}
        """By partition: direct messages that are pending no more."""
        self._seen: dict[int, dict[str, int]] = {}
        """Likewise when (ms) the owners of inboxes were last here."""
        self._proofs: set[int] = set()
        """Partitions of which it is to be found out whether they can be written."""
        self._folds: dict[int, dict[str, tuple[int, bytes]]] = {}
        """Likewise (seq, packed) what the control entries of inboxes make."""

    def confirm(self, log: str, seq: int) -> None:
        """A direct message is in its recipient's log: it is pending no more."""
        self._confirmed.setdefault(self._note(log), {})[log, seq] = None

    def note_seen(self, name: str) -> None:
        """Somebody has come or gone."""
        log = INBOX_PREFIX + name
        seen = self._seen.setdefault(self._note(log), {})
        seen[log] = self._wall_clock_ns() // 1_000_000

    def note_fold(self, log: str, seq: int, packed: bytes) -> None:
        """Note what the control entries of a log up to seq make of it."""
        self._folds.setdefault(self._note(log), {})[log] = seq, packed

    def prove(self, index: int) -> None:
        """Have a partition that could not be opened or written try it again."""
        self._proofs.add(index)
        self.noted.add(index)

    def hand_over(self, index: int, partition: Partition) -> None:
        """Give a partition what its next commit is to store besides."""
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
        """The commit failed: the partition keeps what it was given, and needs another one."""
        self.noted.add(index)

    def forget(self, index: int) -> None:
        """A partition is another worker's now, which finds these things out by itself."""
        self.noted.discard(index)
        self._confirmed.pop(index, None)
        self._seen.pop(index, None)
        self._folds.pop(index, None)
        self._proofs.discard(index)

    def _note(self, log: str) -> int:
        index = partition_of(log)
        self.noted.add(index)
        return index
