"""Why a request about an account is refused; each home and each tool reports it in its own way."""

from __future__ import annotations

from enum import Enum, auto


class Reason(Enum):
    """What is the matter."""

    NOT_REGISTERED = auto()
    """No account has this name."""
    KEY_REFUSED = auto()
    """The key is not a device of the account."""
    DISABLED = auto()
    """An operator has disabled the account."""
    NAME_TAKEN = auto()
    """The name belongs to somebody else, or did."""
    LOOKS_ALIKE = auto()
    """The name looks like one that exists."""
    INVITATION_NEEDED = auto()
    """None was given, or it is not valid (any more)."""
    REGISTRATION_CLOSED = auto()
    """Only operators add accounts."""
    CHANGED = auto()
    """The state is not the one that the request was made for."""
    BAD_REQUEST = auto()
    """The request itself is wrong."""
    NOT_ACCEPTED = auto()
    """This person takes no messages from who asks: it is not told why."""
    LIMIT = auto()
    """The account holds as much as it may."""


class Refused(Exception):
    """A decision against a request."""

    def __init__(self, reason: Reason, text: str = "") -> None:
        super().__init__(text or reason.name)
        self.reason = reason
        self.text = text
