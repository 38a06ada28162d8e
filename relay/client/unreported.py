"""Failures of posts whose outcome the program has never retrieved.

``post`` returns at once, and its outcome may be dropped: ``flush`` reports the first failure. A
program that exits without a ``flush`` is told of failures as well: by an exception at the end of a
``with`` block, or by a log warning from ``close``.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

from relay.client.errors import ClientError

log: Final = logging.getLogger(__name__)
KEPT_MAX: Final = 256
"""Failures that are kept individually; further ones are only counted."""


class Outcome(Protocol):
    """The outcome of a post."""

    retrieved: bool
    """True once the program has retrieved it."""


class UnreportedFailures:
    """The failed posts of one client whose outcomes were not retrieved."""

    def __init__(self) -> None:
        self._failed: list[tuple[Outcome, ClientError]] = []
        self._more = 0

    def add(self, post: Outcome, error: ClientError) -> None:
        """Record the failure of a post."""
        if len(self._failed) == KEPT_MAX:
            self._failed = [one for one in self._failed if not one[0].retrieved]
        if len(self._failed) < KEPT_MAX:
            self._failed.append((post, error))
        else:
            self._more += 1

    def clear(self) -> None:
        """Drop them all: ``flush`` has reported them."""
        self._failed.clear()
        self._more = 0

    def take(self) -> tuple[ClientError, int] | None:
        """Return the first failure and their number, and clear them; None if there is none."""
        left = [error for post, error in self._failed if not post.retrieved]
        count = len(left) + self._more
        self.clear()
        return (left[0], count) if left else None

    def warn(self) -> None:
        """Log the remaining failures when the client is closed."""
        if taken := self.take():
            error, count = taken
            log.warning("%d posted messages may not be stored; the first: %s", count, error)

    def raise_first(self) -> None:
        """Raise the first failure, after a ``with`` block that ended without an exception."""
        if taken := self.take():
            error, count = taken
            error.add_note(f"{count} posted messages may not be stored")
            raise error
