"""Reports how many lines the log lacks: lost ones of all processes, and repeats of this one."""

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
        self._again_s = math.inf
        """When the number of lost lines may be logged; infinity: nothing to log."""
        self.wake_at_s = math.inf
        """When the next report is due."""

    def report(self, now: float, *, at_once: bool = False) -> None:
        """Log how many more were lost; if that cannot be written, it is retried later.

        ``at_once``: it is the last report.
        """
        logs.report_left_out(math.inf if at_once else now)
        lost = logs.lost() + self._in_children()
        if lost == self._reported:
            self._again_s = math.inf
        elif at_once or now >= self._again_s or self._again_s == math.inf:
            if logs.report_lost(lost - self._reported):
                self._reported = lost
            self._again_s = now + RETRY_S
        self.wake_at_s = min(self._again_s, logs.left_out_due_s())
