"""Sends what a user types, and tracks what could not be stored.

Changes of the room and messages are different requests, so the server could take a message first
that was typed after ``/private``. Lines therefore wait for the outcome of a change before them, and
so does every command that others read something of.

If ``/private`` fails, or is mistyped, and nobody sees that, later lines are *held*: not sent until
a command has made that choice. They come from a program, or would begin the room as a public one.
An unknown command may have been any of these, so nothing makes up for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

from relay import limits
from relay.client.aio import Client
from relay.client.errors import MessageTooLong
from relay.client.events import LogEntry, Stored
from relay.client.refusals import UNCLEAR, Refused
from relay.errors import RelayError
from relay.terminal.choices import KIND, Choice, OpenChoices, answered
from relay.terminal.notices import number_of_messages
from relay.terminal.pending import Pending
from relay.terminal.recent import Recent
from relay.terminal.screens import Screen

DEFERRED_MAX: Final = 100
"""Lines that wait for a change while more are read."""
Question: TypeAlias = Callable[[], Coroutine[Any, Any, object]]
"""Makes a request to the server."""
_NOT_CHANGED: Final = "the room was not changed"
_SHOWN_CHARS_MAX = 200
_PATIENCE_S = 2.0
"""How long leaving waits for acknowledgements before the user is told why."""


class NotSent(RelayError):
    """A line was not sent, because a command before it did not take effect."""

    def __init__(self, line: str, why: str) -> None:
        super().__init__(f"not sent ({why}): {shortened(line)}")


class Sending:
    """The lines of one user that are under way."""

    def __init__(self, client: Client, room: str, screen: Screen, pending: Pending) -> None:
        self._client = client
        self._room = room
        self._screen = screen
        self._pending = pending
        self.failures = 0
        """Lines that could not be sent or stored."""
        self._unstored: set[asyncio.Future[Stored]] = set()
        self._latest: asyncio.Future[Stored] | None = None
        """The last line sent."""
        self._change: asyncio.Future[bool] | None = None
        """The outcome of the last change of the room: whether later lines may be sent."""
        self._watched = False
        """True if a person sees that something failed, and types the next line knowing that."""
        self._begun = True
        """True if the room exists; if not, the next line begins it, as a public one."""
        self._open = OpenChoices()
        """They hold lines."""
        self._deferred = 0
        """Lines that wait for it."""
        self._turn = asyncio.Lock()
        """Keeps these lines in order."""

    def begin(self, *, watched: bool, begun: bool) -> None:
        """Note whether a person sees the notices, and whether the room exists."""
        self._watched = watched
        self._begun = begun

    @property
    def strict(self) -> bool:
        """Whether what looks like a command is not sent: nobody sees it, or it begins the room."""
        return not self._watched or not self._begun

    def room_begun(self) -> None:
        """The room exists: no line begins it any more."""
        if not self._begun:
            self._begun = True
            if self._watched:
                self._open.clear()

    def chosen(self, choice: Choice) -> None:
        """A command has taken effect: lines that were held by this choice alone may be sent."""
        self._open.made(choice, self._open.turn())

    def not_chosen(self, choice: Choice) -> bool:
        """A command that later lines may rely on was invalid.

        Returns whether nobody knows now whom later lines are for.
        """
        self._not_chosen(choice, self._open.turn())
        return not self._watched and choice.what in ("aim", "unknown")

    def _not_chosen(self, choice: Choice, turn: int) -> None:
        if not self._watched:
            self._open.failed(choice, turn)
        elif not self._begun and choice.what in ("kind", "aim", "unknown"):
            # The person sees what was unknown, and has to choose what the room is.
            self._open.failed(KIND if choice.what == "unknown" else choice, turn)

    def change(
        self,
        make: Callable[[], Awaitable[None]],
        chooses: Choice | None,
        *,
        needed: bool,
        says: str,
    ) -> Question:
        """Let later lines in the room wait for a change of it, and return how to make it.

        Args:
            make: makes the change.
            chooses: what it chooses, if anything: see ``Change.chooses``.
            needed: whether lines that were typed before its outcome was known are not sent if it
                fails: they may be meant for fewer people than are in the room.
            says: the command, if it is such a line itself; empty: nobody reads anything of it.
        """
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        before, self._change = self._changing(), outcome
        turn = self._open.turn()

        async def made() -> None:
            allowed = done = False
            try:
                allowed = before is None or await asyncio.shield(before)
                if says:
                    self._check(says, turn, allowed, chooses)
                await make()
                done = True
                if chooses is not None:
                    self._open.made(chooses, turn)
            finally:
                if needed and not done and chooses is not None:
                    self._not_chosen(chooses, turn)
                outcome.set_result((done or not needed) and allowed)

        return made

    def after_change(self, question: Question, target: str, says: str) -> Question:
        """Let a command that others read something of wait as a line does.

        Args:
            question: makes its request.
            target: where it is read: a room, or ``@`` and a user's name.
            says: the command.
        """
        change = self._changing()
        turn = self._open.turn()
        if target != self._room or (change is None and not self._open.hold(turn)):
            return question

        async def asked() -> None:
            self._check(says, turn, change is None or await asyncio.shield(change))
            await question()

        return asked

    def _check(self, says: str, turn: int, allowed: bool, chooses: Choice | None = None) -> None:
        """Raise NotSent unless a line for the room may be sent, now that changes before it ended.

        Args:
            says: the line.
            turn: when it was typed.
            allowed: whether the changes were made that were under way then.
            chooses: what it chooses itself: it is not held by that.
        """
        if not allowed:
            raise NotSent(says, _NOT_CHANGED)
        makes = () if chooses is None else answered(chooses)
        for choice in self._open.at(turn):
            if choice not in makes:
                raise NotSent(says, choice.needed)

    def _changing(self) -> asyncio.Future[bool] | None:
        return None if self._change is None or self._change.done() else self._change

    async def say(self, text: str, target: str, reply_to: LogEntry | None = None) -> None:
        """Send a line to a room, or to ``@`` and a user's name; an empty one is not sent."""
        if not text:
            return
        length = len(body := text.encode())
        if length > limits.BODY_BYTES_MAX:
            most = f"a message has at most {limits.BODY_BYTES_MAX:,}"
            self.fail(f"not sent, too long ({length:,} bytes; {most}): {shortened(text)}")
            return
        whom = f", to {target}" if target.startswith("@") else ""
        done = self._pending.begin(f"not stored yet{whom}: {text}")
        change = self._changing()
        turn = self._open.turn()
        waits = change is not None or self._deferred or self._open.hold(turn)
        if target == self._room and waits:
            self._deferred += 1
            later = asyncio.create_task(self._say_later(change, target, body, reply_to, turn))
            self._track(later, text, done)
            if self._deferred > DEFERRED_MAX:
                await asyncio.wait([later])
            return
        try:
            stored = await self._client.post(target, body, reply_to=reply_to)
        except BaseException as error:
            done()
            if not isinstance(error, Refused | MessageTooLong):
                raise
            self.fail(f"not sent ({error}): {shortened(text)}")
            return
        self._track(stored, text, done)

    async def _say_later(
        self,
        change: asyncio.Future[bool] | None,
        target: str,
        body: bytes,
        reply_to: LogEntry | None,
        turn: int,
    ) -> Stored:
        try:
            async with self._turn:
                self._check(body.decode(), turn, change is None or await asyncio.shield(change))
                stored = await self._client.post(target, body, reply_to=reply_to)
        finally:
            self._deferred -= 1
        return await stored

    def _track(self, stored: asyncio.Future[Stored], text: str, done: Callable[[], None]) -> None:
        self._unstored.add(stored)
        self._latest = stored
        stored.add_done_callback(lambda future: self._settled(future, text, done))

    def _settled(self, stored: asyncio.Future[Stored], text: str, done: Callable[[], None]) -> None:
        done()
        if stored.cancelled():
            return
        self._unstored.discard(stored)
        error = stored.exception()
        if isinstance(error, NotSent):
            self.fail(str(error))
        elif error is not None:
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
    """Return enough of a message to identify it, on one line."""
    text = text.replace("\n", " ")
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}…"
