"""Why something in a room is refused."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class Reason(Enum):
    """The reason."""

    BANNED = auto()
    """The person is banned from the room."""
    KICKED_OUT = auto()
    """The user was removed."""
    MUTED = auto()
    """The user may read, but not write."""
    MEMBERS_ONLY = auto()
    """The room is private, and the user is not invited."""
    READ_ONLY = auto()
    """The room is closed, or only few may write in it."""
    NOT_ALLOWED = auto()
    """The user's role does not allow it."""
    NO_SUCH_ROOM = auto()
    """There is no room of this name."""
    NO_SUCH_ENTRY = auto()
    """The target is not in this room."""
    EXISTS = auto()
    """It exists already."""
    CHANGED = auto()
    """Somebody has changed the same thing meanwhile."""
    BAD_REQUEST = auto()
    """The request is not possible in the present state."""
    LIMIT = auto()
    """The room has reached a limit."""
    DAMAGED = auto()
    """Its stored data is damaged."""


OF_RIGHTS: Final = frozenset({
    Reason.BANNED, Reason.KICKED_OUT, Reason.MUTED, Reason.MEMBERS_ONLY, Reason.READ_ONLY,
    Reason.NOT_ALLOWED,
})  # fmt: skip
"""Refused for lack of rights: an operator might be allowed."""


class Refused(Exception):
    """A decision against a request."""

    def __init__(self, reason: Reason, text: str = "") -> None:
        super().__init__(text or reason.name)
        self.reason = reason
        self.text = text


def not_this_room() -> Refused:
    """Return the refusal of what is for an earlier room of this name.

    It was deleted, or the server was restored from a backup without it. Nothing tells which.
    """
    text = "that room no longer exists; join again for another one of its name"
    return Refused(Reason.NO_SUCH_ROOM, text)
