"""Reports how many log lines were lost, in all processes, once lines can be written again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from relay.server import logs

RETRY_S: Final = 1.0
"""Delay between attempts to log the number."""


class LostLines:
    """Counts lost lines, and reports those not reported yet."""

    def __init__(self, in_children: Callable[[], int]) -> None:
        """Create. ``in_children`` returns how many the children have lost so far."""
        self._in_children = in_children
        self._reported = 0
        self.wake_at_s = math.inf
        """When the next report may be attempted."""

    def report(self, now: float, *, at_once: bool = False) -> None:
        """Log how many more were lost; if that cannot be written, it is retried later."""
        lost = logs.lost() + self._in_children()
        if lost == self._reported:
            self.wake_at_s = math.inf
        elif at_once or now >= self.wake_at_s or self.wake_at_s == math.inf:
            if logs.report_lost(lost - self._reported):
                self._reported = lost
            self.wake_at_s = now + RETRY_S
