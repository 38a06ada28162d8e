"""Reports who enters and leaves a room, and asks the server when it did not report a change."""

from __future__ import annotations

import asyncio
from typing import Final

from relay.client.aio import Client
from relay.client.errors import ClientError
from relay.client.events import Member, RosterChanged, State, StateChanged
from relay.terminal.notices import Narrator, others_notice
from relay.terminal.presence import Allowance, Presence
from relay.terminal.screens import Screen

ASK_AGAIN_S: Final = 10.0
"""After the first refusal; twice as long after each further one."""
ASK_AGAIN_MAX_S: Final = 600.0


class WhoIsHere:
    """The presence in the room of a chat."""

    def __init__(self, client: Client, room: str, screen: Screen) -> None:
        """Create; nothing has been requested yet."""
        self._client = client
        self._room = room
        self._screen = screen
        self._presence = Presence()
        self._allowance = Allowance()
        self._timer: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        """Asks again after a refusal; nothing else does until then, on this connection."""
        self._refusals = 0
        """Refused requests since the last answer, or the last login."""
        self._asking: set[asyncio.Task[None]] = set()
        """The running request, if any. The user did not make it, so nobody waits for it."""
        self._to_ask = False
        """True if a request is needed, or another one after the running one."""

    def changed(self, event: RosterChanged) -> None:
        """Report the news in a change."""
        self._tell(self._presence.news(event, _now()).joined, ())
        if self._presence.stale:
            self.ask()

    def state(self, event: StateChanged) -> None:
        """The connection was lost, or is there again."""
        if event.state is State.WAITING:
            self._presence.disconnected()
        elif event.state is State.ONLINE:
            self._refusals = 0
            self._cancel_again()
            if self._presence.stale and not self._presence.unasked:
                self.ask()

    def ask(self) -> None:
        """Request the members, in parallel with the user's requests; one request at a time.

        A server can make this necessary as often as it likes, and need not answer.
        """
        self._to_ask = True
        if not self._asking and self._again is None:
            task = asyncio.create_task(self._ask())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    def end(self) -> set[asyncio.Task[None]]:
        """Report nothing more; return the running request, which is to be cancelled."""
        if self._timer is not None:
            self._timer.cancel()
        self._cancel_again()
        return self._asking

    def _cancel_again(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _ask_again(self) -> None:
        self._again = None
        self.ask()

    async def _ask(self) -> None:
        """Report people who entered and left unreported."""
        while self._to_ask:
            self._to_ask = False
            entered = self._presence.unasked
            try:
                members = await self._client.who(self._room)
            except ClientError:  # events report what ends the client
                # Without an answer no departure is reported.
                delay_s = min(ASK_AGAIN_S * 2.0**self._refusals, ASK_AGAIN_MAX_S)
                self._refusals = min(self._refusals + 1, 16)
                self._again = asyncio.get_running_loop().call_later(delay_s, self._ask_again)
                return
            self._refusals = 0
            news = self._presence.asked(members, _now())
            if entered and (notice := others_notice(members, self._client.name)):
                self._screen.notice(notice)
            self._tell(news.joined, ())

    def _look(self) -> None:
        """Report who has been gone for long enough, and how many others came or left."""
        self._timer = None
        now = _now()
        if self._allowance.due_at is not None and now >= self._allowance.due_at:
            count = self._allowance.take()
            self._screen.notice(f"more came and left: {count} changes in the last minute; /who")
        self._tell((), self._presence.gone(now))

    def _tell(self, joined: tuple[Member, ...], left: tuple[str, ...]) -> None:
        """Report changes, as many by name as is useful, and look again when it is time."""
        named = self._allowance.named(len(joined) + len(left), _now())
        joined, left = joined[:named], left[: max(0, named - len(joined))]
        narrator = Narrator(self._client.name)
        if notice := narrator.notice_of(RosterChanged(self._room, 0, joined, left, 0, 0)):
            self._screen.notice(notice)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = (self._presence.due_at, self._allowance.due_at)
        if (at := min((each for each in due if each is not None), default=None)) is not None:
            self._timer = asyncio.get_running_loop().call_at(at, self._look)


def _now() -> float:
    return asyncio.get_running_loop().time()
