"""Where the interrupted lists of one connection continue: see ``room_lists``.

Each interrupted list has a note of its own, found by what its next request will name. A connection
may read several lists at once, and none may make another one begin again: they would never end.
"""

from __future__ import annotations

from typing import Final, NamedTuple

LISTING_S: Final = 30.0
"""How long the position of an interrupted list is remembered. Skipped rooms may become visible: a
later list starts at the beginning."""
NOTES_MAX: Final = 16
"""Notes of one connection. Further lists begin again until one of the others has ended: if a new
note replaced an old one, none of them might ever end."""


class Note(NamedTuple):
    """What an interrupted list has seen."""

    looked: str
    """The last room that was examined, visible or not."""
    since: float


class Listings:
    """The notes of one connection, by partition and by the room that a request names."""

    __slots__ = ("_damaged", "_notes")

    def __init__(self) -> None:
        self._notes: dict[tuple[int, str], Note] = {}
        self._damaged: dict[int, float] = {}
        """Partitions with a room that could not be read, and when a list last had to know: every
        later page of a list has to, until its end, however many pages there are."""

    def take(self, index: int, after: str, now: float) -> tuple[str, bool]:
        """Return the room to continue after, and whether an earlier one could not be read.

        An earlier one is one of any list of the partition. A list that begins has none.
        """
        self._expire(now)
        note = self._notes.pop((index, after), None)
        damaged = index in self._damaged and (bool(after) or note is not None)
        if damaged:
            self._damaged[index] = now
        return after if note is None else note.looked, damaged

    def put(self, index: int, after: str, looked: str, now: float) -> None:
        """Note where an interrupted list continues whose next request names ``after``."""
        self._expire(now)
        if len(self._notes) < NOTES_MAX or (index, after) in self._notes:
            self._notes[index, after] = Note(looked, now)

    def put_damaged(self, index: int, now: float) -> None:
        """Note that a room of a partition could not be read."""
        self._damaged[index] = now

    def _expire(self, now: float) -> None:
        for key in [key for key, note in self._notes.items() if now - note.since >= LISTING_S]:
            del self._notes[key]
        for index in [one for one, since in self._damaged.items() if now - since >= LISTING_S]:
            del self._damaged[index]
