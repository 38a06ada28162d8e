"""The lock of the data directory, for a supervisor that may have to wait for its predecessor."""

from __future__ import annotations

import time
from typing import Final

from relay.errors import StartError
from relay.server.privileges import Separation
from relay.store.file.directory import DataDirectory, DirectoryLock

RETRY_S: Final = 0.02


class DataLock:
    """The lock of one data directory."""

    def __init__(self, directory: DataDirectory, separation: Separation) -> None:
        """Create without locking."""
        self._directory = directory
        self._separation = separation
        self._lock: DirectoryLock | None = None

    def take(self, patience_s: float = 0.0) -> None:
        """Take it, waiting this long for its holder. Raises StartError: another server holds it."""
        deadline = time.monotonic() + patience_s
        while self._lock is None:
            try:
                with self._separation.lowered():
                    self._lock = self._directory.lock()
            except StartError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(RETRY_S)

    def close(self) -> None:
        """Release it, if it is taken."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
