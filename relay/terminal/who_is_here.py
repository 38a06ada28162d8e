"""Tells who comes and goes, and asks the server when something of that was not told."""

from __future__ import annotations

import asyncio
import contextlib

from relay.client.aio import Client
from relay.client.errors import ClientError
from relay.client.events import RosterChanged
from relay.terminal.notices import Narrator, others_notice
from relay.terminal.presence import Presence
from relay.terminal.screens import Screen


class WhoIsHere:
    """Of the room that a chat is in."""

    def __init__(self, client: Client, room: str, screen: Screen) -> None:
        """Begin; nobody has asked yet."""
        self._client = client
        self._room = room
        self._screen = screen
        self._presence = Presence()
        self.asking: set[asyncio.Task[None]] = set()
        """What asks now, if anything does: no question of the person, so nobody waits for it."""
        self._to_ask = False
        """It has to be asked, or asked once more."""

    def news(self, event: RosterChanged) -> RosterChanged:
        """Return what of a change is news."""
        event = self._presence.news(event)
        if self._presence.stale:
            self.ask()
        return event

    def ask(self) -> None:
        """Ask who is here, beside all that the person asks; one question at a time.

        A server can give reason to ask as often as it likes, and need not answer.
        """
        self._to_ask = True
        if not self.asking:
            task = asyncio.create_task(self._ask())
            self.asking.add(task)
            task.add_done_callback(self.asking.discard)

    async def _ask(self) -> None:
        """Tell of who came and went without being told of."""
        name = self._client.name
        with contextlib.suppress(ClientError):  # what ends the client is told by its events
            while self._to_ask:
                self._to_ask = False
                members, entered = await self._client.who(self._room), self._presence.unasked
                news = self._presence.asked(members)
                notice = others_notice(members, name) if entered else None
                if notice := notice or Narrator(name).notice_of(news):
                    self._screen.notice(notice)
