"""The calls of a blocking client to its server, and reading events. Connecting is in ``client``.

Every call has a ``timeout`` in seconds; None waits as long as it takes, across lost connections.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Self, TypeVar

from relay.chat.entries import Cursor
from relay.client import arguments, offers
from relay.client.base import ClientBase, no_answer, not_acknowledged, not_sent
from relay.client.blocking.posts import BlockingPost, Pending
from relay.client.blocking.pump import Pump
from relay.client.events import (
    Event,
    HistoryPage,
    Joined,
    LogEntry,
    Members,
    SearchPage,
    Stored,
)
from relay.client.pending_sends import Offer

GATHER_MAX: Final = 64
"""Posts that are sent in one write."""
Result = TypeVar("Result")


class BlockingCalls(ClientBase):
    """The calls of ``blocking.BlockingClient``."""

    _pump: Pump

    # --- reading ---------------------------------------------------------------------------------
    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """Return the next event, like ``next_event`` without a timeout.

        Raises:
            StopIteration: the client was closed by ``close``.
            ClientError: it has ended for another reason.
        """
        event = self._next(None, None)
        if event is None:
            raise StopIteration
        return event

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield events as they arrive, until the client is closed or none arrives for ``timeout``.

        Events of rooms that were joined with ``room`` are not included.

        Args:
            timeout: seconds without an event; None: no limit.

        Raises:
            ClientError: the client has ended, other than by ``close``.
        """
        while (event := self.next_event(timeout)) is not None:
            yield event

    def next_event(self, timeout: float | None = None) -> Event | None:
        """Return the next event; None if none arrives in time, or the client was closed.

        A program that takes no events for a while stops the client from reading its socket,
        including acknowledgements: take events while you send to a room that you have joined.

        Args:
            timeout: seconds; None: no limit.

        Raises:
            ClientError: the client has ended, other than by ``close``.
        """
        return self._next(None, timeout)

    def pump(self, timeout: float = 0.0) -> None:
        """Read once, for at most ``timeout`` seconds: maintains the connection and receives
        answers.

        A program that makes no other call for a while should call it regularly.
        """
        self._check_started()
        timeout = arguments.seconds("timeout", timeout)
        self._pump.settle()  # posts are sent before the wait, not after it
        self._pump.take_turn(self._pump.clock() + timeout)

    def _next(self, room: str | None, timeout_s: float | None) -> Event | None:
        self._check_started()
        timeout_s = arguments.seconds_or_none("timeout", timeout_s)
        if not self._chat.has_event(room):
            self._pump.wait(lambda: self._chat.has_event(room), timeout_s)
        return self._take(room)

    def join(
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
        return self._join(room, start, last, timeout, own_queue=False)

    def _join(
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
        answer = Pending[Joined](self._pump)
        self._chat.join(room, start, last, answer, own_queue=own_queue)
        try:
            return self._answered(answer, timeout_s, "join")
        except BaseException:  # a timeout, a Ctrl-C, or a greenlet that is killed
            if not answer.done():
                self._chat.cancel_join(room, answer)
            raise

    def leave(self, room: str, *, timeout: float | None = None) -> Cursor | None:
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
        answer = Pending[None](self._pump)
        cursor = self._chat.leave(room, answer)
        self._answered(answer, timeout, "leave")
        return cursor

    def who(self, room: str, *, timeout: float | None = None) -> Members:
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
        answer = Pending[Members](self._pump)
        self._chat.who(room, answer)
        return self._asked(answer, timeout, "who")

    def history(
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
        answer = Pending[HistoryPage](self._pump)
        self._chat.history(room, forward, seq, count, answer)
        return self._asked(answer, timeout, "history")

    def search(
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
        answer = Pending[SearchPage](self._pump)
        self._chat.search(room, words, seq, count, answer)
        return self._asked(answer, timeout, "search")

    # --- sending ---------------------------------------------------------------------------------
    def send(
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
        return self._append(offer, timeout)

    def post(
        self,
        room: str,
        body: str | bytes,
        *,
        content_type: str = "text/plain",
        reply_to: LogEntry | Cursor | None = None,
        room_identity: bytes = b"",
        timeout: float | None = None,
    ) -> BlockingPost:
        """Append a message; wait only for space in the window.

        It is sent by the next call that waits or pumps, or once 64 have accumulated.

        Args:
            room: its name; it need not be joined. ``@`` and a name: a direct message.
            body: text, or bytes.
            content_type: of the body, at most 64 bytes.
            reply_to: the message of the same room that this one answers, or its cursor.
            room_identity: as for ``send``.
            timeout: seconds to wait for space; None: no limit.

        Returns:
            The outcome, to come. It may be dropped: ``flush`` reports the first failure.

        Raises:
            NameInvalid, MessageTooLong: nothing was sent.
            TimedOut: there was no space in time; nothing was sent.
            ClientError: the client has ended.
        """
        timeout = arguments.seconds_or_none("timeout", timeout)
        answer = BlockingPost(self._pump, reported=True)
        offer = offers.message(room, body, content_type, reply_to, room_identity)
        self._submit(offer, answer, timeout)
        self._pump.gathered += 1
        if self._pump.gathered >= GATHER_MAX:
            self._pump.settle()
        return answer

    def flush(self, timeout: float | None = None) -> None:
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
        self._pump.wait(lambda: not self.unacknowledged, timeout)
        self._check_flushed()

    def _append(self, offer: Offer, timeout_s: float | None) -> Stored:
        """Append something and wait until it is stored."""
        timeout_s = self._time_limit(timeout_s)
        until = None if timeout_s is None else self._pump.clock() + timeout_s
        answer = Pending[Stored](self._pump)
        self._submit(offer, answer, timeout_s)
        left = None if until is None else max(until - self._pump.clock(), 0.0)
        try:
            self._pump.wait(answer.done, left)
        finally:
            answer.reported = not answer.done()
        if not answer.done():
            raise not_acknowledged(timeout_s)
        return answer.result()

    def _submit(self, offer: Offer, answer: Pending[Stored], timeout_s: float | None) -> None:
        self._check_started()
        size = len(offer.body)
        sends = self._chat.sends
        if not sends.has_space(size):
            offer = self._chat.meant(offer)
            self._pump.wait(lambda: sends.has_space(size), timeout_s)
            if not sends.has_space(size) and not self._chat.over:
                raise not_sent(timeout_s)
        self._chat.send(offer, answer)

    # --- answers ---------------------------------------------------------------------------------
    def _answered(self, answer: Pending[Result], timeout_s: float | None, what: str) -> Result:
        self._pump.wait(answer.done, timeout_s)
        if not answer.done():
            raise no_answer(timeout_s, what)
        return answer.result()

    def _asked(self, answer: Pending[Result], timeout_s: float | None, what: str) -> Result:
        """Wait for the answer to a request; forget the request when the caller stops waiting."""
        try:
            return self._answered(answer, timeout_s, what)
        finally:
            if not answer.done():
                self._chat.requests.drop(answer)

    def _awaited(self) -> Pending[Any]:
        """Return an object for the answer to a request."""
        return Pending(self._pump)
