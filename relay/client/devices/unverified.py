"""Senders whose device keys are not verified, and the warning on their events. No I/O.

``senders`` verifies; the queue of events checks here when an event is taken. So an event waits
while its sender's devices are being looked up, and carries the warning when the application gets
it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final, TypeAlias, TypeVar, cast

from relay.client.events import LogEntry, RoomChanged

Pair: TypeAlias = tuple[str, bytes]
"""A sender, and the id of a device key."""
DOUBTS_MAX: Final = 16_384
"""Unverified pairs. Beyond it, everything that is not known to be verified is marked."""
TOO_MANY: Final = "the devices of too many senders are still to be checked"
Entry = TypeVar("Entry")


class UnverifiedSenders:
    """The pairs that are verified, and those that are not."""

    __slots__ = ("_pairs", "_waiting", "overflow", "proved")

    def __init__(self) -> None:
        self.proved: set[Pair] = set()
        """Verified pairs, and those that need no verification."""
        self._pairs: dict[Pair, str] = {}
        """The doubt about each of the others; empty: none yet."""
        self._waiting: set[Pair] = set()
        """Those whose events wait for an answer."""
        self.overflow = False
        """True if there were too many to look up; everything unverified is then marked."""

    @property
    def any(self) -> bool:
        """True if events must be checked here at all."""
        return bool(self._pairs) or self.overflow

    @property
    def holding(self) -> bool:
        """True if any events wait for an answer of the server."""
        return bool(self._waiting)

    def add(self, pair: Pair, doubt: str | None, *, held: bool) -> bool:
        """Add an unverified pair. Return False if there are too many.

        Args:
            pair: the pair.
            doubt: why it is doubtful; None: its devices have not been looked up yet.
            held: without a doubt: whether its events wait for the lookup.
        """
        if pair not in self._pairs and len(self._pairs) >= DOUBTS_MAX:
            self.overflow = True
            return False
        self._pairs[pair] = doubt or ""
        if doubt is None and held:
            self._waiting.add(pair)
        return True

    def put(self, pair: Pair, doubt: str) -> bool:
        """Set the doubt about a pair that was added. Return True if it is a new one."""
        self._waiting.discard(pair)
        if self._pairs.get(pair) in (None, doubt):
            return False
        self._pairs[pair] = doubt
        return True

    def remove(self, pair: Pair) -> None:
        """Remove a pair that is now verified."""
        self._waiting.discard(pair)
        self._pairs.pop(pair, None)

    def give_up(self, doubt: str) -> None:
        """There is no answer for now: mark the waiting events instead."""
        for pair in self._waiting:
            self._pairs[pair] = doubt
        self._waiting.clear()

    def wait_again(self, doubt: str, senders: Container[str]) -> None:
        """Undo ``give_up`` for these senders: a server can be asked again."""
        for pair, text in self._pairs.items():
            if text == doubt and pair[0] in senders:
                self._pairs[pair] = ""
                self._waiting.add(pair)

    def awaited_senders(self) -> set[str]:
        """Return the senders whose events wait."""
        return {sender for sender, _ in self._waiting}

    def must_wait(self, event: object) -> bool:
        """Return True if an event must wait for a lookup."""
        return (
            isinstance(event, LogEntry | RoomChanged)
            and (event.sender, event.key_id) in self._waiting
        )

    def awaited(self, entries: Iterable[LogEntry | RoomChanged]) -> list[Pair]:
        """Return the authors of some entries that must wait."""
        if not self._waiting:
            return []
        return list({(entry.sender, entry.key_id) for entry in entries if self.must_wait(entry)})

    def awaits(self, pairs: list[Pair]) -> bool:
        """Return True while any of these is awaited. The others are dropped from the end of the
        list: a server can have this asked as often as it likes, so it must not look at all.
        """
        while pairs and pairs[-1] not in self._waiting:
            pairs.pop()
        return bool(pairs)

    def marked(self, event: Entry) -> Entry:
        """Return the event, with its ``doubt`` set if there is one."""
        if not isinstance(event, LogEntry | RoomChanged):
            return event
        pair = event.sender, event.key_id
        doubt = self._pairs.get(pair, "")
        if self.overflow and not doubt and pair not in self.proved:
            doubt = TOO_MANY
        return cast("Entry", event._replace(doubt=doubt)) if doubt else event
