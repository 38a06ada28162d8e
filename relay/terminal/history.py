"""Earlier messages: pages of the history (/history), and search results (/search)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from relay import limits
from relay.client.aio import Client
from relay.client.events import LogEntry, Message, RoomChanged
from relay.client.lists import EMPTY_PAGES_MAX, holes, is_last_page
from relay.terminal.notices import left_out, looked_back_to, not_indexed, number_of_messages
from relay.terminal.screens import Screen
from relay.terminal.shown import Shown

_FOUND_MAX = 20
"""Messages that one /search shows."""
_PAGE_MIN = 20
"""Minimum number of entries to request: few of them may be messages."""


ENTRIES_PER_MESSAGE_MAX: Final = 100
"""Maximum number of edits, reactions and changes shown per requested message."""


def _messages(entries: Iterable[LogEntry | RoomChanged]) -> int:
    """Return how many of them are messages: not edits, reactions and changes of the room."""
    return sum(isinstance(one, Message) for one in entries)


class Search(NamedTuple):
    """The last search."""

    words: str
    target: str
    """Where: a room, or ``@`` and a name."""
    before: int | None
    """Where it continues; None: with the newest, or nowhere."""


class HistoryCommands:
    """A user's lookups of earlier messages, and where they continue."""

    def __init__(self, client: Client, room: str, screen: Screen, shown: Shown) -> None:
        self._client = client
        self._room = room
        self._screen = screen
        self._shown = shown
        self.first_seq = 0
        """Of the oldest message of the room that is shown; 0: none."""
        self._search = Search("", "", None)

    async def history(self, count: int, target: str) -> None:
        """Show earlier messages between two notices.

        For the room those before the oldest one shown; for one user, the last ones.
        """
        before = (self.first_seq or None) if target == self._room else None
        entries: list[LogEntry | RoomChanged] = []
        end, missing, empty = False, count, 0
        most_entries = count * ENTRIES_PER_MESSAGE_MAX
        while missing > 0 and not end and len(entries) < most_entries and empty < EMPTY_PAGES_MAX:
            most = min(max(missing, _PAGE_MIN), limits.PAGE_ENTRIES_MAX)
            page = await self._client.history(target, before=before, count=most)
            entries[:0] = page.entries
            missing = count - _messages(entries)
            empty = 0 if page.entries else empty + 1
            end, before = is_last_page(page, before), page.next
        while missing < 0:  # begin with the first requested message
            missing += isinstance(entries.pop(0), Message)
        while missing == 0 and not end and not isinstance(entries[0], Message):
            del entries[0]
        if not entries:
            self._screen.notice("there are no earlier messages")
            return
        which = f"with {target[1:]}"
        if target == self._room:
            self.first_seq = entries[0].seq
            which = "from earlier"
            if places := holes(entries):
                self._screen.notice(left_out(places))
        self._screen.notice(f"{number_of_messages(_messages(entries))} {which}:")
        self._shown.forget_day()
        await self._shown.show_earlier(entries)
        self._screen.notice("end of earlier messages")
        self._shown.forget_day()

    async def numbers(self, count: int) -> None:
        """Show the last messages of the room again, with their numbers."""
        found = self._shown.recent.messages(self._room, count)
        if not found:
            self._screen.notice(f"no messages of {self._room} have been shown yet")
            return
        self._screen.notice(f"{number_of_messages(len(found))} with numbers:")
        self._shown.forget_day()
        for entry in found:
            await self._shown.show_found(entry, number=True)
        self._screen.notice("end of the messages with numbers")
        self._shown.forget_day()

    async def _tell_what_is_missing(self, target: str, indexed: int) -> None:
        newest = (await self._client.history(target, count=1)).entries
        if newest and newest[-1].seq > indexed:
            self._screen.notice(not_indexed(indexed))

    async def find(self, words: str, target: str) -> None:
        """Show messages that contain the words, oldest first; or continue with older ones."""
        search = Search(words, target, None) if words else self._search
        if not search.words:
            self._screen.notice("/search takes the words to look for")
            return
        if not words and not search.before:
            self._screen.notice(f"there are no older messages with: {search.words}")
            return
        found: list[LogEntry] = []
        before, end, empty = search.before, False, 0
        while not end and len(found) < _FOUND_MAX and empty < EMPTY_PAGES_MAX:
            count = _FOUND_MAX - len(found)
            page = await self._client.search(
                search.target, search.words, before=before, count=count
            )
            if before is None:
                await self._tell_what_is_missing(search.target, page.indexed)
            found += page.entries
            empty = 0 if page.entries else empty + 1
            end, before = is_last_page(page, before), page.next
        self._search = search._replace(before=None if end else before)
        if before and not end and empty == EMPTY_PAGES_MAX:
            self._screen.notice(f"{looked_back_to(before)}; /search goes on")
            if not found:
                return
        if not found:
            older = "older " if search.before else ""
            self._screen.notice(f"there are no {older}messages with: {search.words}")
            return
        self._screen.notice(f"{number_of_messages(len(found))} with: {search.words}")
        self._shown.forget_day()
        for entry in reversed(found):
            await self._shown.show_found(entry)
        self._screen.notice("end of what was found" if end else "/search shows older ones")
        self._shown.forget_day()
