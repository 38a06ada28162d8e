"""The asyncio client, from ``connect`` to ``close``. Runs on any event loop and platform.

Usage::

    async with Client("relay://FINGERPRINT@HOST:PORT", name="alice") as client:
        async with client.room("lobby", last=20) as room:
            await room.send("hello")
            async for message in room:
                ...
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
from types import TracebackType
from typing import Self

from relay import forks
from relay.chat.entries import Cursor
from relay.client import arguments, fork
from relay.client.address import Address
from relay.client.aio.own import AsyncOwn
from relay.client.aio.pump import Pump
from relay.client.aio.room import Room
from relay.client.base import target
from relay.client.devices.credentials import KeyChoice
from relay.client.devices.device_key import DeviceKey
from relay.client.errors import ClientClosed, ConnectFailed
from relay.client.events import State
from relay.client.identity import Identity
from relay.client.options import CLOSE_S, CONNECT_S, make_options
from relay.client.trust.policy import KeyPolicy


class Client(AsyncOwn):
    """A client on an event loop. Use it within one loop, from any number of tasks."""

    def __init__(
        self,
        address: str | Address,
        *,
        name: str | None = None,
        key: DeviceKey | str | os.PathLike[str] | None = None,
        register: bool | None = None,
        invitation: str | None = None,
        enrol: bool = False,
        display: str = "",
        key_policy: KeyPolicy | None = None,
        identity: Identity | None = None,
        reconnect: bool = True,
        window: int = 256,
        retry_timeout_s: float | None = None,
        answer_timeout_s: float | None = None,
        agent: str = "",
    ) -> None:
        """Create; ``async with`` or ``connect`` connects.

        Args:
            address: ``relay://[FINGERPRINT@]HOST[:PORT]``.
            name: the handle, 2 to 32 of a-z, 0-9, _ and -; None: a guest, ``~guest-`` and a random
                number, if the server allows guests.
            key: the device's key, or the path of its file; None: the user's key for this server and
                name.
            register: claim the name if it is free, and create the key file if it does not exist;
                None: only if the environment contains ``RELAY_REGISTER=1``.
            invitation: for registering, if the server requires one.
            enrol: add the key as a device of the account, if one of its devices has approved it;
                otherwise ``connect`` raises KeyRefused.
            display: a free name shown to people in addition.
            key_policy: known servers, how to ask about unknown ones, and where device keys are;
                None: the user's own files, without asking.
            identity: a saved instance, with its counters; None: a new one.
            reconnect: reconnect after a lost connection or a close of 1000-1999.
            window: maximum number of unacknowledged sends; ``send`` and ``post`` wait for space.
            retry_timeout_s: how many seconds a send that the server refuses with BUSY or
                UNAVAILABLE is retried before that is its outcome; None: for ever. Other requests
                are retried for two minutes after BUSY and for 10 seconds after UNAVAILABLE, or for
                this time if it is longer.
            answer_timeout_s: how many seconds a call that is given no ``timeout`` waits for its
                answer, through lost connections as well, before it raises TimedOut; None: no limit.
                It does not concern ``post`` and ``flush``.
            agent: the name of this program.

        Raises:
            UsageError: the address, the known-servers file, or the invitation.
        """
        self.address, self._policy, expected_key = target(address, key_policy)
        options = make_options(
            name=name,
            identity=identity,
            key_choice=lambda own: KeyChoice(
                own, key, register, invitation, self._policy.keys, named=name is not None
            ),
            enrol=enrol,
            display=display,
            agent=agent,
            expected_key=expected_key,
            reconnect=reconnect,
            window=window,
            retry_timeout_s=retry_timeout_s,
            answer_timeout_s=answer_timeout_s,
            random_bytes=secrets.token_bytes,
            jitter=random.random,
        )
        super().__init__(options)
        self._pump = Pump(self._state, self.address, self._policy)
        forks.register(self)

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
        if kind is not None:
            await self._close(0.0)
            return
        await self._close(CLOSE_S)
        self._pump.unreported.raise_first()

    async def connect(self, timeout: float = CONNECT_S) -> None:
        """Connect and log in.

        Args:
            timeout: seconds. The time that a person takes to decide about a key is not counted.

        Raises:
            ConnectFailed: there is no server, or it took too long.
            ServerKeyError: the server's key is unknown, or differs from the pinned one.
            NoDeviceKey: the name requires a key.
            UsageError: of the key's file.
            ClientError: the login was refused, or the server does not speak the protocol.
            RuntimeError: it was connected in another event loop.
        """
        timeout = arguments.seconds("timeout", timeout)
        state, pump = self._state, self._pump
        pump.start()
        self._started = True
        until = pump.clock() + timeout
        try:
            while state.state not in (State.ONLINE, State.CLOSED):
                asking = state.key.undecided is not None
                try:
                    async with asyncio.timeout(None if asking else until - pump.clock()):
                        await pump.change()
                except TimeoutError:
                    state.fail(
                        state.last_problem or ConnectFailed(f"no answer from {self.address}")
                    )
                if asking:  # a person may take as long as needed
                    until = pump.clock() + timeout
            if state.state is State.CLOSED:
                await pump.stop()
        except asyncio.CancelledError:
            await pump.abandon()
            raise
        if state.state is State.CLOSED:
            raise state.error or ClientClosed("the client was closed")

    async def close(self, timeout: float = CLOSE_S) -> None:
        """Wait for unacknowledged sends, and end the connection cleanly.

        Args:
            timeout: seconds. Sends that are still unacknowledged then fail with ClientClosed.

        Never raises because of the connection. Failed posts whose outcome was not retrieved are
        logged as a WARNING; at the end of an ``async with``, the first failure is raised.
        """
        await self._close(arguments.seconds("timeout", timeout))
        self._pump.unreported.warn()

    async def _close(self, timeout: float) -> None:
        state, pump = self._state, self._pump
        if pump.close_elsewhere():
            return
        try:
            with contextlib.suppress(TimeoutError):
                if pump.started:
                    async with asyncio.timeout(timeout):
                        while self.unacknowledged and not pump.closed:
                            await pump.change()
            state.close(pump.clock())
            with contextlib.suppress(Exception):  # connect has raised it
                await pump.stop()
        except asyncio.CancelledError:
            await pump.abandon()
            raise

    # --- rooms -----------------------------------------------------------------------------------
    def room(
        self, name: str, last: int = 0, *, since: int | None = None, cursor: Cursor | None = None
    ) -> Room:
        """Return a room for ``async with``, which joins it and leaves it at the end.

        Its messages and other events are then taken from the room, not from the client.

        Args:
            name: of the room.
            last: how many of the last messages to deliver first.
            since: start after the message with this number; 0: with the first one.
            cursor: start after a saved cursor.

        Raises:
            NameInvalid: not the name of a room.
            TypeError, ValueError: an argument.
        """
        return Room(self, name, *arguments.join_start(last, since, cursor))
