"""Reports who enters and leaves a room, and asks the server when it did not report a change."""

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
    """The presence in the room of a chat."""

    def __init__(self, client: Client, room: str, screen: Screen) -> None:
        """Create; nothing has been requested yet."""
        self._client = client
        self._room = room
        self._screen = screen
        self._presence = Presence()
        self.asking: set[asyncio.Task[None]] = set()
        """The running request, if any. The user did not make it, so nobody waits for it."""
        self._to_ask = False
        """True if a request is needed, or another one after the running one."""

    def news(self, event: RosterChanged) -> RosterChanged:
        """Return the news in a change."""
        event = self._presence.news(event)
        if self._presence.stale:
            self.ask()
        return event

    def ask(self) -> None:
        """Request the members, in parallel with the user's requests; one request at a time.

        A server can make this necessary as often as it likes, and need not answer.
        """
        self._to_ask = True
        if not self.asking:
            task = asyncio.create_task(self._ask())
            self.asking.add(task)
            task.add_done_callback(self.asking.discard)

    async def _ask(self) -> None:
        """Report people who entered and left unreported."""
        name = self._client.name
        with contextlib.suppress(ClientError):  # events report what ends the client
            while self._to_ask:
                self._to_ask = False
                members, entered = await self._client.who(self._room), self._presence.unasked
                news = self._presence.asked(members)
                notice = others_notice(members, name) if entered else None
                if notice := notice or Narrator(name).notice_of(news):
                    self._screen.notice(notice)
