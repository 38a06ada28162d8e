"""Passes input to a client's state, and takes its output, for both clients.

An exception there is an error of this library, and what arrived with it, or was to be sent, may be
lost. A reconnect would hide that, or repeat it for ever: so it ends the client, and every call
raises it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from relay.client.errors import ClientError
from relay.client.fork import forked_error
from relay.client.state import ClientState
from relay.errors import ForkedConnection

log: Final = logging.getLogger(__name__)


class Feed:
    """The input of a client (bytes, ends of connections, the time), and its output."""

    __slots__ = ("_clock", "_state")

    def __init__(self, state: ClientState, clock: Callable[[], float]) -> None:
        """Feed ``state``. ``clock``: monotonic seconds."""
        self._state = state
        self._clock = clock

    def data(self, data: bytes) -> None:
        """Bytes have arrived."""
        try:
            self._state.receive_data(data, self._clock())
        except Exception as error:  # noqa: BLE001  # whatever it is, the program gets it
            self._failed(error)

    def eof(self) -> None:
        """The connection has ended."""
        try:
            self._state.receive_eof(self._clock())
        except Exception as error:  # noqa: BLE001
            self._failed(error)

    def deadline(self) -> None:
        """Something may be due."""
        try:
            self._state.handle_deadline(self._clock())
        except Exception as error:  # noqa: BLE001
            self._failed(error)

    def to_send(self) -> bytes:
        """Return the bytes to write now; must be called after every input."""
        try:
            return self._state.data_to_send(self._clock())
        except Exception as error:  # noqa: BLE001
            self._failed(error)
            return b""

    def _failed(self, error: Exception) -> None:
        if isinstance(error, ForkedConnection):  # by a library in C: see ``wire.fork``
            self._state.fail(forked_error())
            return
        log.error("an error in the client library ends the client", exc_info=error)
        ended = ClientError(f"an error in the client library: {type(error).__name__}: {error}")
        ended.__cause__ = error
        self._state.fail(ended)
