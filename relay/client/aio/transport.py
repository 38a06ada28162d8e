"""The asyncio client's socket: a protocol that moves bytes between it and the state."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, cast

from relay import limits
from relay.client import fork
from relay.client.dialling import has_ended
from relay.client.options import LINGER_S, READ_BYTES, REST_READS_MAX
from relay.client.state import ClientState

PAUSED_LOOK_S: Final = 1.0
"""While reading is paused, the loop does not report the end of a connection, so it is polled."""


class ClientProtocol(asyncio.Protocol):
    """One connection's socket."""

    def __init__(
        self, state: ClientState, clock: Callable[[], float], after_input: Callable[[], None]
    ) -> None:
        """Feed ``state``; call ``after_input`` after each step."""
        self._state = state
        self._clock = clock
        self._after_input = after_input
        self._transport: asyncio.Transport | None = None
        """None before the connection is established."""
        self._paused = False
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
        self._state.receive_data(data, self._clock())
        self._after_input()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, by either side."""
        if self._look is not None:
            self._look.cancel()
        if not self._ending:
            if exc is not None:
                self._read_rest()
            self._state.receive_eof(self._clock())
        if not self.gone.done():
            self.gone.set_result(None)
        self._after_input()

    def _read_rest(self) -> None:
        """Read what had arrived before a write failed: it may be a close record with the reason."""
        assert self._transport is not None
        opened = self._transport.get_extra_info("socket")
        # uvloop may have closed it already.
        with (
            contextlib.suppress(OSError, AttributeError, ValueError, TypeError),
            opened.dup() as rest,
        ):
            rest.setblocking(False)
            for _ in range(REST_READS_MAX):
                data = rest.recv(READ_BYTES)
                if not data:
                    break
                self._state.receive_data(data, self._clock())

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
        if paused is not self._paused and transport is not None and not transport.is_closing():
            self._paused = paused
            if paused:
                transport.pause_reading()
                self._look_later()
            else:
                transport.resume_reading()
                if self._look is not None:
                    self._look.cancel()

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
        self._ending = True
        self._read_rest()
        self._state.receive_eof(self._clock())
        transport.abort()
        self._after_input()

    def end(self) -> None:
        """Close once everything is written, with a time limit."""
        if not self._ending and self._transport is not None:
            self._ending = True
            self._transport.close()
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

    def end_now(self) -> None:
        """Close at once; buffered data is dropped."""
        transport = self._transport
        if transport is not None:
            self._ending = True
            if transport.get_write_buffer_size():
                transport.abort()
            else:
                transport.close()

    def forked(self) -> None:
        """This is a copy in a forked child."""
        self._ending = True
        if self._transport is not None:
            fork.disconnect(self._transport.get_extra_info("socket"))

    @property
    def connected(self) -> bool:
        """True once there was a connection."""
        return self._transport is not None
