"""Whether the file that is open is still the one at its path.

A file that somebody removes while it is open takes everything that is written, and nobody ever
finds it again. So its writer looks now and then, and acknowledges nothing more.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, final

from relay.store.errors import StoreUnavailable

LOOK_MS: Final = 1000


@final
class FileIdentity:
    """See the module's docstring."""

    __slots__ = ("_file", "_looked_ms", "_path")

    def __init__(self, path: Path) -> None:
        """Know nothing yet. ``path``: of the file."""
        self._path = path
        self._file: tuple[int, int] | None = None
        self._looked_ms = 0

    def opened(self) -> None:
        """The file was opened just now."""
        self._file, self._looked_ms = self._found(), 0

    def look(self, now_ms: int) -> None:
        """See whether the file is there, if nobody has for a second.

        Raises:
            StoreUnavailable: it is not, or another one is.
        """
        if abs(now_ms - self._looked_ms) < LOOK_MS:
            return
        if self._found() != self._file:
            raise StoreUnavailable(
                f"{self._path} was moved, removed or replaced while it was in use: put that very "
                "file back, or stop the relay and restore a backup"
            )
        self._looked_ms = now_ms

    def _found(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - as in ``reader``
        except OSError:
            return None
        return status.st_dev, status.st_ino
