"""A file descriptor that is reserved for when there are no others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

RETRY_S: Final = 1.0


class ReserveDescriptor:
    """With it a client is told that there are none; without it, the client waits in the backlog."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Reserve none yet."""
        self._loop = loop
        self._fd = -1
        self._retry: asyncio.TimerHandle | None = None

    def keep(self) -> None:
        """Reserve a descriptor, now or once there is one again.

        Whatever had taken the last one gives no notice: a connection whose socket is closed after
        its end, or a file of the store.
        """
        self._cancel()
        if self._fd < 0:
            try:
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._retry = self._loop.call_later(RETRY_S, self.keep)

    def give_up(self) -> bool:
        """Release the descriptor, until ``keep``. False: there was none."""
        self._cancel()
        if self._fd < 0:
            return False
        os.close(self._fd)
        self._fd = -1
        return True

    def _cancel(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
