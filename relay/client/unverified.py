"""Which senders' keys are not proved, and what their events are marked with for that. No I/O.

``senders`` finds out; the queue of events asks when an event is taken. So an event waits for the
answer to a question about its sender's devices, and whoever gets it gets its mark with it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final, TypeAlias, TypeVar, cast

from relay.client.events import LogEntry, RoomChanged

Pair: TypeAlias = tuple[str, bytes]
"""A sender, and the id of a device key."""
DOUBTS_MAX: Final = 16_384
"""Pairs that are not proved. What comes of others beyond it is marked, too."""
TOO_MANY: Final = "too many senders wait for their devices to be looked at"
Entry = TypeVar("Entry")


class UnverifiedSenders:
    """The pairs that are proved, and those that are not."""

    __slots__ = ("_pairs", "_waiting", "overflow", "proved")

    def __init__(self) -> None:
        self.proved: set[Pair] = set()
        """Those that are proved, or that nothing can be proved of."""
        self._pairs: dict[Pair, str] = {}
        """What speaks against others; empty: nothing yet, and their events do not wait."""
        self._waiting: set[Pair] = set()
        """Those of them whose events wait."""
        self.overflow = False
        """True: there were too many to look at; what is not proved is marked."""

    @property
    def any(self) -> bool:
        """True if there is anything to ask about an event."""
        return bool(self._pairs) or self.overflow

    @property
    def holding(self) -> bool:
        """True if events of somebody wait for what the server answers."""
        return bool(self._waiting)

    def add(self, pair: Pair, doubt: str | None, *, held: bool) -> bool:
        """Note a pair that is not proved. Return False if there are too many.

        Args:
            pair: which.
            doubt: what speaks against it; None: nothing yet.
            held: whether its events wait until there is an answer, if there is no doubt yet.
        """
        if pair not in self._pairs and len(self._pairs) >= DOUBTS_MAX:
            self.overflow = True
            return False
        self._pairs[pair] = doubt or ""
        if doubt is None and held:
            self._waiting.add(pair)
        return True

    def put(self, pair: Pair, doubt: str) -> bool:
        """Note what speaks against a pair that is noted. Return True if that is news."""
        self._waiting.discard(pair)
        if self._pairs.get(pair) in (None, doubt):
            return False
        self._pairs[pair] = doubt
        return True

    def remove(self, pair: Pair) -> None:
        """Nothing speaks against a pair any more."""
        self._waiting.discard(pair)
        self._pairs.pop(pair, None)

    def give_up(self, doubt: str) -> None:
        """Nobody answers for now: what waits is marked instead."""
        for pair in self._waiting:
            self._pairs[pair] = doubt
        self._waiting.clear()

    def wait_again(self, doubt: str, senders: Container[str]) -> None:
        """Somebody answers again: what was given up waits again, if it is of one of these."""
        for pair, text in self._pairs.items():
            if text == doubt and pair[0] in senders:
                self._pairs[pair] = ""
                self._waiting.add(pair)

    def must_wait(self, event: object) -> bool:
        """Tell whether an event is to wait."""
        return (
            isinstance(event, LogEntry | RoomChanged)
            and (event.sender, event.key_id) in self._waiting
        )

    def any_must_wait(self, entries: Iterable[object]) -> bool:
        """Tell whether one of them is to wait."""
        return bool(self._waiting) and any(map(self.must_wait, entries))

    def marked(self, event: Entry) -> Entry:
        """Return an event with the doubt that there is about it."""
        if not isinstance(event, LogEntry | RoomChanged):
            return event
        pair = event.sender, event.key_id
        doubt = self._pairs.get(pair, "")
        if self.overflow and not doubt and pair not in self.proved:
            doubt = TOO_MANY
        return cast("Entry", event._replace(doubt=doubt)) if doubt else event
