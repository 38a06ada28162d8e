"""Opens a named socket again when its name is missing: somebody has removed or replaced it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from relay.local_sockets import NamedListener


class Reopening:
    """Watches a listener's name, and opens it in the background."""

    def __init__(
        self, listener: NamedListener, open_again: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Watch nothing yet; ``open_again`` logs its failures and raises nothing."""
        self._listener = listener
        self._open_again = open_again
        self.task: asyncio.Task[None] | None = None
        """The last attempt; None until one was needed."""

    def check(self) -> None:
        """Begin to open it if that is necessary. Called about once a second."""
        if self._listener.missing and (self.task is None or self.task.done()):
            self.task = asyncio.ensure_future(self._open_again())

    def cancel(self) -> None:
        """Give up an attempt that is under way."""
        if self.task is not None:
            self.task.cancel()
