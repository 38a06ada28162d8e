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
import inspect
import random
import secrets
import time
from collections import deque
from types import TracebackType
from typing import Any, Self, cast

from relay.chat.entries import Cursor
from relay.client.address import Address, parse_address
from relay.client.aio_transport import ClientProtocol
from relay.client.errors import ClientError, ConnectFailed
from relay.client.events import Event, HistoryPage, Joined, Members, State, Stored
from relay.client.identity import Identity
from relay.client.options import CLOSE_S, CONNECT_S, DIAL_S, join_start, make_options, page_start
from relay.client.state import ClientState
from relay.client.trust import KeyPolicy


class Client:
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
        self._clock = time.monotonic
        self._pump: ClientProtocol | None = None
        """The protocol of the socket; None between connections."""
        self._dialler: asyncio.Task[None] | None = None
        """Connects, and connects again; None before ``connect``."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._flush_due = False
        self._reader: asyncio.Future[None] | None = None
        """Whoever waits for an event."""
        self._room: deque[tuple[int, asyncio.Future[None]]] = deque()
        """Senders that wait for the window, with the size of their message."""
        self._changed: set[asyncio.Future[None]] = set()
        """Whoever waits for a change of the state, or for the last acknowledgement."""
        self._failed_post: ClientError | None = None

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
        if self._dialler is None:
            self._dialler = asyncio.create_task(self._dial(), name="relay client")
        try:
            async with asyncio.timeout(timeout_s):
                while self._state.state not in (State.ONLINE, State.CLOSED):
                    await self._change()
        except TimeoutError:
            problem = self._state.last_problem or ConnectFailed(f"no answer from {self.address}")
            self._state.fail(problem)
            self._after_input()
        except BaseException:
            self._state.close(self._clock())
            self._after_input()
            raise
        if self._state.state is State.CLOSED:
            await self._dialler
            raise self._state.error or ConnectFailed("the client was closed")

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Wait for unacknowledged sends, at most so long, and end the connection cleanly.

        What is unacknowledged after that fails with ClientClosed. Never raises for the connection.
        """
        state = self._state
        if self._dialler is None:
            state.close(self._clock())
            return
        try:
            async with asyncio.timeout(timeout_s):
                while state.unacknowledged and state.state is not State.CLOSED:
                    await self._change()
        except TimeoutError:
            pass
        finally:
            state.close(self._clock())
            self._after_input()
        if self._pump is None:
            self._dialler.cancel()  # in the middle of a dial, or of a question to a person
        await asyncio.wait({self._dialler})
        self._dialler.cancelled() or self._dialler.exception()

    @property
    def name(self) -> str:
        """The handle, as the server spells it."""
        return self._state.name

    @property
    def state(self) -> State:
        """Where the client is."""
        return self._state.state

    @property
    def server_fingerprint(self) -> str | None:
        """Of the server's key; None before it is known."""
        return self._state.server_fingerprint

    @property
    def cursors(self) -> dict[str, Cursor]:
        """For each log that is followed, the last entry taken from the iterator: save these."""
        return self._state.cursors

    @property
    def identity(self) -> Identity:
        """Who this instance is, with its counters as they stand: save it, and keep it secret."""
        return self._state.identity

    @property
    def unacknowledged(self) -> int:
        """Sends without an outcome."""
        return self._state.unacknowledged

    @property
    def statistics(self) -> dict[str, int]:
        """Counts since the start: logins, resent, repeats."""
        return self._state.statistics

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
            paused = state.reading_paused
            event = state.take()
            if event is not None:
                if paused and not state.reading_paused:
                    self._flush()
                return event
            if state.state is State.CLOSED:
                if state.error is not None:
                    raise state.error
                raise StopAsyncIteration
            if self._reader is not None:
                raise RuntimeError("another task iterates over this client already")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    async def join(
        self, log: str, last: int = 0, *, since: int | None = None, cursor: Cursor | None = None
    ) -> Joined:
        """Follow a log: its last entries, or those after a seq or a cursor, and what comes.

        Raises:
            Refused: NameInvalid, AlreadyJoined, LimitReached, ...
            ClientError: the client has ended.
        """
        answer = self._token()
        self._state.join(log, join_start(since, cursor), last, answer)
        return cast(Joined, await self._answered(answer))

    async def leave(self, log: str) -> Cursor | None:
        """Stop following. Events of the log that were not taken are dropped.

        Returns:
            Where the program stood, to ``join(cursor=...)`` later.
        """
        answer = self._token()
        cursor = self._state.leave(log, answer)
        await self._answered(answer)
        return cursor

    async def who(self, log: str) -> Members:
        """Return who follows a log. It must be joined."""
        answer = self._token()
        self._state.who(log, answer)
        return cast(Members, await self._answered(answer))

    async def history(
        self, log: str, *, before: int | None = None, after: int | None = None, count: int = 100
    ) -> HistoryPage:
        """Return a page of a joined log: below ``before``, above ``after``, or the newest."""
        answer = self._token()
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
        if not self._state.has_room(len(data)) or self._room:
            await self._wait_for_room(len(data))
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
        if not self._state.has_room(len(data)) or self._room:
            await self._wait_for_room(len(data))
        answer = _Post(loop=asyncio.get_running_loop())
        self._submit(log, content_type, data, answer)
        return answer

    async def flush(self) -> None:
        """Wait until every send has its outcome.

        Raises:
            ClientError: the first failure of a post since the last ``flush``.
        """
        while self._state.unacknowledged:
            await self._change()
        failed, self._failed_post = self._failed_post, None
        if failed is not None:
            raise failed

    def _submit(self, log: str, content_type: str, body: bytes, answer: object) -> None:
        try:
            self._state.send(log, content_type, body, answer)
        finally:
            if self._room:
                self._give_room()
        self._flush_soon()

    async def _wait_for_room(self, size: int) -> None:
        """Wait in line until the window takes a message of this size."""
        while not self._closed:
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append((size, room))
            try:
                await room
            except BaseException:
                self._give_room()  # it may have been this one's turn
                raise
            if self._state.has_room(size):
                return

    # --- the pump --------------------------------------------------------------------------------
    def _token(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    async def _answered(self, answer: asyncio.Future[Any]) -> object:
        self._flush_soon()
        return await answer

    async def _change(self) -> None:
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.add(change)
        try:
            await change
        finally:
            self._changed.discard(change)

    def _flush_soon(self) -> None:
        """Write once at the end of this loop turn, whatever is sent in it."""
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        state = self._state
        data = state.data_to_send(self._clock())
        pump = self._pump
        if pump is not None:
            if data:
                pump.write(data)
            if not state.connected:
                pump.end()
            else:
                pump.pause(state.reading_paused)
        self._arm()

    def _after_input(self) -> None:
        """Hand out what has come, write what is due, look at the clock."""
        state = self._state
        for token, result in state.answers():
            answer = cast("asyncio.Future[Any]", token)
            if type(answer) is _Post and isinstance(result, ClientError):
                self._failed_post = self._failed_post or result
            if answer.done():
                continue
            if isinstance(result, ClientError):
                answer.set_exception(result)
                answer.exception()  # it may be dropped: no complaint about that
            else:
                answer.set_result(result)
        if self._room:
            self._give_room()
        if self._reader is not None and not self._reader.done() and state.has_event:
            self._reader.set_result(None)
        for change in self._changed:
            if not change.done():
                change.set_result(None)
        self._flush()

    def _give_room(self) -> None:
        """Wake the first sender in line, if there is room. It wakes the next one in turn."""
        while self._room:
            size, room = self._room[0]
            if not room.done() and not self._closed and not self._state.has_room(size):
                return
            self._room.popleft()
            if not room.done():
                room.set_result(None)
                if not self._closed:
                    return

    def _arm(self) -> None:
        """Have one timer, due not later than the state's deadline."""
        deadline = self._state.next_deadline()
        if deadline is None or (self._timer is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = asyncio.get_running_loop().call_later(
            max(0.0, deadline - self._clock()), self._on_timer
        )

    def _on_timer(self) -> None:
        self._timer = None
        self._state.handle_deadline(self._clock())
        self._after_input()

    async def _dial(self) -> None:
        """Connect, and connect again, until the client is closed."""
        state = self._state
        try:
            while state.state is not State.CLOSED:
                if state.connect_at is not None:
                    await self._sleep(state.connect_at - self._clock())
                if not self._closed:
                    state.dialling()
                    await self._run_connection()
                    if state.undecided_key is not None:
                        await self._decide(state.undecided_key)
        except Exception as error:
            state.fail(ClientError(str(error)))
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._after_input()

    async def _run_connection(self) -> None:
        """Open one connection and stay with it to its end."""
        state, address = self._state, self.address
        loop = asyncio.get_running_loop()
        pump = ClientProtocol(state, self._clock, self._after_input)
        try:
            async with asyncio.timeout(DIAL_S):
                await loop.create_connection(lambda: pump, address.host, address.port)
        except (OSError, TimeoutError) as error:
            why = "timed out" if isinstance(error, TimeoutError) else error.strerror or str(error)
            problem = ConnectFailed(f"cannot connect to {address.host}, port {address.port}: {why}")
            state.connect_failed(problem, self._clock())
            self._after_input()
            return
        except asyncio.CancelledError:
            pump.abort()  # it may just have been connected
            raise
        self._pump = pump
        self._after_input()
        try:
            await pump.gone
        finally:
            self._pump = None

    async def _decide(self, fingerprint: str) -> None:
        """Ask about an unknown key. No connection is held meanwhile."""
        yes = self._policy.question(self.address, fingerprint)
        if inspect.isawaitable(yes):
            yes = await yes
        refusal = self._policy.answer(self.address, fingerprint, bool(yes))
        if self._closed:
            return
        if refusal is None:
            self._state.trust_key(fingerprint)
        else:
            self._state.fail(refusal)

    async def _sleep(self, delay_s: float) -> None:
        """Wait, but not beyond the client's end."""
        try:
            async with asyncio.timeout(max(0.0, delay_s)):
                while not self._closed:
                    await self._change()
        except TimeoutError:
            pass

    @property
    def _closed(self) -> bool:
        return self._state.state is State.CLOSED


class _Post(asyncio.Future[Stored]):
    """The future of a ``post``, whose failure ``flush`` reports."""
