"""Following logs: where this client stands in each, and the check that nothing is missing.

Each entry names the one before it (``prev``). An entry at or below the cursor is a repeat and is
dropped. An entry whose ``prev`` is not the cursor means that something is missing: the log is
left and joined again from the cursor; nothing is ever skipped. *Received* cursors live here; what
the application has *taken* is in ``inbox``.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from relay.chat.entries import NO_EPOCH, Cursor
from relay.wire.envelopes import Behind, EntryMessage, Gap, Join, Live

REJOINS_MAX: Final = 3
"""Rejoins without a single new entry before the connection itself is given up."""


class Start(NamedTuple):
    """Where a program wants to begin: after a cursor, or with the last entries."""

    cursor: Cursor | None
    last: int


class Step(Enum):
    """What an envelope means for the reader."""

    DELIVER = "the application gets it"
    DROP = "a repeat, or of a log that is not followed"
    REJOIN = "something is missing: join again from the cursor"


class Following:
    """One log that is followed."""

    __slots__ = ("joined", "live", "log", "received", "rejoins", "start")

    def __init__(self, log: str, start: Start) -> None:
        self.log = log
        self.start = start
        self.received: Cursor | None = None
        """The last entry that arrived; None before the first JOINED."""
        self.joined = False
        """True from JOINED until the connection ends or a rejoin begins."""
        self.live = False
        self.rejoins = 0
        """Since the last new entry."""

    def join(self, number: int) -> Join:
        """Return the JOIN that begins, or goes on."""
        cursor = self.start.cursor if self.received is None else self.received
        if cursor is None:
            return Join(number, self.log, None, 0, self.start.last)
        return Join(number, self.log, cursor.epoch, cursor.seq, 0)

    def joined_at(self, start: Cursor) -> None:
        """The server's JOINED: entries after ``start`` come."""
        if self.received is None:
            self.received = start
        self.joined = True


class Follows:
    """All logs that are followed."""

    __slots__ = ("_logs", "repeats")

    def __init__(self) -> None:
        self._logs: dict[str, Following] = {}
        self.repeats = 0
        """Entries that came again and were dropped, for statistics."""

    def __contains__(self, log: str) -> bool:
        return log in self._logs

    def add(self, log: str, start: Start) -> Following:
        """Begin to follow a log."""
        following = self._logs[log] = Following(log, start)
        return following

    def get(self, log: str) -> Following | None:
        """Return a log that is followed, or None."""
        return self._logs.get(log)

    def remove(self, log: str) -> Following | None:
        """Stop following."""
        return self._logs.pop(log, None)

    def offline(self) -> None:
        """The connection is gone: nothing is joined."""
        for following in self._logs.values():
            following.joined = following.live = False

    def known(self) -> list[Following]:
        """Return the logs that were joined at least once: those this client joins again itself."""
        return [f for f in self._logs.values() if f.received is not None]

    # --- what arrives ----------------------------------------------------------------------------
    def entry(self, entry: EntryMessage) -> Step:
        """Check an entry against the cursor, and move the cursor."""
        following = self._logs.get(entry.log)
        if following is None or not following.joined:
            return Step.DROP
        received = following.received
        assert received is not None
        seq = entry.seq
        if entry.prev == received.seq < seq:
            following.received = Cursor(entry.epoch, seq)
            following.rejoins = 0
            return Step.DELIVER
        if seq <= received.seq:
            self.repeats += 1
            return Step.DROP
        return Step.REJOIN

    def gap(self, gap: Gap) -> Step:
        """Move the cursor over a gap that the server reports."""
        following = self._logs.get(gap.log)
        if following is None or not following.joined:
            return Step.DROP
        assert following.received is not None
        if gap.from_seq > following.received.seq:
            return Step.REJOIN
        following.received = Cursor(gap.to_epoch, gap.to_seq)
        following.rejoins = 0
        return Step.DELIVER

    def place(self, place: Live | Behind) -> Step:
        """Check LIVE and BEHIND: entries up to ``seq`` must have arrived."""
        following = self._logs.get(place.log)
        if following is None or not following.joined:
            return Step.DROP
        received = following.received
        assert received is not None
        live = type(place) is Live
        # Behind a BEHIND entries may come again: it may name a place that was passed. Not so LIVE.
        if place.seq > received.seq or (live and place.seq < received.seq):
            return Step.REJOIN
        if received.epoch == NO_EPOCH and place.seq == received.seq:
            following.received = Cursor(place.epoch, place.seq)
        following.live = live
        return Step.DELIVER
