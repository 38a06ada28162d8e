"""The calls of an asyncio client to its server, and reading events. Connecting is in ``client``.

Every call has a ``timeout`` in seconds; None waits as long as it takes, across lost connections.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Self, TypeAlias, cast

from relay.chat.entries import Cursor
from relay.client import arguments, offers
from relay.client.aio.posts import Post, Sending
from relay.client.aio.pump import Pump
from relay.client.base import ClientBase, no_answer, not_acknowledged, not_sent
from relay.client.errors import TimedOut
from relay.client.events import Event, HistoryPage, Joined, LogEntry, Members, SearchPage, Stored
from relay.client.pending_sends import Offer

Answer: TypeAlias = "asyncio.Future[Any]"


class AsyncCalls(ClientBase):
    """The calls of ``aio.Client``."""

    _pump: Pump

    def _check_started(self) -> None:
        super()._check_started()
        self._pump.check_loop()

    # --- reading ---------------------------------------------------------------------------------
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event, like ``next_event`` without a timeout.

        Raises:
            StopAsyncIteration: the client was closed by ``close``.
            ClientError: it has ended for another reason.
        """
        event = await self._next(None, None)
        if event is None:
            raise StopAsyncIteration
        return event

    async def events(self, timeout: float | None = None) -> AsyncIterator[Event]:
        """Yield events as they arrive, until the client is closed or none arrives for ``timeout``.

        Events of rooms that were joined with ``room`` are not included.

        Args:
            timeout: seconds without an event; None: no limit.

        Raises:
            ClientError: the client has ended, other than by ``close``.
        """
        while (event := await self.next_event(timeout)) is not None:
            yield event

    async def next_event(self, timeout: float | None = None) -> Event | None:
        """Return the next event; None if none arrives in time, or the client was closed.

        A program that takes no events for a while stops the client from reading its socket,
        including acknowledgements: take events while you send to a room that you have joined.

        Args:
            timeout: seconds; None: no limit.

        Raises:
            ClientError: the client has ended, other than by ``close``.
        """
        return await self._next(None, timeout)

    async def pump(self, timeout: float = 0.0) -> None:
        """Wait until something has arrived, for at most ``timeout`` seconds.

        An asyncio client reads by itself whenever the loop runs; a blocking one reads here.
        """
        self._check_started()
        timeout = arguments.seconds("timeout", timeout)
        await asyncio.sleep(0)
        if timeout and not self._pump.closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._pump.change()

    async def _next(self, room: str | None, timeout_s: float | None) -> Event | None:
        self._check_started()
        timeout_s = arguments.seconds_or_none("timeout", timeout_s)
        if not self._chat.has_event(room):
            try:
                async with asyncio.timeout(timeout_s):
                    while not self._chat.has_event(room):
                        await self._pump.event(room)
            except TimeoutError:
                return None
        return self._take(room)

    async def join(
        self,
        room: str,
        last: int = 0,
        *,
        since: int | None = None,
        cursor: Cursor | None = None,
        timeout: float | None = None,
    ) -> Joined:
        """Join a room: its last messages, or those after a number or a cursor, then new ones.

        Args:
            room: its name.
            last: how many of the last messages to deliver first.
            since: start after the message with this number; 0: with the first one.
            cursor: start after a saved cursor.
            timeout: seconds; None: ``answer_timeout_s``. After a timeout the join is undone.

        Raises:
            Refused: NameInvalid, AlreadyJoined, LimitReached, ...
            TypeError, ValueError: an argument; nothing was sent.
            TimedOut: no answer in time.
            ClientError: the client has ended, or was not connected.
        """
        start, last = arguments.join_start(last, since, cursor)
        return await self._join(room, start, last, timeout, own_queue=False)

    async def _join(
        self,
        room: str,
        start: Cursor | None,
        last: int,
        timeout_s: float | None,
        *,
        own_queue: bool,
    ) -> Joined:
        self._check_started()
        timeout_s = self._time_limit(timeout_s)
        answer = self._awaited()
        self._chat.join(room, start, last, answer, own_queue=own_queue)
        try:
            return cast(Joined, await self._answered(answer, timeout_s, "join"))
        except (asyncio.CancelledError, TimedOut):
            self._chat.cancel_join(room, answer)
            self._pump.sent()
            raise

    async def leave(self, room: str, *, timeout: float | None = None) -> Cursor | None:
        """Leave a room. Its events that were not taken are dropped.

        Args:
            room: its name.
            timeout: seconds; None: ``answer_timeout_s``. The room is left whether or not the
                answer arrives.

        Returns:
            Where the program stood, to ``join(cursor=...)`` later.

        Raises:
            NotAMember: the room is not joined.
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        self._check_started()
        timeout = self._time_limit(timeout)
        answer = self._awaited()
        cursor = self._chat.leave(room, answer)
        self._pump.settle()  # without a connection it is done
        await self._answered(answer, timeout, "leave")
        return cursor

    async def who(self, room: str, *, timeout: float | None = None) -> Members:
        """Return who is in a room. It must be joined.

        Args:
            room: its name.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAMember, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        self._check_started()
        timeout = self._time_limit(timeout)
        answer = self._awaited()
        self._chat.who(room, answer)
        return cast(Members, await self._asked(answer, timeout, "who"))

    async def history(
        self,
        room: str,
        *,
        before: int | None = None,
        after: int | None = None,
        count: int = 100,
        timeout: float | None = None,
    ) -> HistoryPage:
        """Return a page of a joined room: below ``before``, above ``after``, or the newest.

        Args:
            room: its name.
            before: the page ends below the message with this number.
            after: the page begins above the message with this number.
            count: maximum number of messages, 1 to 1,000.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAMember, ...
            TypeError, ValueError: an argument; nothing was sent.
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        self._check_started()
        timeout = self._time_limit(timeout)
        forward, seq, count = arguments.page_start(before, after, count)
        answer = self._awaited()
        self._chat.history(room, forward, seq, count, answer)
        return cast(HistoryPage, await self._asked(answer, timeout, "history"))

    async def search(
        self,
        room: str,
        text: str,
        *,
        before: int | None = None,
        count: int = 50,
        timeout: float | None = None,
    ) -> SearchPage:
        """Return messages of a joined room that contain all these words, newest first.

        Whole words match, regardless of case and accents; text between quotation marks matches as a
        phrase. For direct messages, the room is ``@me``, or ``@`` and the name of the other person,
        and ``@me`` must be joined. To get the next page, pass the page's ``next`` as ``before``.

        Args:
            room: its name.
            text: the words, at most 256 bytes.
            before: only messages with a number below this.
            count: maximum number of messages, 1 to 100.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAMember; NotSupported, if the server has no search; BadRequest, if the text
                contains no word; ...
            TypeError, ValueError: an argument; nothing was sent.
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        self._check_started()
        timeout = self._time_limit(timeout)
        words, seq, count = arguments.search(text, before, count)
        answer = self._awaited()
        self._chat.search(room, words, seq, count, answer)
        return cast(SearchPage, await self._asked(answer, timeout, "search"))

    # --- sending ---------------------------------------------------------------------------------
    async def send(
        self,
        room: str,
        body: str | bytes,
        *,
        content_type: str = "text/plain",
        reply_to: LogEntry | Cursor | None = None,
        room_identity: bytes = b"",
        timeout: float | None = None,
    ) -> Stored:
        """Append a message and wait until it is stored.

        Cancelling a send, or its timeout, does not withdraw it: the message may still be stored.
        ``flush`` waits for its outcome, and raises if it failed. To get the outcome itself, use
        ``post`` and wait for its result.

        Args:
            room: its name; it need not be joined. ``@`` and a name: a direct message.
            body: text, or bytes.
            content_type: of the body, at most 64 bytes.
            reply_to: the message of the same room that this one answers, or its cursor.
            room_identity: which room of that name it is for (``room_identities``); empty: the one
                that this client means, or else whichever has the name.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: IdConflict, UnknownOutcome, Busy (only with ``retry_timeout_s``), ...
            MessageTooLong, NameInvalid: nothing was sent.
            TimedOut: no answer in time. The message may be stored, unless the error states that it
                was not sent.
            ClientError: the client has ended; the message may or may not be stored.
        """
        offer = offers.message(room, body, content_type, reply_to, room_identity)
        return await self._append(offer, timeout)

    async def post(
        self,
        room: str,
        body: str | bytes,
        *,
        content_type: str = "text/plain",
        reply_to: LogEntry | Cursor | None = None,
        room_identity: bytes = b"",
        timeout: float | None = None,
    ) -> Post:
        """Append a message; wait only for space in the window.

        Args:
            room: its name; it need not be joined. ``@`` and a name: a direct message.
            body: text, or bytes.
            content_type: of the body, at most 64 bytes.
            reply_to: the message of the same room that this one answers, or its cursor.
            room_identity: as for ``send``.
            timeout: seconds to wait for space; None: no limit.

        Returns:
            A future for the outcome. It may be dropped: ``flush`` reports the first failure.

        Raises:
            NameInvalid, MessageTooLong: nothing was sent.
            TimedOut: there was no space in time; nothing was sent.
            ClientError: the client has ended.
        """
        self._check_started()
        timeout = arguments.seconds_or_none("timeout", timeout)
        offer = offers.message(room, body, content_type, reply_to, room_identity)
        if self._pump.space.congested or not self._chat.sends.has_space(len(offer.body)):
            offer = self._chat.meant(offer)
            try:
                async with asyncio.timeout(timeout):
                    await self._pump.space.wait(len(offer.body))
            except TimeoutError:
                raise not_sent(timeout) from None
        answer = Post(loop=asyncio.get_running_loop())
        self._submit(offer, answer)
        return answer

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until every send has its outcome.

        Args:
            timeout: seconds; None: no limit.

        Raises:
            TimedOut: some have no outcome yet.
            ClientError: the first failure of a post, or of a send whose caller stopped waiting,
                since the last ``flush``.
        """
        self._check_started()
        timeout = arguments.seconds_or_none("timeout", timeout)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.unacknowledged:
                    await self._pump.change()
        self._check_flushed()

    async def _append(self, offer: Offer, timeout_s: float | None) -> Stored:
        """Append something and wait until it is stored."""
        self._check_started()
        timeout_s = self._time_limit(timeout_s)
        answer: Sending | None = None
        try:
            async with asyncio.timeout(timeout_s):
                if self._pump.space.congested or not self._chat.sends.has_space(len(offer.body)):
                    offer = self._chat.meant(offer)
                    await self._pump.space.wait(len(offer.body))
                answer = Sending(loop=asyncio.get_running_loop())
                self._submit(offer, answer)
                return await answer
        except TimeoutError:
            raise (not_sent if answer is None else not_acknowledged)(timeout_s) from None

    def _submit(self, offer: Offer, answer: Sending) -> None:
        try:
            self._chat.send(offer, answer)
        finally:
            self._pump.sent()

    # --- answers ---------------------------------------------------------------------------------
    async def _answered(self, answer: Answer, timeout_s: float | None, what: str) -> object:
        self._pump.sent()
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise no_answer(timeout_s, what) from None

    async def _asked(self, answer: Answer, timeout_s: float | None, what: str) -> object:
        """Wait for the answer to a request; forget the request when the caller stops waiting."""
        try:
            return await self._answered(answer, timeout_s, what)
        except (asyncio.CancelledError, TimedOut):
            self._chat.requests.drop(answer)
            raise

    @staticmethod
    def _awaited() -> Answer:
        """Return a future for the answer to a request."""
        return asyncio.get_running_loop().create_future()
