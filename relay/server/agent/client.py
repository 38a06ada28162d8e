"""A worker's side of the key agent: ciphertexts in, secrets out, over one connection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, cast

from relay.errors import RelayError
from relay.local_sockets import credentials
from relay.server.agent.protocol import (
    AgentProtocolError,
    FrameReader,
    Kind,
    pack_unwrap,
)

REQUEST_DEADLINE_S: Final = 1.0
"""Invariant "The key agent holds the keys". A second attempt after a lost connection shares it."""
CONNECT_DEADLINE_S: Final = 10.0
"""At the start of a worker: an agent that is being replaced is back by then."""
RETRY_S: Final = 0.02
"""Between attempts to connect while the agent is being replaced."""
PENDING_MAX: Final = 4096
"""Requests of one worker that wait for an answer; each has at most a deadline's life."""


class AgentUnavailable(RelayError):
    """The key agent did not unwrap a secret: it is gone, hung, or sheds load."""


class _Disconnected(Exception):
    """The connection ended before the answer."""


class AgentClient:
    """One connection to the key agent, made anew when it is lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spki: bytes | None = None
        """None until the first connection."""
        self._link: _Link | None = None
        """None when not connected."""
        self._connecting: asyncio.Task[_Link] | None = None
        """The attempt that all requests share, if one runs."""
        self._closed = False

    @property
    def spki(self) -> bytes:
        """The server's public key. Known once ``connect`` returned."""
        if self._spki is None:
            raise AgentUnavailable("the key agent was never reached")
        return self._spki

    async def connect(self, deadline_s: float = CONNECT_DEADLINE_S) -> None:
        """Connect, and learn the public key. Tries until the deadline.

        Raises:
            AgentUnavailable: not reached in time.
        """
        try:
            async with asyncio.timeout(deadline_s):
                await self._connected()
        except TimeoutError:
            raise AgentUnavailable("the key agent cannot be reached") from None

    async def unwrap(self, ciphertext: bytes, source: str) -> bytes:
        """Return the 32-byte secret in a ciphertext; ``source`` is the client's address.

        A ciphertext that is no good gives 32 random bytes, not an error (implicit rejection).
        Connects again and asks once more when the connection is lost.

        Raises:
            AgentUnavailable: no answer within a second, or the agent sheds load.
        """
        try:
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                try:
                    return await (await self._connected()).ask(ciphertext, source)
                except _Disconnected:
                    return await (await self._connected()).ask(ciphertext, source)
        except TimeoutError:
            raise AgentUnavailable("the key agent did not answer in time") from None
        except _Disconnected:
            raise AgentUnavailable("the key agent went away twice") from None

    def close(self) -> None:
        """End it. Requests under way fail."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.close()

    async def _connected(self) -> _Link:
        if self._closed:
            raise AgentUnavailable("closed")
        if self._link is not None and not self._link.lost:
            return self._link
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.ensure_future(self._dial())
        # Shielded: one request that times out must not end the attempt for the others.
        return await asyncio.shield(self._connecting)

    async def _dial(self) -> _Link:
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, link = await loop.create_unix_connection(_Link, str(self._path))
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            try:
                spki = await link.hello
            except _Disconnected:
                await asyncio.sleep(RETRY_S)
                continue
            except asyncio.CancelledError:
                link.close()
                raise
            if self._spki not in (None, spki):
                link.close()
                raise AgentUnavailable("the server's key has changed; restart the server")
            self._spki = spki
            self._link = link
            return link


class _Link(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.hello: asyncio.Future[bytes] = loop.create_future()
        self.lost = False
        self._reader = FrameReader()
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._next = 1
        self._transport: asyncio.Transport | None = None
        """None until connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop registers no subclass
        self._transport = transport
        if not credentials(transport.get_extra_info("socket")).ours:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
        except AgentProtocolError:
            self.close()
            return
        for frame in frames:
            if frame.kind == Kind.HELLO:
                if not self.hello.done():
                    self.hello.set_result(frame.payload)
                continue
            waiting = self._pending.get(frame.request)
            if waiting is None or waiting.done():
                continue
            if frame.kind == Kind.SECRET:
                waiting.set_result(frame.payload)
            elif frame.kind == Kind.BUSY:
                waiting.set_exception(AgentUnavailable("the key agent is busy"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.hello.done():
            self.hello.set_exception(_Disconnected())
            self.hello.exception()  # nobody may be waiting for it any more
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(_Disconnected())

    async def ask(self, ciphertext: bytes, source: str) -> bytes:
        if self.lost:
            raise _Disconnected
        if len(self._pending) >= PENDING_MAX:
            raise AgentUnavailable("too many handshakes wait for the key agent")
        assert self._transport is not None
        request = self._next
        self._next = request % 0xFFFF_FFFF + 1
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pending[request] = waiting
        try:
            self._transport.write(pack_unwrap(request, ciphertext, source))
            return await waiting
        finally:
            del self._pending[request]

    def close(self) -> None:
        self.lost = True
        if self._transport is not None:
            self._transport.abort()
