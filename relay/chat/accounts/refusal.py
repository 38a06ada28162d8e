"""Why a request about an account is refused. Homes and tools report it in their own ways."""

from __future__ import annotations

from enum import Enum, auto


class Reason(Enum):
    """The reason."""

    NOT_REGISTERED = auto()
    """No account has this name."""
    KEY_REFUSED = auto()
    """The key is not a device of the account."""
    DISABLED = auto()
    """An operator has disabled the account."""
    NAME_TAKEN = auto()
    """The name belongs, or belonged, to another account."""
    LOOKS_ALIKE = auto()
    """The name looks like an existing one."""
    INVITATION_NEEDED = auto()
    """None was given, or it is not valid (any more)."""
    REGISTRATION_CLOSED = auto()
    """Only operators can add accounts."""
    CHANGED = auto()
    """The state differs from the one that the request was made for."""
    BAD_REQUEST = auto()
    """The request itself is invalid."""
    NOT_ACCEPTED = auto()
    """The user does not accept messages from the requester; the reason is not revealed."""
    LIMIT = auto()
    """The account has reached a limit."""


class Refused(Exception):
    """A decision against a request."""

    def __init__(self, reason: Reason, text: str = "") -> None:
        super().__init__(text or reason.name)
        self.reason = reason
        self.text = text
