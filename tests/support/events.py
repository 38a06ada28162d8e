"""Events of a server's log that tests look for."""

from __future__ import annotations

from typing import Final

PROGRAM_ERRORS: Final = frozenset(
    {
        "catchup_failed",
        "fan_out_failed",
        "log_went_back",
        "periodic_task_failed",
        "session_failed",
        "turn_failed",
    }
)
"""Nothing that anybody does, or that befalls a process, excuses one of these."""
