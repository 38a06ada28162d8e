"""A member that reads a few KB a second, and then freely. It checks every message."""

from __future__ import annotations

import threading
import time
from typing import Final

from benchmarks.load.returner import look
from relay.wire.events import ApplicationData, ConnectionClosed
from tests.support.raw import READ_BYTES, RawClient

STEP_S: Final = 0.1
QUIET_S: Final = 60.0
"""Without a byte for so long, a free reader gives up."""


class SlowReader:
    """Reads in a thread from ``start`` on; ``free`` lets it read what it can."""

    def __init__(self, host: str, port: int, name: str, log: str, bytes_per_s: int) -> None:
        """Connect and join, at the head."""
        self._client = RawClient(host, port, name)
        self._client.join(log)
        self._client.align()
        self._step_bytes = max(1, round(bytes_per_s * STEP_S))
        self._free = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._last: int | None = None
        self.next = 0
        """The number of the message that is due."""
        self.seq = 0
        self.checked = self.behind = 0
        self.read_slowly = 0
        """Bytes until it was free."""
        self.live = True
        self.wrong: list[str] = []

    @property
    def port(self) -> int:
        """Of this end of the connection."""
        port: int = self._client.socket.getsockname()[1]
        return port

    def start(self, first: int) -> None:
        """Read slowly from now on; the next message is number ``first``."""
        self.next = first
        self._thread.start()

    def free(self, last: int) -> float:
        """Read freely until message ``last`` and Live have come. Returns how many seconds it took.

        Raises:
            TimeoutError: they do not come.
        """
        began = time.monotonic()
        self._last = last
        self._free.set()
        self._thread.join(QUIET_S * 3)
        if not self._done():
            raise TimeoutError(f"the slow reader is at {self.next} of {last}: {self.wrong}")
        return time.monotonic() - began

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _done(self) -> bool:
        return self._last is not None and self.next > self._last and self.live

    def _run(self) -> None:
        try:
            while not self._free.wait(STEP_S):
                self.read_slowly += self._receive(self._step_bytes)
            while not self._done():
                self._receive(READ_BYTES)
        except (OSError, ValueError) as error:
            self.wrong.append(f"{type(error).__name__}: {error}")

    def _receive(self, count: int) -> int:
        client = self._client
        data = client.socket.recv(count)
        if not data:
            raise ConnectionError("the server closed the connection")
        client.connection.receive_data(data, time.monotonic())
        for event in client.connection.events():
            if isinstance(event, ApplicationData):
                self._take(event.content)
            elif isinstance(event, ConnectionClosed):
                raise ConnectionError(f"closed with {event.code}: {event.detail}")
        client.flush()
        return len(data)

    def _take(self, content: bytes) -> None:
        seen = look(content)
        if seen.fault:
            self.wrong.append(seen.fault)
        if seen.messages:
            if seen.first != self.next or (self.seq and seen.prev != self.seq):
                self.wrong.append(f"message {seen.first} where {self.next} was due")
            self.next = seen.first + seen.messages
            self.seq = seen.seq
            self.checked += seen.messages
        self.behind += seen.behind
        if seen.behind:
            self.live = False
        if seen.live:
            self.live = True
