"""Both faces behind one synchronous interface, so that each test is written once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from relay.chat.entries import Cursor
from relay.client.aio import Client
from relay.client.blocking import BlockingClient
from relay.client.events import Event, HistoryPage, Joined, Members, Stored
from relay.client.options import CONNECT_S

Result = TypeVar("Result")
WAIT_S = 60.0
"""For an event that must come."""


class Face(Protocol):
    """The operations of a client that tests use."""

    @property
    def client(self) -> Client | BlockingClient:
        """The client itself."""

    def connect(self, timeout: float = CONNECT_S) -> None:
        """Connect and log in."""

    def close(self) -> None:
        """Close."""

    def join(
        self, room: str, last: int = 0, since: int | None = None, cursor: Cursor | None = None
    ) -> Joined:
        """Join a room."""

    def leave(self, room: str) -> Cursor | None:
        """Leave."""

    def who(self, room: str) -> Members:
        """Return the members."""

    def history(
        self, room: str, before: int | None = None, after: int | None = None, count: int = 100
    ) -> HistoryPage:
        """Return a page."""

    def send(self, room: str, body: str | bytes, content_type: str = "text/plain") -> Stored:
        """Send and wait for the acknowledgement."""

    def post(self, room: str, body: str) -> Callable[[], Stored]:
        """Send; the returned function gives the outcome after ``flush``."""

    def flush(self) -> None:
        """Wait for all outcomes."""

    def next(self, timeout: float = WAIT_S) -> Event | None:
        """Return the next event, or None when there is none."""


class AioFace:
    """The asyncio face. Its loop runs only inside a call, as the blocking one's socket is read."""

    def __init__(self, runner: asyncio.Runner, address: str, options: dict[str, Any]) -> None:
        self._runner = runner
        self.client = Client(address, **options)

    def _run(self, what: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(what)

    def connect(self, timeout: float = CONNECT_S) -> None:
        self._run(self.client.connect(timeout))

    def close(self) -> None:
        self._run(self.client.close())

    def join(
        self, room: str, last: int = 0, since: int | None = None, cursor: Cursor | None = None
    ) -> Joined:
        return self._run(self.client.join(room, last, since=since, cursor=cursor))

    def leave(self, room: str) -> Cursor | None:
        return self._run(self.client.leave(room))

    def who(self, room: str) -> Members:
        return self._run(self.client.who(room))

    def history(
        self, room: str, before: int | None = None, after: int | None = None, count: int = 100
    ) -> HistoryPage:
        return self._run(self.client.history(room, before=before, after=after, count=count))

    def send(self, room: str, body: str | bytes, content_type: str = "text/plain") -> Stored:
        return self._run(self.client.send(room, body, content_type=content_type))

    def post(self, room: str, body: str) -> Callable[[], Stored]:
        return self._run(self.client.post(room, body)).result

    def flush(self) -> None:
        self._run(self.client.flush())

    def next(self, timeout: float = WAIT_S) -> Event | None:
        return self._run(self.client.next_event(timeout))


class BlockingFace:
    """The blocking face."""

    def __init__(self, runner: asyncio.Runner, address: str, options: dict[str, Any]) -> None:
        self.client = BlockingClient(address, **options)

    def connect(self, timeout: float = CONNECT_S) -> None:
        self.client.connect(timeout)

    def close(self) -> None:
        self.client.close()

    def leave(self, room: str) -> Cursor | None:
        return self.client.leave(room)

    def who(self, room: str) -> Members:
        return self.client.who(room)

    def flush(self) -> None:
        self.client.flush()

    def join(
        self, room: str, last: int = 0, since: int | None = None, cursor: Cursor | None = None
    ) -> Joined:
        return self.client.join(room, last, since=since, cursor=cursor)

    def history(
        self, room: str, before: int | None = None, after: int | None = None, count: int = 100
    ) -> HistoryPage:
        return self.client.history(room, before=before, after=after, count=count)

    def send(self, room: str, body: str | bytes, content_type: str = "text/plain") -> Stored:
        return self.client.send(room, body, content_type=content_type)

    def post(self, room: str, body: str) -> Callable[[], Stored]:
        return self.client.post(room, body).result

    def next(self, timeout: float = WAIT_S) -> Event | None:
        return self.client.next_event(timeout)


FACES: dict[str, type[AioFace] | type[BlockingFace]] = {"aio": AioFace, "blocking": BlockingFace}
