"""The asyncio client: a thin pump around ``state``. Runs on any event loop and platform.

Usage::

    async with Client("relay://FINGERPRINT@HOST:PORT", name="alice") as client:
        await client.join("lobby", last=20)
        await client.send("lobby", "hello")
        async for event in client:
            ...
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from types import TracebackType
from typing import Any, Self, cast

from relay.chat.entries import Cursor
from relay.client import arguments, fork
from relay.client.address import Address
from relay.client.aio_pump import Post, Pump
from relay.client.errors import ConnectFailed
from relay.client.events import Event, HistoryPage, Joined, Members, State, Stored
from relay.client.base import ClientBase, target
from relay.client.identity import Identity
from relay.client.options import CLOSE_S, CONNECT_S, make_options
from relay.client.state import ClientState
from relay.client.trust import KeyPolicy


class Client(ClientBase):
    """A client on an event loop. Use it within one loop, from any number of tasks."""

    def __init__(
        self,
        address: str | Address,
        *,
        name: str | None = None,
        display: str = "",
        key_policy: KeyPolicy | None = None,
        identity: Identity | None = None,
        reconnect: bool = True,
        window: int = 256,
        retry_timeout_s: float | None = None,
        agent: str = "",
    ) -> None:
        """Prepare; ``async with`` or ``connect`` connects.

        Args:
            address: ``relay://[FINGERPRINT@]HOST[:PORT]``.
            name: the handle, 2 to 32 of a-z, 0-9, _ and -; None: ``guest-`` and a random number.
            display: a free name that people see besides it.
            key_policy: known servers and whom to ask; None: the user's file, and nobody.
            identity: a saved instance, with its counters; None: a new one.
            reconnect: connect again after a lost connection or a close of 1000-1999.
            window: unacknowledged sends at most; ``send`` and ``post`` wait for space.
            retry_timeout_s: how long BUSY and UNAVAILABLE are tried again before they are the outcome
                of a send; None: as long as it takes.
            agent: what this program calls itself.

        Raises:
            UsageError: the address, or the known-servers file.
        """
        self.address, self._policy, expected_key = target(address, key_policy)
        options = make_options(
            name=name,
            identity=identity,
            display=display,
            agent=agent,
            expected_key=expected_key,
            reconnect=reconnect,
            window=window,
            retry_timeout_s=retry_timeout_s,
            random_bytes=secrets.token_bytes,
            jitter=random.random,
        )
        self._state = ClientState(options)
        self._pump = Pump(self._state, self.address, self._policy)
        fork.register(self)

    def _forked(self) -> None:
        self._state.forked(fork.forked_error())
        self._pump.forked()

    # --- life ------------------------------------------------------------------------------------
    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close(0.0 if kind is not None else CLOSE_S)

    async def connect(self, timeout_s: float = CONNECT_S) -> None:
        """Connect and log in.

        Raises:
            ConnectFailed: nothing listens there, or it took too long.
            ServerKeyError: the server's key is unknown, or not the pinned one.
            ClientError: the login was refused, or the server does not speak the protocol.
        """
        timeout_s = arguments.seconds("timeout_s", timeout_s)
        state, pump = self._state, self._pump
        self._started = True
        pump.start()
        until = pump.clock() + timeout_s
        try:
            while state.state not in (State.ONLINE, State.CLOSED):
                asking = state.undecided_key is not None
                try:
                    async with asyncio.timeout(None if asking else until - pump.clock()):
                        await pump.change()
                except TimeoutError:
                    state.fail(
                        state.last_problem or ConnectFailed(f"no answer from {self.address}")
                    )
                if asking:  # a person may take their time
                    until = pump.clock() + timeout_s
            if state.state is State.CLOSED:
                await pump.stop()
        except asyncio.CancelledError:
            await pump.abandon()
            raise
        if state.state is State.CLOSED:
            raise state.error or ConnectFailed("the client was closed")

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Wait for unacknowledged sends, at most so long, and end the connection cleanly.

        What is unacknowledged after that fails with ClientClosed. Never raises for the connection.
        """
        timeout_s = arguments.seconds("timeout_s", timeout_s)
        state, pump = self._state, self._pump
        try:
            with contextlib.suppress(TimeoutError):
                if pump.started:
                    async with asyncio.timeout(timeout_s):
                        while state.unacknowledged and not pump.closed:
                            await pump.change()
            state.close(pump.clock())
            with contextlib.suppress(Exception):  # connect has told it
                await pump.stop()
        except asyncio.CancelledError:
            await pump.abandon()
            raise

    # --- reading ---------------------------------------------------------------------------------
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event.

        A program that takes none for a while stops the socket from being read, acknowledgements
        included: take events while you send to a room that you follow.

        Raises:
            StopAsyncIteration: the client was closed by ``close``.
            ClientError: it has ended for another reason.
        """
        self._check_started()
        state = self._state
        while True:
            paused = state.reading_paused
            event = state.take()
            if event is not None:
                if paused and not state.reading_paused:
                    self._pump.flush()
                return event
            if state.state is State.CLOSED:
                if state.error is not None:
                    raise state.error
                raise StopAsyncIteration
            await self._pump.event()

    async def join(
        self, room: str, last: int = 0, *, since: int | None = None, cursor: Cursor | None = None
    ) -> Joined:
        """Follow a room: its last entries, or those after a seq or a cursor, and what comes.

        Raises:
            Refused: NameInvalid, AlreadyJoined, LimitReached, ...
            TypeError, ValueError: an argument; nothing was sent.
            ClientError: the client has ended, or was not connected.
        """
        self._check_started()
        start, last = arguments.join_start(last, since, cursor)
        answer = _future()
        self._state.join(room, start, last, answer)
        try:
            return cast(Joined, await self._answered(answer))
        except asyncio.CancelledError:
            self._state.cancel_join(room, answer)
            self._pump.sent()
            raise

    async def leave(self, room: str) -> Cursor | None:
        """Stop following. Events of the room that were not taken are dropped.

        Returns:
            Where the program stood, to ``join(cursor=...)`` later.
        """
        self._check_started()
        answer = _future()
        cursor = self._state.leave(room, answer)
        await self._answered(answer)
        return cursor

    async def who(self, room: str) -> Members:
        """Return who follows a room. It must be joined."""
        self._check_started()
        answer = _future()
        self._state.who(room, answer)
        return cast(Members, await self._answered(answer))

    async def history(
        self, room: str, *, before: int | None = None, after: int | None = None, count: int = 100
    ) -> HistoryPage:
        """Return a page of a joined room: below ``before``, above ``after``, or the newest."""
        self._check_started()
        forward, seq, count = arguments.page_start(before, after, count)
        answer = _future()
        self._state.history(room, forward, seq, count, answer)
        return cast(HistoryPage, await self._answered(answer))

    # --- sending ---------------------------------------------------------------------------------
    async def send(
        self, room: str, body: str | bytes, *, content_type: str = "text/plain"
    ) -> Stored:
        """Append a message and wait until it is stored.

        Raises:
            Refused: IdConflict, UnknownOutcome, Busy (only with ``retry_timeout_s``), NameInvalid, ...
            MessageTooLong: nothing was sent.
            ClientError: the client has ended; the message may or may not be stored.
        """
        self._check_started()
        data = arguments.body_bytes(body)
        if self._pump.crowded or not self._state.has_space(len(data)):
            await self._pump.wait_for_space(len(data))
        answer: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._submit(room, content_type, data, answer)
        return await answer

    async def post(
        self, room: str, body: str | bytes, *, content_type: str = "text/plain"
    ) -> asyncio.Future[Stored]:
        """Append a message; wait only for space in the window.

        Returns:
            A future of the outcome. It may be dropped: ``flush`` reports the first failure.

        Raises:
            NameInvalid, MessageTooLong: nothing was sent.
            ClientError: the client has ended.
        """
        self._check_started()
        data = arguments.body_bytes(body)
        if self._pump.crowded or not self._state.has_space(len(data)):
            await self._pump.wait_for_space(len(data))
        answer = Post(loop=asyncio.get_running_loop())
        self._submit(room, content_type, data, answer)
        return answer

    async def flush(self) -> None:
        """Wait until every send has its outcome.

        Raises:
            ClientError: the first failure of a post since the last ``flush``.
        """
        self._check_started()
        while self._state.unacknowledged:
            await self._pump.change()
        failed, self._pump.failed_post = self._pump.failed_post, None
        if failed is not None:
            raise failed

    def _submit(self, room: str, content_type: str, body: bytes, answer: object) -> None:
        try:
            self._state.send(room, content_type, body, answer)
        finally:
            self._pump.sent()

    async def _answered(self, answer: asyncio.Future[Any]) -> object:
        self._pump.sent()
        return await answer


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()
