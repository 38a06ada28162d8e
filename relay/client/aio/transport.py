"""The asyncio client's socket: a protocol that moves bytes between it and the state.

A server decides what the bytes cost: a quarter of a megabyte, which the loop passes on at once, may
take the state half a second. So the state gets them in pieces, and other tasks run in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final, cast

from relay import limits
from relay.client import fork
from relay.client.dialling import has_ended
from relay.client.feed import Feed
from relay.client.options import LINGER_S
from relay.client.state import ClientState

PIECE_BYTES: Final = 16_384
TURN_S: Final = 0.01
"""After so long in one turn, what is left waits for the next one. It ends with a whole record, so
the slowest one (64 KiB) is the bound."""
PAUSED_LOOK_S: Final = 1.0
"""While reading is paused, the loop does not report the end of a connection, so it is polled."""


class ClientProtocol(asyncio.Protocol):
    """One connection's socket."""

    def __init__(
        self,
        state: ClientState,
        feed: Feed,
        clock: Callable[[], float],
        after_input: Callable[[], None],
    ) -> None:
        """Feed ``state``; call ``after_input`` after each step."""
        self._state = state
        self._feed = feed
        self._clock = clock
        self._after_input = after_input
        self._transport: asyncio.Transport | None = None
        """None before the connection is established."""
        self._paused = False
        """The program takes its events too slowly."""
        self._resting = False
        """True while the socket is not read."""
        self._unread = bytearray()
        """Received, and not passed to the state yet."""
        self._rest: socket.socket | None = None
        """What had arrived in the kernel when the connection broke."""
        self._turn: asyncio.Handle | None = None
        """Will pass on what is unread."""
        self._lost = False
        """True if the connection has ended: for the state, after what is unread."""
        self._look: asyncio.TimerHandle | None = None
        """When to check whether a connection that is not read has ended."""
        self.congested = False
        """True while more data than allowed waits for the socket."""
        self._ending = False
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the socket is closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the server sends first."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=limits.SENDS_UNACKNOWLEDGED_BYTES_MAX)
        self._state.connection_made(self._clock())
        if not self._state.connected:
            self.end()  # the client was closed meanwhile

    def data_received(self, data: bytes) -> None:
        """Receive bytes."""
        if not self._unread and len(data) <= PIECE_BYTES:
            self._feed.data(data)
            self._after_input()
            return
        self._unread += data
        if self._turn is None:
            self._receive()

    def _receive(self) -> None:
        """Pass on what one turn of the loop may take; the rest follows in the next ones."""
        self._turn = None
        until = self._clock() + TURN_S
        while data := self._next_piece():
            self._feed.data(data)
            if self._clock() >= until:
                self._turn = asyncio.get_running_loop().call_soon(self._receive)
                break
        else:
            if self._lost:
                self._over()
        self._rest_or_read()
        self._after_input()

    def _next_piece(self) -> bytes:
        """Return the next bytes for the state; none: there are no more for now."""
        if self._ending:
            self._drop_unread()
        if self._unread:
            piece = bytes(self._unread[:PIECE_BYTES])
            del self._unread[:PIECE_BYTES]
            return piece
        if self._rest is not None:
            with contextlib.suppress(OSError):
                if piece := self._rest.recv(PIECE_BYTES):
                    return piece
            self._drop_unread()
        return b""

    def _drop_unread(self) -> None:
        self._unread.clear()
        if self._rest is not None:
            self._rest.close()
            self._rest = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, by either side."""
        if self._look is not None:
            self._look.cancel()
        if self._ending:
            self._drop_unread()
            self._over()
            self._after_input()
        elif not self._lost:
            self._end_after_rest(broken=exc is not None)

    def _end_after_rest(self, *, broken: bool) -> None:
        """The connection has ended. Pass on what had arrived before: it may be a close record.

        Args:
            broken: whether the kernel may have more.
        """
        self._lost = True
        assert self._transport is not None
        opened = self._transport.get_extra_info("socket")
        if broken:
            # uvloop may have closed it already.
            with contextlib.suppress(OSError, AttributeError, ValueError, TypeError):
                self._rest = opened.dup()
                self._rest.setblocking(False)
        if self._turn is None:
            self._receive()

    def _over(self) -> None:
        """Nothing follows."""
        if not self._ending:
            self._feed.eof()
        if not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        """The server does not read: from now on sends stay in the window."""
        self.congested = True

    def resume_writing(self) -> None:
        """The server reads again."""
        self.congested = False
        self._after_input()

    def write(self, data: bytes) -> None:
        """Write; what is not sent at once is limited: see ``congested``."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def pause(self, paused: bool) -> None:
        """Stop reading, or continue."""
        transport = self._transport
        if paused is self._paused or transport is None or transport.is_closing():
            return
        self._paused = paused
        if paused:
            self._look_later()
        elif self._look is not None:
            self._look.cancel()
        self._rest_or_read()

    def _rest_or_read(self) -> None:
        """Read the socket, unless the state cannot follow, or the program."""
        transport, resting = self._transport, self._paused or bool(self._unread)
        if resting is self._resting or transport is None or transport.is_closing():
            return
        self._resting = resting
        if resting:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _look_later(self) -> None:
        self._look = asyncio.get_running_loop().call_later(PAUSED_LOOK_S, self._look_at)

    def _look_at(self) -> None:
        """Check whether the connection has ended while reading is paused."""
        transport = self._transport
        assert transport is not None
        if self._ending or not self._paused or transport.is_closing():
            return
        if not has_ended(transport.get_extra_info("socket")):
            self._look_later()
            return
        self._end_after_rest(broken=True)
        transport.abort()

    def end(self) -> None:
        """Close once everything is written, with a time limit."""
        if not self._ending and self._transport is not None:
            self._ending = True
            self._transport.close()
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

    def end_now(self) -> None:
        """Close at once; buffered data is dropped."""
        transport = self._transport
        self._drop_unread()
        if transport is not None:
            self._ending = True
            if transport.get_write_buffer_size():
                transport.abort()
            else:
                transport.close()

    def forked(self) -> None:
        """This is a copy in a forked child."""
        self._ending = True
        self._drop_unread()
        if self._transport is not None:
            fork.disconnect(self._transport.get_extra_info("socket"))

    @property
    def connected(self) -> bool:
        """True once there was a connection."""
        return self._transport is not None
