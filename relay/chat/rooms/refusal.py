"""Why something in a room is refused."""

from __future__ import annotations

from enum import Enum, auto


class Reason(Enum):
    """What is the matter."""

    BANNED = auto()
    """The person is banned from the room."""
    KICKED_OUT = auto()
    """The person was put out."""
    MUTED = auto()
    """The person may read, and not write."""
    MEMBERS_ONLY = auto()
    """The room is private, and the person is not invited."""
    READ_ONLY = auto()
    """The room is closed, or few may write in it."""
    NOT_ALLOWED = auto()
    """The person's role does not allow it."""
    NO_SUCH_ROOM = auto()
    """There is no room of this name."""
    NO_SUCH_ENTRY = auto()
    """What it is about is not in this room."""
    EXISTS = auto()
    """There is one already."""
    CHANGED = auto()
    """Somebody has changed the same thing meanwhile."""
    BAD_REQUEST = auto()
    """The request makes no sense as things are."""
    LIMIT = auto()
    """The room holds as much as it may."""
    DAMAGED = auto()
    """What is stored of it is damaged."""


class Refused(Exception):
    """A decision against somebody."""

    def __init__(self, reason: Reason, text: str = "") -> None:
        super().__init__(text or reason.name)
        self.reason = reason
        self.text = text
