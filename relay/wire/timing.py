"""The deadlines of a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Timing:
    """Deadlines in seconds; those of the handshake are absolute from the start."""

    client_key_s: float = 10.0
    handshake_s: float = 15.0
    ping_after_s: float = 30.0
    pings_unanswered_max: int = 2
    close_wait_s: float = 2.0
    violation_wait_s: float = 0.0
    """Server: how long after a violation bytes are still read, and dropped, so that no reset
    overtakes the close record. An owner that sets it keeps reading until ``finished``, even after
    ``ConnectionClosed``. 0: the connection is finished at once."""


DEFAULT_TIMING: Final = Timing()
