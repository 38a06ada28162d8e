"""Notes to be stored with a partition's next commit, kept until a commit succeeds."""

from __future__ import annotations

from typing import final

from relay.store.state import More


@final
class Notes:
    """The notes of one partition."""

    __slots__ = ("_confirmed", "_folds", "_proof", "_seen", "empty")

    def __init__(self) -> None:
        """Create without notes."""
        self.empty = True
        """True if there are none."""
        self._confirmed: dict[tuple[str, int], None] = {}
        self._seen: dict[str, int] = {}
        self._folds: dict[str, tuple[int, bytes]] = {}
        self._proof = False

    def confirm(self, delivered: list[tuple[str, int]]) -> None:
        """Note direct messages (log, seq) that are no longer pending."""
        self.empty = False
        self._confirmed.update(dict.fromkeys(delivered))

    def see(self, seen: list[tuple[str, int]]) -> None:
        """Note when (ms) the owners of inboxes (log) were last connected."""
        self.empty = False
        self._seen.update(seen)

    def fold(self, folds: list[tuple[str, int, bytes]]) -> None:
        """Note the state (packed) of logs after their control entries up to a seq."""
        self.empty = False
        self._folds.update({log: (seq, packed) for log, seq, packed in folds})

    def prove(self) -> None:
        """Have something written, whatever it is."""
        self.empty = False
        self._proof = True

    def add_to(self, more: More) -> None:
        """Add them to what a commit changes."""
        more.proof = self._proof
        more.confirmed += self._confirmed
        more.seen += [(time_ms, log) for log, time_ms in self._seen.items()]
        more.folds += [(*fold, log) for log, fold in self._folds.items()]
