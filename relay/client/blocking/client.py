"""The blocking client, over a plain socket, from ``connect`` to ``close``. No loop, no threads.

It reads its socket only while one of its methods runs: ``events``, ``pump``, or a call that waits
for an answer. A program that calls none of them for a minute loses its connection, and resumes with
the next call. Under gevent (patched before this is imported) several greenlets may share a client:
a greenlet that waits for an answer reads for all of them. It is not thread-safe.

Usage::

    with BlockingClient("relay://FINGERPRINT@HOST:PORT", name="alice") as client:
        with client.room("lobby", last=20) as room:
            room.send("hello")
            for message in room:
                ...
"""

from __future__ import annotations

import os
import random
import secrets
from types import TracebackType
from typing import Self

from relay import forks
from relay.chat.entries import Cursor
from relay.client import arguments, fork
from relay.client.address import Address
from relay.client.base import target
from relay.client.blocking.own import BlockingOwn
from relay.client.blocking.pump import Dial, Pump
from relay.client.blocking.room import BlockingRoom
from relay.client.devices.credentials import KeyChoice
from relay.client.devices.device_key import DeviceKey
from relay.client.errors import ClientClosed, ConnectFailed
from relay.client.events import State
from relay.client.identity import Identity
from relay.client.options import CLOSE_S, CONNECT_S, LINGER_S, make_options
from relay.client.trust.policy import KeyPolicy


class BlockingClient(BlockingOwn):
    """A client on a plain socket. The same names and behaviour as ``Client``."""

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
        dial: Dial | None = None,
    ) -> None:
        """Create; ``with`` or ``connect`` connects.

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
            dial: opens each TCP connection, within a number of seconds, or raises OSError: for
                another source address, or for a proxy.

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
        self._pump = Pump(self._state, self.address, self._policy, dial)
        forks.register(self)

    def _forked(self) -> None:
        self._pump.forked()
        self._state.forked(fork.forked_error())

    # --- life ------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._close(0.0)
            return
        self._close(CLOSE_S)
        self._pump.unreported.raise_first()

    def connect(self, timeout: float = CONNECT_S) -> None:
        """Connect and log in.

        Args:
            timeout: seconds. The time that a person takes to decide about a key is not counted.

        Raises:
            ConnectFailed: there is no server, or it took too long.
            ServerKeyError: the server's key is unknown, or differs from the pinned one.
            NoDeviceKey: the name requires a key.
            UsageError: of the key's file.
            ClientError: the login was refused, or the server does not speak the protocol.
        """
        timeout = arguments.seconds("timeout", timeout)
        pump = self._pump
        state = self._state
        self._started = True
        try:
            until = pump.clock() + timeout
            while state.state is not State.CLOSED and state.state is not State.ONLINE:
                left = until + pump.asked_s - pump.clock()
                if left <= 0:
                    break
                pump.wait(lambda: state.state is State.ONLINE, left)
        except BaseException:
            state.close(pump.clock())
            pump.settle()
            state.fail(ClientClosed("the client was closed"))
            pump.drop_socket()
            raise
        if state.state is not State.ONLINE:
            state.fail(state.last_problem or ConnectFailed(f"no answer from {self.address}"))
            pump.settle()
            raise state.error or ClientClosed("the client was closed")

    def close(self, timeout: float = CLOSE_S) -> None:
        """Wait for unacknowledged sends, and end the connection cleanly.

        Args:
            timeout: seconds. Sends that are still unacknowledged then fail with ClientClosed.

        Never raises because of the connection. Failed posts whose outcome was not retrieved are
        logged as a WARNING; at the end of a ``with``, the first failure is raised.
        """
        self._close(arguments.seconds("timeout", timeout))
        self._pump.unreported.warn()

    def _close(self, timeout: float) -> None:
        pump = self._pump
        state = self._state
        try:
            if pump.connected or state.connect_at is not None:
                pump.wait(lambda: not self.unacknowledged, timeout)
        finally:
            state.close(pump.clock())
            pump.settle()
            pump.wait(lambda: not pump.connected, LINGER_S)
            pump.drop_socket()

    # --- rooms -----------------------------------------------------------------------------------
    def room(
        self, name: str, last: int = 0, *, since: int | None = None, cursor: Cursor | None = None
    ) -> BlockingRoom:
        """Return a room for ``with``, which joins it and leaves it at the end.

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
        return BlockingRoom(self, name, *arguments.join_start(last, since, cursor))
