"""Shows messages and notices of a room and the inbox, with separators between days."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from relay.client.events import LogEntry, Message, RoomChanged
from relay.terminal.recent import Recent, numbered
from relay.terminal.room_notices import change_notice
from relay.terminal.screens import Screen
from relay.terminal.view import day

UNREAD_MAX: Final = 1000
"""Number of people whose last message waits to be marked as read; above it, the first one is
forgotten. Many people, or a malicious server, may write to a user who is away overnight."""


class Shown:
    """The entries on one user's screen."""

    def __init__(self, screen: Screen, name: str, room: str) -> None:
        """Create. ``name``: of the user; ``room``: the current room."""
        self._screen = screen
        self._room = room
        self.recent = Recent(name)
        self.unread: dict[str, LogEntry] = {}
        """By user and by room: the last message shown since something was typed."""
        self._day = ""
        """Of the message shown last."""

    async def show(self, entry: LogEntry | RoomChanged) -> None:
        """Show an entry of a room or of the inbox, as a message or as a notice."""
        await self._show(entry, self.recent.note)

    async def _show(self, entry: LogEntry | RoomChanged, note: Callable[[LogEntry], None]) -> None:
        if isinstance(entry, Message | RoomChanged):
            self._show_day(entry)
        if isinstance(entry, RoomChanged):
            self._screen.notice(change_notice(entry))
            return
        if isinstance(entry, Message):
            await self._screen.message(entry, self.recent.label(entry))
            if not entry.to:
                self._note_unread(self._room, entry)
            elif entry.sender == entry.peer:
                self._note_unread(f"@{entry.peer}", entry)
        elif notice := self.recent.notice_of(entry):
            self._screen.notice(notice)
        note(entry)

    def _note_unread(self, place: str, entry: LogEntry) -> None:
        self.unread.pop(place, None)
        self.unread[place] = entry
        if len(self.unread) > UNREAD_MAX:
            del self.unread[next(iter(self.unread))]

    def _show_day(self, entry: LogEntry | RoomChanged) -> None:
        """Show the day of an entry, unless the previous one is of the same day."""
        today = day(entry.time_ms)
        if today != self._day:
            self._screen.notice(today)
            self._day = today

    async def show_found(self, entry: LogEntry, *, number: bool = False) -> None:
        """Show a search result, which is not a new message."""
        self._show_day(entry)
        label = self.recent.label(entry)
        await self._screen.message(entry, numbered(entry, label) if number else label)

    async def show_earlier(self, entries: Iterable[LogEntry | RoomChanged]) -> None:
        """Show earlier messages, which do not count as unread."""
        unread, known = dict(self.unread), self.recent.places()
        earlier: list[LogEntry] = []
        for entry in entries:
            await self._show(entry, self.recent.note_earlier)
            if isinstance(entry, LogEntry) and (entry.room, entry.cursor) not in known:
                earlier.append(entry)
        self.unread = unread
        self.recent.put_first(earlier)

    def forget_day(self) -> None:
        """The next entry is from another time: show its day."""
        self._day = ""
