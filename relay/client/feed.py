"""Passes input to a client's state, for both clients.

An exception there is an error of this library, and what arrived with it may be lost. A reconnect
would hide that, or repeat it for ever: so it ends the client, and every call raises it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from relay.client.errors import ClientError
from relay.client.state import ClientState

log: Final = logging.getLogger(__name__)


class Feed:
    """The input of a client: bytes, ends of connections, and the time."""

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

    def _failed(self, error: Exception) -> None:
        log.error("an error in the client library ends the client", exc_info=error)
        ended = ClientError(f"an error in the client library: {type(error).__name__}: {error}")
        ended.__cause__ = error
        self._state.fail(ended)
