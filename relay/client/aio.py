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
from relay.client.address import Address, parse_address
from relay.client.aio_pump import Post, Pump
from relay.client.errors import ConnectFailed
from relay.client.events import Event, HistoryPage, Joined, Members, State, Stored
from relay.client.face import Face
from relay.client.identity import Identity
from relay.client.options import CLOSE_S, CONNECT_S, join_start, make_options, page_start
from relay.client.state import ClientState
from relay.client.trust import KeyPolicy


class Client(Face):
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
        patience_s: float | None = None,
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
            window: unacknowledged sends at most; ``send`` and ``post`` wait for room.
            patience_s: how long BUSY and UNAVAILABLE are tried again before they are the outcome
                of a send; None: as long as it takes.
            agent: what this program calls itself.

        Raises:
            UsageError: the address, or the known-servers file.
        """
        self.address = parse_address(address) if isinstance(address, str) else address
        self._policy = KeyPolicy() if key_policy is None else key_policy
        options = make_options(
            name=name,
            identity=identity,
            display=display,
            agent=agent,
            expected_key=self._policy.expected(self.address),
            reconnect=reconnect,
            window=window,
            patience_s=patience_s,
            random_bytes=secrets.token_bytes,
            jitter=random.random,
        )
        self._state = ClientState(options)
        self._pump = Pump(self._state, self.address, self._policy)

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
        state, pump = self._state, self._pump
        pump.start()
        until = pump.clock() + timeout_s
        try:
            while state.state not in (State.ONLINE, State.CLOSED):
                asking = state.undecided_key is not None
                async with asyncio.timeout(None if asking else until - pump.clock()):
                    await pump.change()
                if asking:  # a person may take their time
                    until = pump.clock() + timeout_s
        except TimeoutError:
            state.fail(state.last_problem or ConnectFailed(f"no answer from {self.address}"))
        except BaseException:
            state.close(pump.clock())
            await asyncio.shield(pump.stop())
            raise
        if state.state is State.CLOSED:
            await pump.stop()
            raise state.error or ConnectFailed("the client was closed")

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Wait for unacknowledged sends, at most so long, and end the connection cleanly.

        What is unacknowledged after that fails with ClientClosed. Never raises for the connection.
        """
        state, pump = self._state, self._pump
        try:
            if pump.started:
                async with asyncio.timeout(timeout_s):
                    while state.unacknowledged and not pump.closed:
                        await pump.change()
        except TimeoutError:
            pass
        finally:
            state.close(pump.clock())
            with contextlib.suppress(Exception):  # connect has told it
                await pump.stop()

    # --- reading ---------------------------------------------------------------------------------
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event.

        A program that takes none for a while stops the socket from being read, acknowledgements
        included: take events while you send to a log that you follow.

        Raises:
            StopAsyncIteration: the client was closed by ``close``.
            ClientError: it has ended for another reason.
        """
        state = self._state
        while True:
            event = state.take()
            if state.flush_due:
                self._pump.settle()
            if event is not None:
                return event
            if state.state is State.CLOSED:
                if state.error is not None:
                    raise state.error
                raise StopAsyncIteration
            await self._pump.event()

    async def join(
        self, log: str, last: int = 0, *, since: int | None = None, cursor: Cursor | None = None
    ) -> Joined:
        """Follow a log: its last entries, or those after a seq or a cursor, and what comes.

        Raises:
            Refused: NameInvalid, AlreadyJoined, LimitReached, ...
            ClientError: the client has ended.
        """
        answer = _future()
        self._state.join(log, join_start(since, cursor), last, answer)
        return cast(Joined, await self._answered(answer))

    async def leave(self, log: str) -> Cursor | None:
        """Stop following. Events of the log that were not taken are dropped.

        Returns:
            Where the program stood, to ``join(cursor=...)`` later.
        """
        answer = _future()
        cursor = self._state.leave(log, answer)
        await self._answered(answer)
        return cursor

    async def who(self, log: str) -> Members:
        """Return who follows a log. It must be joined."""
        answer = _future()
        self._state.who(log, answer)
        return cast(Members, await self._answered(answer))

    async def history(
        self, log: str, *, before: int | None = None, after: int | None = None, count: int = 100
    ) -> HistoryPage:
        """Return a page of a joined log: below ``before``, above ``after``, or the newest."""
        answer = _future()
        forward, seq = page_start(before, after)
        self._state.history(log, forward, seq, count, answer)
        return cast(HistoryPage, await self._answered(answer))

    # --- sending ---------------------------------------------------------------------------------
    async def send(
        self, log: str, body: str | bytes, *, content_type: str = "text/plain"
    ) -> Stored:
        """Append a message and wait until it is stored.

        Raises:
            Refused: IdConflict, UnknownOutcome, Busy (only with ``patience_s``), NameInvalid, ...
            MessageTooLong: nothing was sent.
            ClientError: the client has ended; the message may or may not be stored.
        """
        data = body.encode() if isinstance(body, str) else body
        if self._pump.crowded or not self._state.has_room(len(data)):
            await self._pump.wait_for_room(len(data))
        answer: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._submit(log, content_type, data, answer)
        return await answer

    async def post(
        self, log: str, body: str | bytes, *, content_type: str = "text/plain"
    ) -> asyncio.Future[Stored]:
        """Append a message; wait only for room in the window.

        Returns:
            A future of the outcome. It may be dropped: ``flush`` reports the first failure.

        Raises:
            NameInvalid, MessageTooLong: nothing was sent.
            ClientError: the client has ended.
        """
        data = body.encode() if isinstance(body, str) else body
        if self._pump.crowded or not self._state.has_room(len(data)):
            await self._pump.wait_for_room(len(data))
        answer = Post(loop=asyncio.get_running_loop())
        self._submit(log, content_type, data, answer)
        return answer

    async def flush(self) -> None:
        """Wait until every send has its outcome.

        Raises:
            ClientError: the first failure of a post since the last ``flush``.
        """
        while self._state.unacknowledged:
            await self._pump.change()
        failed, self._pump.failed_post = self._pump.failed_post, None
        if failed is not None:
            raise failed

    def _submit(self, log: str, content_type: str, body: bytes, answer: object) -> None:
        try:
            self._state.send(log, content_type, body, answer)
        finally:
            self._pump.sent()

    async def _answered(self, answer: asyncio.Future[Any]) -> object:
        self._pump.sent()
        return await answer


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()
