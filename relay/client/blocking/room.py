# Generated from relay/client/aio by `python -m tests.blocking_client`: edit that.
"""One room of a client: joined for the duration of a ``with`` block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from relay.chat.entries import Cursor
from relay.client.base import RoomBase, message_of
from relay.client.blocking.calls import BlockingCalls
from relay.client.blocking.posts import BlockingPost
from relay.client.errors import ClientError
from relay.client.events import (
    Event,
    HistoryPage,
    LogEntry,
    Members,
    Message,
    SearchPage,
    Stored,
)
from relay.client.options import CLOSE_S


class BlockingRoom(RoomBase[BlockingCalls]):
    """A room, from ``room`` of a client. A ``with`` joins it, and leaves it at the end.

    Iterating over it yields its messages, ``events`` everything about it; the client's own iterator
    then does not include these. For an asyncio client write ``async with``, ``async for`` and
    ``await``.
    """

    def __enter__(self) -> Self:
        self._calls._join(self.name, self._start, self._last, None, own_queue=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The client, or the room, may have ended already; after an error nothing is waited for.
        with contextlib.suppress(ClientError):
            self._calls.leave(self.name, timeout=0.0 if kind is not None else CLOSE_S)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        """Return the next message; ends when the client was closed, or the room left.

        Raises:
            MessagesMissing: a gap comes first. The iteration may continue.
            NotAMember: the server no longer lets this client be in the room.
            ClientError: the client has ended for another reason.
        """
        while (event := self._calls._next(self.name, None)) is not None:
            if (message := message_of(event)) is not None:
                return message
        raise StopIteration

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield the room's events, until it is left or none arrives for ``timeout`` seconds."""
        while (event := self.next_event(timeout)) is not None:
            yield event

    def next_event(self, timeout: float | None = None) -> Event | None:
        """Return the room's next event; None if none arrives in time (seconds), or it was left."""
        return self._calls._next(self.name, timeout)

    def send(
        self,
        body: str | bytes,
        *,
        content_type: str = "text/plain",
        reply_to: LogEntry | Cursor | None = None,
        timeout: float | None = None,
    ) -> Stored:
        """Append a message and wait until it is stored, as the client's ``send`` does."""
        return self._calls.send(
            self.name, body, content_type=content_type, reply_to=reply_to, timeout=timeout
        )

    def post(
        self,
        body: str | bytes,
        *,
        content_type: str = "text/plain",
        reply_to: LogEntry | Cursor | None = None,
        timeout: float | None = None,
    ) -> BlockingPost:
        """Append a message; wait only for space in the window, as the client's ``post`` does."""
        return self._calls.post(
            self.name, body, content_type=content_type, reply_to=reply_to, timeout=timeout
        )

    def who(self, *, timeout: float | None = None) -> Members:
        """Return who is here, as the client's ``who`` does."""
        return self._calls.who(self.name, timeout=timeout)

    def history(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        count: int = 100,
        timeout: float | None = None,
    ) -> HistoryPage:
        """Return a page of the room, as the client's ``history`` does."""
        return self._calls.history(
            self.name, before=before, after=after, count=count, timeout=timeout
        )

    def search(
        self,
        text: str,
        *,
        before: int | None = None,
        count: int = 50,
        timeout: float | None = None,
    ) -> SearchPage:
        """Return messages of the room that contain these words, as the client's ``search`` does."""
        return self._calls.search(self.name, text, before=before, count=count, timeout=timeout)
