"""Where the interrupted lists of one connection continue: see ``room_lists``.

Each list has a note of its own, found by what its next request will name. A connection may read
several lists at once, and none may make another one begin again: they would never end.
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
    """What a list has seen."""

    looked: str
    """The last room that was examined, visible or not."""
    damaged: bool
    """Whether one of the list could not be read."""
    since: float


class Listings:
    """The notes of one connection, by partition and by the room that a request names."""

    __slots__ = ("_notes",)

    def __init__(self) -> None:
        self._notes: dict[tuple[int, str], Note] = {}

    def take(self, index: int, after: str, now: float) -> tuple[str, bool]:
        """Return the room to continue after, and whether an earlier one could not be read.

        That one could not be read stays noted: the same page may be wanted by two lists.
        """
        self._expire(now)
        note = self._notes.pop((index, after), None)
        if note is None:
            return after, False
        if note.damaged:
            self._notes[index, after] = Note(after, damaged=True, since=note.since)
        return note.looked, note.damaged

    def put(self, index: int, after: str, looked: str, now: float, *, damaged: bool) -> None:
        """Note where a list continues whose next request names ``after``."""
        self._expire(now)
        if len(self._notes) < NOTES_MAX or (index, after) in self._notes:
            self._notes[index, after] = Note(looked, damaged, now)

    def _expire(self, now: float) -> None:
        for key in [key for key, note in self._notes.items() if now - note.since >= LISTING_S]:
            del self._notes[key]
