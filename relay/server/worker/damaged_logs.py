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
log = logging.getLogger("relay.worker")


class DamagedLogs:
    """What was reported of logs that cannot be read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Create without reports. ``clock``: seconds, monotonic."""
        self._clock = clock
        self._reported: set[tuple[str, str, bool]] = set()
        """(log, reason, whether as an inbox)."""
        self._reported_since = clock()

    def report(self, name: str, error: StoreError, *, inbox: bool = False) -> None:
        """Log why a log cannot be read, unless it was logged before.

        If much is damaged, no more than ``REPORTED_MAX`` lines are written in ``REPORTED_S``.

        Args:
            name: the log of a room, of an account or of an invitation.
            error: why.
            inbox: True if it is the direct messages in the log of an account that matter.
        """
        reason = str(error)
        key = name, reason, inbox
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
        if inbox:
            log.error("inbox_unreadable", extra=extra)
        elif names.is_room(name):
            log.error("room_unreadable", extra=extra)
        else:
            log.error("account_unreadable", extra=extra)
