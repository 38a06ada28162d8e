"""Posts that have failed, and whose program has not looked at the outcome.

``post`` returns at once, and its outcome may be dropped: ``flush`` reports the first failure. A
program that leaves without a ``flush`` is told as well: by an error where a ``with`` ends, by a
warning in the log where ``close`` is called.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

from relay.client.errors import ClientError

log: Final = logging.getLogger(__name__)
KEPT_MAX: Final = 256
"""Posts that are kept to see whether their program looks; of more only the number."""


class Outcome(Protocol):
    """The outcome of a post."""

    told: bool
    """True once the program has asked for it."""


class Untold:
    """The failures of one client's posts that its program was not told of."""

    def __init__(self) -> None:
        self._failed: list[tuple[Outcome, ClientError]] = []
        self._more = 0

    def add(self, post: Outcome, error: ClientError) -> None:
        """A post has failed."""
        if len(self._failed) == KEPT_MAX:
            self._failed = [one for one in self._failed if not one[0].told]
        if len(self._failed) < KEPT_MAX:
            self._failed.append((post, error))
        else:
            self._more += 1

    def clear(self) -> None:
        """The program is told: by ``flush``."""
        self._failed.clear()
        self._more = 0

    def take(self) -> tuple[ClientError, int] | None:
        """Return the first failure and their number, and forget them; None: there is none."""
        left = [error for post, error in self._failed if not post.told]
        count = len(left) + self._more
        self.clear()
        return (left[0], count) if left else None

    def warn(self) -> None:
        """Log what is left, when the client was closed."""
        if taken := self.take():
            error, count = taken
            log.warning("%d posted messages may not be stored; the first: %s", count, error)

    def tell(self) -> None:
        """Raise the first failure, when a ``with`` has ended without an error."""
        if taken := self.take():
            error, count = taken
            error.add_note(f"{count} posted messages may not be stored")
            raise error
