"""Settings that change at run time: written by the supervisor, polled by every process.

They are in shared memory, created before the first fork: a version, a length, and the settings as
JSON. The version is odd during a write, so a reader that sees the same even version before and
after has read a consistent state (a seqlock). Checking for a change is one memory read.
"""

from __future__ import annotations

import mmap
from typing import Final

import msgspec

from relay.errors import UsageError
from relay.settings import Settings

_BYTES: Final = 65_536
"""Far more than all settings as JSON; a path has at most 4096 bytes."""
_VERSION, _LENGTH = 0, 1
_HEADER_BYTES: Final = 16


class LiveSettings:
    """The current settings. Only one process writes."""

    def __init__(self, settings: Settings) -> None:
        self._memory = mmap.mmap(-1, _BYTES)
        self._header = memoryview(self._memory)[:_HEADER_BYTES].cast("Q")
        self.current = settings
        """As this process last read them."""
        self._seen = 0

    def publish(self, settings: Settings) -> None:
        """Publish settings to all processes. Only the supervisor may call this.

        Raises:
            UsageError: they are too large.
        """
        data = msgspec.json.encode(settings)
        if len(data) > _BYTES - _HEADER_BYTES:
            raise UsageError("the settings are too large to be changed while the server runs")
        self._header[_VERSION] += 1
        self._header[_LENGTH] = len(data)
        self._memory[_HEADER_BYTES : _HEADER_BYTES + len(data)] = data
        self._header[_VERSION] += 1
        self.current, self._seen = settings, self._header[_VERSION]

    def changed(self) -> Settings | None:
        """Return new settings once; None: nothing has changed since the last call."""
        version = self._header[_VERSION]
        if version == self._seen or version % 2:
            return None
        data = self._memory[_HEADER_BYTES : _HEADER_BYTES + self._header[_LENGTH]]
        if self._header[_VERSION] != version:
            return None  # written again meanwhile: the next call returns the newer ones
        self._seen = version
        self.current = msgspec.json.decode(data, type=Settings)
        return self.current
