"""Sends what a user types, and tracks what could not be stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from relay import limits
from relay.client.aio import Client
from relay.client.errors import MessageTooLong
from relay.client.events import LogEntry, Stored
from relay.client.refusals import UNCLEAR, Refused
from relay.terminal.notices import number_of_messages
from relay.terminal.pending import Pending
from relay.terminal.recent import Recent
from relay.terminal.screens import Screen

_SHOWN_CHARS_MAX = 200
_PATIENCE_S = 2.0
"""How long leaving waits for acknowledgements before the user is told why."""


class Sending:
    """The lines of one user that are under way."""

    def __init__(self, client: Client, screen: Screen, pending: Pending) -> None:
        self._client = client
        self._screen = screen
        self._pending = pending
        self.failures = 0
        """Lines that could not be sent or stored."""
        self._unstored: set[asyncio.Future[Stored]] = set()
        self._latest: asyncio.Future[Stored] | None = None
        """The last line sent."""

    async def say(self, text: str, target: str, reply_to: LogEntry | None = None) -> None:
        """Send a line to a room, or to ``@`` and a user's name; an empty one is not sent."""
        if not text:
            return
        length = len(body := text.encode("utf-8", "replace"))
        if length > limits.BODY_BYTES_MAX:
            most = f"a message has at most {limits.BODY_BYTES_MAX:,}"
            self.fail(f"not sent, too long ({length:,} bytes; {most}): {shortened(text)}")
            return
        whom = f", to {target}" if target.startswith("@") else ""
        done = self._pending.begin(f"not stored yet{whom}: {text}")
        try:
            stored = await self._client.post(target, body, reply_to=reply_to)
        except BaseException as error:
            done()
            if not isinstance(error, Refused | MessageTooLong):
                raise
            self.fail(f"not sent ({error}): {shortened(text)}")
            return
        self._unstored.add(stored)
        self._latest = stored
        stored.add_done_callback(lambda future: self._settled(future, text, done))

    def _settled(self, stored: asyncio.Future[Stored], text: str, done: Callable[[], None]) -> None:
        done()
        if stored.cancelled():
            return
        self._unstored.discard(stored)
        if error := stored.exception():
            known = isinstance(error, Refused) and not isinstance(error, UNCLEAR)
            outcome = "not stored" if known else "may not be stored"
            self.fail(f"{outcome} ({error}): {shortened(text)}")

    def fail(self, reason: str) -> None:
        """Report that a line was not sent or stored, and count it."""
        self.failures += 1
        self._screen.notice(reason)

    def all_shown(self, recent: Recent) -> bool:
        """Return True if everything sent has an outcome, and the last line was shown."""
        if self._unstored:
            return False
        latest = self._last_stored()
        return latest is None or not latest.seq or recent.passed(latest.cursor)

    def last_is_gone(self, recent: Recent) -> bool:
        """Return True if the last line is stored, but no longer among the shown messages.

        It was erased, is in a gap, or is too old.
        """
        latest = self._last_stored()
        return latest is not None and not recent.has(latest.cursor)

    def _last_stored(self) -> Stored | None:
        latest = self._latest
        if latest is None or not latest.done() or latest.cancelled() or latest.exception():
            return None
        return latest.result()

    async def all_stored(self) -> None:
        """Wait until everything has an outcome, and tell the user if that takes long."""
        if not self._unstored:
            return
        _, waiting = await asyncio.wait(self._unstored, timeout=_PATIENCE_S)
        if waiting:
            count = number_of_messages(len(waiting))
            self._screen.notice(f"waiting until {count} can be stored; Ctrl-C leaves immediately")
            await asyncio.wait(waiting)

    def tell_unstored(self) -> None:
        """Report lines without an outcome, at the end."""
        if self._unstored:
            self._screen.notice(f"{number_of_messages(len(self._unstored))} may not be stored")


def shortened(text: str) -> str:
    """Return enough of a line to identify it."""
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}…"
