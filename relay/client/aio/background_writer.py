"""Writes an asyncio client's files in a background thread, in order.

Another program may hold the lock of such a file for long, and a disk may be slow. The thread is not
a daemon thread: the process does not exit before everything is written.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from relay.client.aio.thread import in_thread

log: Final = logging.getLogger(__name__)


class BackgroundWriter:
    """A queue of writes, and a thread that exists while the queue is not empty."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        """None while nothing is being written."""

    def add(self, write: Callable[[], None]) -> None:
        """Call ``write`` in the thread, after earlier ones. Exceptions are logged."""
        with self._lock:
            self._calls.append(write)
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="relay client")
            thread = self._thread
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is shutting down
            self._run()

    async def finish(self) -> None:
        """Wait until everything is written. May be cancelled."""
        thread = self._thread
        if thread is not None:
            await in_thread(thread.join)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._thread = None
                    return
                write = self._calls.popleft()
            try:
                write()
            except Exception as error:  # noqa: BLE001  # the other writes must not be lost
                log.warning("%s", error)
