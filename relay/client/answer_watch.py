"""Detects a dead server while an answer is awaited: after silence a ping, then the end.

The server's own pings only come every half minute. A call that waits for an answer should not wait
that long for a connection that a network has dropped silently.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

ANSWER_S: Final = 5.0
"""Silence while an answer is awaited before a ping; after the same time again the connection is
lost."""
ANSWER_PING: Final = b"answer?"


class Due(Enum):
    """What to do about the silence."""

    NOTHING = 0
    PING = 1
    GIVE_UP = 2


class AnswerWatch:
    """The silence of one connection's server while it owes an answer."""

    __slots__ = ("_awaiting_since", "_pinged_at", "_received_at")

    def __init__(self) -> None:
        self._received_at = 0.0
        self._awaiting_since: float | None = None
        """Since when an answer is awaited; None: none is."""
        self._pinged_at: float | None = None
        """When the ping for that answer was sent; None: not needed yet."""

    def received(self, now: float) -> None:
        """The server has sent something."""
        self._received_at = now
        self._pinged_at = None

    def awaited(self, awaited: bool, now: float) -> None:
        """An answer is awaited, or none is."""
        if not awaited:
            self.reset()
        elif self._awaiting_since is None:
            self._awaiting_since = now

    def reset(self) -> None:
        """No answer is awaited."""
        self._awaiting_since = self._pinged_at = None

    def deadline(self) -> float | None:
        """Return when ``check`` is due; None: no answer is awaited."""
        if self._pinged_at is not None:
            return self._pinged_at + ANSWER_S
        if self._awaiting_since is not None:
            return max(self._awaiting_since, self._received_at) + ANSWER_S
        return None

    def check(self, now: float) -> Due:
        """Return what is due. PING counts as done."""
        due = self.deadline()
        if due is None or now < due:
            return Due.NOTHING
        if self._pinged_at is not None:
            return Due.GIVE_UP
        self._pinged_at = now
        return Due.PING
