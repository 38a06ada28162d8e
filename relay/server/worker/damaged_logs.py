"""Reports logs that cannot be read to the operator, each damage once in the life of a worker.

Whoever may ask for a log can ask again and again, so no request may cost a line of the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.chat import names

if TYPE_CHECKING:
    from relay.store.errors import StoreError

REPORTED_MAX: Final = 1024
REPORTED_S: Final = 3600.0
"""How long as many as ``REPORTED_MAX`` reports are remembered at least."""
INBOX_UNREADABLE: Final = "inbox_unreadable"
log = logging.getLogger("relay.worker")


class DamagedLogs:
    """What was reported of logs that cannot be read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Create without reports. ``clock``: seconds, monotonic."""
        self._clock = clock
        self._reported: set[tuple[str, str, str]] = set()
        """(event, log, reason)."""
        self._reported_since = clock()

    def report(self, name: str, error: StoreError, event: str = "") -> None:
        """Log why a log cannot be read, unless it was logged before.

        If much is damaged, no more than ``REPORTED_MAX`` lines are written in ``REPORTED_S``.

        Args:
            name: the log.
            error: why.
            event: which event; without it, that of rooms or of accounts and invitations.
        """
        if not event:
            event = "room_unreadable" if names.is_room(name) else "account_unreadable"
        reason = str(error)
        key = event, name, reason
        if key in self._reported:
            return
        if len(self._reported) >= REPORTED_MAX:
            if self._clock() - self._reported_since < REPORTED_S:
                return
            self._reported.clear()
        if not self._reported:
            self._reported_since = self._clock()
        self._reported.add(key)
        extra = {"log": name, "reason": reason}
        if event == INBOX_UNREADABLE:
            log.error("inbox_unreadable", extra=extra)
        elif names.is_room(name):
            log.error("room_unreadable", extra=extra)
        else:
            log.error("account_unreadable", extra=extra)
